#!/usr/bin/env bash
# Plans of twelve published shapes on ten sets of devices, as a table: for each what share of the
# weights lies on the GPUs, and the tokens a second that are expected. Nothing is loaded: the models
# are headers that nibble-synth writes.
#
#     scripts/plan-table.sh [--programs FOLDER] [--context TOKENS] [--type FORMAT] [--keep FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."

programs=build/release/examples context=8192 type=q4_k_m keep=
usage() { sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'; }
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --programs|--context|--type|--keep)
      [ $# -gt 1 ] || { echo "error: $1 needs a value." >&2; exit 2; }
      declare "${1#--}=$2"; shift ;;
    *) echo "error: '$1' is unknown; see --help." >&2; exit 2 ;;
  esac
  shift
done
if [ ! -x "$programs/nibble-plan" ] || [ ! -x "$programs/nibble-synth" ]; then
  echo "error: $programs has no nibble-plan and nibble-synth; build them, or say where they are (--programs)." >&2
  exit 1
fi

if [ -n "$keep" ]; then folder=$keep; mkdir -p "$folder"; else folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; fi

presets="qwen2.5-0.5b llama-3.2-1b qwen3-4b llama-3.1-8b gemma3-12b gpt-oss-20b qwen3-30b-a3b qwen3-32b llama-3.1-70b qwen3-235b-a22b llama-3.1-405b"
for preset in $presets; do
  "$programs/nibble-synth" --preset "$preset" --type "$type" --header-only "$folder/$preset.gguf" >/dev/null 2>&1
done
"$programs/nibble-synth" --arch qwen2 --n-layer 48 --n-embd 5120 --n-ff 13824 --n-head 40 --n-head-kv 8 --n-vocab 152064 \
  --context 32768 --name "dense 14b" --type "$type" --header-only "$folder/dense-14b.gguf" >/dev/null 2>&1

exec python3 scripts/plan_table.py "$programs/nibble-plan" "$folder" "$context"
