#!/usr/bin/env bash
# Everything that must hold: builds and runs all tests, optimised, then with ASan and UBSan, then
# those of the kernels on an emulated 64-bit ARM.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat << 'EOF'
usage: scripts/test.sh [--quick] [--no-setup]

  --quick     only the optimised build and its tests, not the sanitizers', not ARM's
  --no-setup  installs no packages
  --help      this text

The tests read real models, vocabularies and reference outputs from the folder that
NIBBLE_TEST_DATA names, or from the folder "shared" beside the project; where it is absent
those tests are skipped, which is reported at the end.
EOF
}

quick=no
setup=yes
for option in "$@"; do
  case $option in
    --quick) quick=yes ;;
    --no-setup) setup=no ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test: unknown option $option" >&2; usage >&2; exit 2 ;;
  esac
done

data=${NIBBLE_TEST_DATA:-../shared}
results=()
step=start
SECONDS=0
finish() {
  local status=$?
  echo
  echo "== summary, after $((SECONDS / 60)) min $((SECONDS % 60)) s"
  for line in "${results[@]}"; do
    echo "   $line"
  done
  if [[ ! -d $data/models ]]; then
    echo "   SKIPPED: tests on real models; no test data at $data (set NIBBLE_TEST_DATA)"
  fi
  if [[ $status -eq 0 ]]; then
    echo "test.sh: all passed"
  else
    echo "test.sh: FAILED at: $step"
  fi
}
trap finish EXIT

# Configures, builds and tests a preset; further words are options of cmake.
check_preset() {
  local preset=$1 log
  shift
  step="$preset: configure"
  echo "== $step"
  cmake --preset "$preset" "$@"
  step="$preset: build"
  echo "== $step"
  cmake --build --preset "$preset" --parallel "$(nproc)"
  step="$preset: tests"
  echo "== $step"
  log=build/$preset/ctest.log
  ctest --preset "$preset" --parallel "$(nproc)" | tee "$log"
  results+=("$preset: $(grep 'tests passed' "$log")")
  if grep -q '(Skipped)' "$log"; then
    results+=("$preset: $(grep -c '(Skipped)' "$log") skipped")
  fi
  # how many combinations of kernel, format and instruction set or device were compared
  local line
  while read -r line; do
    results+=("$preset: $line")
  done < <(grep -hE '^(instruction sets|GPU kernels) compared' "build/$preset/Testing/Temporary/LastTest.log" | sort -u)
}

check_aarch64() {
  if ! command -v aarch64-linux-gnu-g++ > /dev/null || ! command -v qemu-aarch64 > /dev/null; then
    results+=("aarch64: SKIPPED, that needs g++-aarch64-linux-gnu and qemu-user")
    return
  fi
  check_preset aarch64
}

check_format() {
  step=format
  local formatter version
  formatter=$(command -v clang-format-14 || command -v clang-format || true)
  version=$([[ -z $formatter ]] || "$formatter" --version | sed -E 's/.*version ([0-9]+).*/\1/')
  if [[ $version != 14 ]]; then
    results+=("format: not checked, that needs clang-format 14")
    return
  fi
  # compared rather than asked with --dry-run, which also counts replacements that change nothing
  local file unformatted=()
  while read -r file; do
    "$formatter" "$file" | cmp --silent - "$file" || unformatted+=("$file")
  done < <(git ls-files '*.hpp' '*.cpp')
  if [[ ${#unformatted[@]} -gt 0 ]]; then
    results+=("format: clang-format -i ${unformatted[*]}")
    return 1
  fi
  results+=("format: as clang-format has it")
}

if [[ $setup == yes ]]; then
  step=setup
  scripts/setup.sh --emulation
fi
# two of AMD's families are enough to see that the module compiles
check_preset release "-DNIBBLE_HIP_ARCHITECTURES=gfx90a;gfx1030"
for module in cuda hip; do
  if [[ -e build/release/modules/libnibble_$module.so ]]; then
    results+=("release: the module for $module compiles and links")
  else
    results+=("release: SKIPPED the module for $module, there is no compiler for it")
  fi
done
if [[ $quick == no ]]; then
  # programs are thin, and take long to compile with sanitizers
  check_preset dev -DNIBBLE_BUILD_EXAMPLES=OFF -DNIBBLE_BUILD_BENCH=OFF
  check_aarch64
fi
check_format
