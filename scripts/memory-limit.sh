#!/usr/bin/env bash
# Proves that a model much larger than the memory it may have gives the same text as with all memory.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat << 'EOF'
usage: scripts/memory-limit.sh [options] MODEL [-- OPTIONS OF nibble-generate]

Lets nibble-generate continue a text with MODEL three times: without a limit; under a limit of the
system, with a budget (--ram) below it; under the same limit without a budget, so that nibble finds
the limit by itself. Prints a table. Fails if the texts differ or a run ends by the limit.

  --programs DIR   where nibble-generate is (default: build/release/examples)
  --limit BYTES    what the process may have (default: a third of MODEL)
  --ram BYTES      the budget (default: the limit less a tenth, and less 16 MiB)
  --prompt TEXT    the text to continue (default: "a")
  --rlimit         limits writable memory of the process (RLIMIT_DATA), as is done where no control
                   group can be made; it counts what is reserved, too, such as stacks of threads
  --help           this text

A control group counts what the process has in memory and the files that the system caches for it;
it is made below the group of this shell, which needs root or a group that was delegated.
Bytes may end in K, M or G (1024 of the unit before). Options for nibble-generate take the place of
"-c 512 -n 8".

  scripts/memory-limit.sh --limit 1550M --ram 1450M model.gguf -- -c 512 -n 8
EOF
}

die() {
  echo "memory-limit: $*" >&2
  exit 2
}

bytes_of() {
  [[ $1 =~ ^[0-9]+[KMG]?$ ]] || die "'$1' is no number of bytes"
  numfmt --from=iec "$1"
}

programs=$root/build/release/examples
limit='' ram='' prompt=a kind=group model=''
more=(-c 512 -n 8)
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --rlimit) kind=rlimit; shift ;;
    --) shift; more=("$@"); break ;;
    --programs | --limit | --ram | --prompt)
      [[ $# -gt 1 ]] || die "$1 needs a value"
      case $1 in
        --programs) programs=$2 ;;
        --limit) limit=$(bytes_of "$2") ;;
        --ram) ram=$(bytes_of "$2") ;;
        --prompt) prompt=$2 ;;
      esac
      shift 2
      ;;
    -*) echo "memory-limit: unknown option $1" >&2; usage >&2; exit 2 ;;
    *) [[ -z $model ]] || die "one model was expected"; model=$1; shift ;;
  esac
done
[[ -n $model ]] || { usage >&2; exit 2; }
[[ -f $model ]] || die "there is no file $model"
generate=$programs/nibble-generate
[[ -x $generate ]] || die "there is no $generate; build it, or give --programs"
size=$(stat -c %s "$model")
[[ -n $limit ]] || limit=$((size / 3))
[[ -n $ram ]] || ram=$((limit - limit / 10 - 16 * 1024 * 1024))
((ram > 0)) || die "a limit of $limit bytes leaves nothing for a model"

work=$(mktemp -d)
group=''
finish() {
  rm -rf "$work"
  if [[ -n $group ]]; then rmdir "$group" 2> /dev/null || true; fi
}
trap finish EXIT

# Makes a control group with the limit and sets group, peak_file; fails where it cannot.
make_group() {
  local mount own limit_file
  if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
    mount=/sys/fs/cgroup
    own=$(sed -n 's/^0:://p' /proc/self/cgroup)
    limit_file=memory.max peak_file=memory.peak
  elif [[ -d /sys/fs/cgroup/memory ]]; then
    mount=/sys/fs/cgroup/memory
    own=$(sed -nE 's/^[0-9]+:([^:]*,)?memory(,[^:]*)?://p' /proc/self/cgroup)
    limit_file=memory.limit_in_bytes peak_file=memory.max_usage_in_bytes
  else
    return 1
  fi
  [[ -d $mount$own ]] || own=''  # seen from inside a container
  mkdir "$mount$own/nibble-limit-$$" 2> /dev/null || return 1
  group=$mount$own/nibble-limit-$$
  { echo "$limit" > "$group/$limit_file"; } 2> /dev/null || return 1
  # what is put out to disk would not be in memory
  { echo 0 > "$group/memory.swap.max" || echo "$limit" > "$group/memory.memsw.limit_in_bytes"; } \
    2> /dev/null || true
  # whether a process may enter
  (echo "$BASHPID" > "$group/cgroup.procs") 2> /dev/null || return 1
}

if [[ $kind == group ]] && ! make_group; then
  echo "memory-limit: no control group can be made here; limiting writable memory instead" >&2
  if [[ -n $group ]]; then rmdir "$group" 2> /dev/null || true; fi
  group='' kind=rlimit
fi

# enter KIND: limits this shell.
enter() {
  case $1 in
    group) echo "$BASHPID" > "$group/cgroup.procs" ;;
    rlimit)
      ulimit -s 512  # a stack counts as a whole, used or not
      ulimit -d $((limit / 1024))
      ;;
  esac
}

# The most memory of its own that a process was seen with until it ended: without pages of files,
# such as those of its code, which the system takes back when it needs room.
peak_of() {
  local id=$1 now most=0
  while now=$(sed -n 's/^RssAnon:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$id/status" 2> /dev/null) &&
    [[ -n $now ]]; do
    most=$((now > most ? now : most))
    sleep 0.02
  done
  echo $((most * 1024))
}

row() {
  printf '%-24s %12s %12s %12s %10s  %s\n' "$@"
}

failed=no
# run NAME KIND BUDGET: a line of the table; BUDGET may be empty.
run() {
  local name=$1 limited=$2 budget=$3 status=0 peak equal=yes shown=- notes=''
  local options=(--temp 0 -v "${more[@]}")
  [[ -z $budget ]] || options+=(--ram "${budget}B")
  (
    enter "$limited"
    exec "$generate" "$model" "$prompt" "${options[@]}" > "$work/text" 2> "$work/notes"
  ) &
  local id=$!
  peak=$(peak_of "$id")
  wait "$id" || status=$?
  if [[ $limited == none ]]; then
    cp "$work/text" "$work/expected"
  else
    shown=$limit
  fi
  notes=$(sed -n 's/.*Of the weights \(.*\) do not fit into memory and are read from disk.*/\1 on disk/p' \
    "$work/notes")
  if [[ $limited == group && -r $group/$peak_file ]]; then
    notes+="; all that was counted $(cat "$group/$peak_file")"
    { echo 0 > "$group/$peak_file"; } 2> /dev/null || true
  fi
  cmp -s "$work/text" "$work/expected" || equal=no
  [[ $status -eq 0 ]] || equal="status $status"
  row "$name" "$shown" "${budget:--}" "$peak" "$equal" "$notes"
  if [[ $equal != yes ]]; then
    tail -n 12 "$work/notes" | sed 's/^/    /'
    failed=yes
  fi
  if [[ $limited != none ]] && ((peak > limit)); then
    echo "    the peak is above the limit"
    failed=yes
  fi
}

echo "$model: $size bytes; limited by $([[ $kind == group ]] && echo 'a control group' || echo RLIMIT_DATA)"
row run limit budget peak 'same text' notes
run 'no limit' none ''
run 'limited, with a budget' "$kind" "$ram"
run 'limited, by itself' "$kind" ''
if [[ $failed == yes ]]; then
  echo "memory-limit: FAILED"
  exit 1
fi
echo "memory-limit: passed"
