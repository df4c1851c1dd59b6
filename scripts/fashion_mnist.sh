#!/usr/bin/env bash
# Fetches Fashion-MNIST (70,000 images, MIT licence) from its Debian package, unpacked into DEST without root.
# Prints the folder of the IDX files. Exit code 3 where the package is out of reach.
set -euo pipefail

dest=${1:?where to}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
found() { find "$dest" -name 'train-images-idx3-ubyte*' -printf '%h\n' -quit 2>/dev/null; }

folder=$(found)
if [ -z "$folder" ]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || exit 3
  cd "$dest"
  if ! apt-get -qq download dataset-fashion-mnist >/dev/null 2>&1; then
    # A machine that has never updated its package lists does not know the package yet.
    { [ "$(id -u)" -eq 0 ] && apt-get update -qq >/dev/null 2>&1; } || true
    apt-get -qq download dataset-fashion-mnist >/dev/null 2>&1 || exit 3
  fi
  dpkg-deb -x dataset-fashion-mnist_*.deb .
  rm -f dataset-fashion-mnist_*.deb
  folder=$(found)
fi
[ -n "$folder" ] || exit 3
echo "$folder"
