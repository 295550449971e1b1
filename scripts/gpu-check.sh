#!/usr/bin/env bash
# What must hold on a machine with a GPU: builds, runs every test of GPU code on the real device,
# compute-sanitizer on a few of them, and the benchmarks; writes one report with raw figures.
# Needs no network and installs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat << 'EOF'
usage: scripts/gpu-check.sh [--device ID] [--out FILE] [--prefix FOLDER] [--quick]

  --device ID      the GPU, as nibble-devices names it (default: cuda0)
  --out FILE       the report (default: bench/results/gpu-check.md)
  --prefix FOLDER  where libraries lie that are not installed: it is searched like /usr
  --quick          without benchmarks of whole models
  --help           this text
EOF
}

device=cuda0
out=bench/results/gpu-check.md
prefix=
quick=no
while [[ $# -gt 0 ]]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --prefix) prefix=$2; shift 2 ;;
    --quick) quick=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "gpu-check: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done
kind=${device%%[0-9]*}
case $kind in
  cuda | hip) ;;
  *) echo "gpu-check: $device is neither cuda<n> nor hip<n>" >&2; exit 2 ;;
esac

build=build/gpu-check
module=$build/modules/libnibble_$kind.so
failed=0
SECONDS=0
mkdir -p "$(dirname "$out")" "$build"
exec 3> "$out"
say() {
  echo "$*" | tee /dev/fd/3
}
# A section of the report: a title, and a command with its output.
section() {
  local title=$1 status=0
  shift
  say ""
  say "## $title (after $SECONDS s)"
  say '```'
  "$@" 2>&1 | tee /dev/fd/3 || status=$?
  say '```'
  if [[ $status -ne 0 ]]; then
    say "**failed with status $status**"
    failed=1
  fi
}

configure() {
  local options=(-DCMAKE_BUILD_TYPE=Release -DNIBBLE_CUDA=OFF -DNIBBLE_HIP=OFF)
  if [[ $kind == cuda ]]; then
    local capability
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
    options+=(-DNIBBLE_CUDA=ON "-DNIBBLE_CUDA_ARCHITECTURES=$capability")
  else
    options+=(-DNIBBLE_HIP=ON "-DNIBBLE_HIP_ARCHITECTURES=$(rocm_agent_enumerator | grep -v gfx000 | sort -u | paste -sd ';')")
  fi
  if [[ -n $prefix ]]; then
    options+=("-DCMAKE_PREFIX_PATH=$(realpath "$prefix")/usr")
    export PKG_CONFIG_PATH="$(realpath "$prefix")/usr/lib/x86_64-linux-gnu/pkgconfig"
    export PKG_CONFIG_SYSROOT_DIR="$(realpath "$prefix")"
  fi
  cmake -S . -B "$build" "${options[@]}" | tail -5
}

sanitize() {
  local tool=$1
  NIBBLE_TEST_GPU_MODULE=$module compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/tests/nibble_test_gpu" "[small]" | tail -12
}

bench_models() {
  local preset mix
  for preset in llama-3.2-1b llama-3.1-8b; do
    "$build/examples/nibble-synth" "$build/$preset.gguf" --preset "$preset" --type q4_k_m
    "$build/examples/nibble-bench" "$build/$preset.gguf" --device "$device" -p 512,2048 -n 128 -s 1,32 -c 4096
  done
  "$build/examples/nibble-synth" "$build/moe.gguf" --preset qwen3-30b-a3b --type q4_k_m
  "$build/examples/nibble-bench" "$build/moe.gguf" --device "$device" -p 512 -n 128 -c 4096
}

say "# GPU check of $device, $(date -u +%Y-%m-%d)"
say "$(git log -1 --format='commit %h: %s' 2> /dev/null || true)"
if [[ $kind == cuda ]]; then
  section "The device" nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free,clocks.max.sm,clocks.max.mem --format=csv
fi
section "Configure" configure
section "Build" cmake --build "$build" --parallel "$(nproc)" --target nibble_"$kind" nibble_test_gpu nibble-devices nibble-gpu-bench nibble-bench nibble-synth
export NIBBLE_MODULE_PATH=$build/modules
section "Devices" "$build/examples/nibble-devices"
section "Tests" env NIBBLE_TEST_GPU_MODULE="$module" "$build/tests/nibble_test_gpu"
if [[ $kind == cuda ]] && command -v compute-sanitizer > /dev/null; then
  section "compute-sanitizer memcheck" sanitize memcheck
  section "compute-sanitizer racecheck" sanitize racecheck
fi
section "Kernels" "$build/bench/nibble-gpu-bench" --device "$device"
if [[ $quick == no ]]; then
  section "Whole models" bench_models
fi
say ""
say "After $SECONDS s: $([[ $failed -eq 0 ]] && echo "all passed" || echo "something FAILED")"
exit $failed
