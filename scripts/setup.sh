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

# for tests on emulated processors, and to compile for AMD's GPUs; whoever has no such packages goes
# without
emulation=(g++-aarch64-linux-gnu qemu-user hipcc libamdhip64-dev rocm-device-libs lld-15 llvm-15)

with_emulation=no
for option in "$@"; do
  case $option in
    --emulation) with_emulation=yes ;;
    -h | --help)
      echo "usage: scripts/setup.sh [--emulation]"
      echo "Installs with apt-get, if missing: ${packages[*]}"
      echo "  --emulation  also, where there are such packages: ${emulation[*]}"
      exit 0 ;;
    *) echo "setup: unknown option $option" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
  echo "setup: no apt-get here. Install by your own means: ${packages[*]}" >&2
  exit 0
fi

# Fills `missing` with those of the packages named that are not installed.
find_missing() {
  local package status
  missing=()
  for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null || true)
    if [[ $status != *installed* || $status == *not-installed* ]]; then
      missing+=("$package")
    fi
  done
}

find_missing "${packages[@]}"
wanted=("${missing[@]}")
optional=()
if [[ $with_emulation == yes ]]; then
  find_missing "${emulation[@]}"
  optional=("${missing[@]}")
fi
if [[ ${#wanted[@]} -eq 0 && ${#optional[@]} -eq 0 ]]; then
  echo "setup: everything is installed"
  exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo > /dev/null; then
    echo "setup: missing ${wanted[*]} ${optional[*]}; installing them needs root or sudo" >&2
    exit $((${#wanted[@]} > 0))
  fi
  as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
install() {
  echo "setup: installing $*"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "$@"
}
if [[ ${#wanted[@]} -gt 0 ]]; then
  install "${wanted[@]}"
fi
if [[ ${#optional[@]} -gt 0 ]]; then
  install "${optional[@]}" || echo "setup: going on without ${optional[*]}" >&2
fi
echo "setup: done"
