#!/usr/bin/env bash
# Burn 0.22's CUDA backend links LLVM 23.1, which its build script downloads. Where that download is out of reach, this
# script puts the same LLVM, as two Python wheels carry it, into the folder where the build script looks first.
set -euo pipefail

home="${HOME:?}"
target="$home/.local/share/tracel/tracel-llvm-23.1.0-4"
if [ -e "$target/.tracel-llvm-installed" ]; then
  exit 0
fi
if [ "${1:-}" != "--force" ] && curl -fsIL --max-time 10 https://github.com/tracel-ai/tracel-llvm >/dev/null 2>&1; then
  echo "the build fetches LLVM itself on this machine; nothing to do (--force to use the wheels)" >&2
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --dest "$work" \
  mlc-llvm-static==23.1.1.post0 mlc-llvm-static-extra-targets==23.1.1.post0
for wheel in "$work"/*.whl; do
  python3 -m zipfile -e "$wheel" "$work/unpacked"
done
mkdir -p "$(dirname "$target")"
rm -rf "$target"
mv "$work/unpacked/mlc_llvm_static/static" "$target"
chmod +x "$target"/bin/*
touch "$target/.tracel-llvm-installed"
echo "LLVM is in $target" >&2
