#!/usr/bin/env bash
# Installs what nibble is built with: packages of Debian 12 or later (and Ubuntu 24.04 or later).
# Does nothing where they are all there. Asks no questions; uses sudo if not run by root.
set -euo pipefail

packages=(
  git cmake ninja-build g++ pkg-config ccache
  libpcre2-dev libutf8proc-dev libxsimd-dev          # the library
  libcli11-dev nlohmann-json3-dev                    # the programs
  catch2 libeigen3-dev libbenchmark-dev              # tests and benchmarks
)

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  echo "usage: scripts/setup.sh"
  echo "Installs with apt-get, if missing: ${packages[*]}"
  exit 0
fi
if [[ $# -gt 0 ]]; then
  echo "setup: unknown option $1" >&2
  exit 2
fi

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
  echo "setup: no apt-get here. Install by your own means: ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null || true)
  if [[ $status != *installed* || $status == *not-installed* ]]; then
    missing+=("$package")
  fi
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo > /dev/null; then
    echo "setup: missing ${missing[*]}; installing them needs root or sudo" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${missing[@]}"
echo "setup: done"
