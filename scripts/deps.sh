#!/usr/bin/env bash
# Installs the system packages that the build needs and this machine lacks. Does nothing where all are there.
set -euo pipefail

missing=()
command -v cmake >/dev/null || missing+=(cmake)
command -v nasm >/dev/null || missing+=(nasm)
command -v cc >/dev/null || missing+=(build-essential)
command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer first (https://rustup.rs)" >&2; exit 1; }
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "please install: ${missing[*]} (this machine has no apt-get)" >&2
  exit 1
fi
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"
echo "installing ${missing[*]}" >&2
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq "${missing[@]}" >/dev/null
