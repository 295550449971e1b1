#!/usr/bin/env bash
# From nothing to a talking model: packages, build, text, speed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat << 'EOF'
usage: scripts/demo.sh [--no-setup] [PROMPT]

Builds nibble's programs in build/demo, lets the model that ships with them continue PROMPT,
and measures its load time, prompt and generation speed.

  --no-setup  installs no packages
  --help      this text
EOF
}

setup=yes
prompt="Once upon a time"
for option in "$@"; do
  case $option in
    --no-setup) setup=no ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "demo: unknown option $option" >&2; usage >&2; exit 2 ;;
    *) prompt=$option ;;
  esac
done

models=(examples/models/*.gguf)
if [[ ! -f ${models[0]} ]]; then
  echo "demo: no model in examples/models" >&2
  exit 1
fi
model=${models[0]}

if [[ $setup == yes ]]; then
  scripts/setup.sh
fi
echo "== building the programs in build/demo"
cmake -S . -B build/demo -G Ninja -D CMAKE_BUILD_TYPE=Release -D NIBBLE_BUILD_TESTS=OFF \
  -D NIBBLE_BUILD_BENCH=OFF
cmake --build build/demo --parallel "$(nproc)"

echo
echo "== nibble-generate $model"
build/demo/examples/nibble-generate "$model" "$prompt" -n 220 --seed 4 --echo --verbose
echo
echo "== nibble-bench $model"
build/demo/examples/nibble-bench "$model" -p 128 -n 64 -r 3
