#!/usr/bin/env bash
# Fuzzes every reader of images and of streams of them: scripts/fuzz.sh [SECONDS [TARGET...]], default 60 for each target.
#
# On one core, with AddressSanitizer. A single allocation of more than 8 MiB, 1 GiB in all, or 10
# seconds for one input count as failures. Inputs that reach something new are merged into
# Tests/Corpus; one that breaks a reader is left in .build/fuzz/findings and belongs there too.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
targets=("${@:2}")
if [ ${#targets[@]} -eq 0 ]; then targets=(session record pagemap small blocks chain rounds state); fi
scratch=.build/fuzz
corpus=Tests/Corpus

# GNU gold, the default linker, fails on this. The generated C and the Swift of the readers count coverage; the other dependencies need not.
MEMDUMP_FUZZ=1 swift build --scratch-path "$scratch" -c release --product fuzz \
  --sanitize address -Xswiftc -sanitize=fuzzer -Xcc -fsanitize=fuzzer-no-link \
  -Xswiftc -Xclang-linker -Xswiftc -fuse-ld=lld < /dev/null
fuzz=$scratch/release/fuzz
findings=$scratch/findings
mkdir -p "$findings" "$corpus" "$scratch/seeds"
# libFuzzer ends its processes without another word to them.
MEMDUMP_FUZZ_PLACE=$(mktemp -d /dev/shm/memdump-fuzz.XXXXXX)
export MEMDUMP_FUZZ_PLACE
trap 'rm -rf "$MEMDUMP_FUZZ_PLACE"' EXIT
"$fuzz" seeds "$scratch/seeds"

options=(-max_len=32768 -rss_limit_mb=1024 -malloc_limit_mb=8 -timeout=10 -print_funcs=0)
export ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=4
for target in "${targets[@]}"; do
  export MEMDUMP_FUZZ_TARGET=$target
  grown=$scratch/grown/$target
  mkdir -p "$grown" "$corpus/$target"
  nice -n 10 "$fuzz" "${options[@]}" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="$findings/$target-" "$grown" "$corpus/$target" "$scratch/seeds/$target" \
    > "$scratch/$target.log" 2>&1 || {
    tail -n 40 "$scratch/$target.log" >&2
    exit 1
  }
  # Fewest inputs for the same coverage; of those the shortest, so that the repository stays small.
  rm -rf "$scratch/merged"
  mkdir "$scratch/merged"
  nice -n 10 "$fuzz" "${options[@]}" -merge=1 "$scratch/merged" \
    "$corpus/$target" "$scratch/seeds/$target" "$grown" > "$scratch/$target-merge.log" 2>&1
  rm -rf "${corpus:?}/$target"
  mkdir "$corpus/$target"
  find "$scratch/merged" -type f -printf '%s %p\n' | sort -n \
    | awk '{ total += $1; if (total <= 49152) print $2 }' | xargs -r cp -t "$corpus/$target"
  printf '%s: %s, %s\n' "$target" \
    "$(grep -o 'stat::number_of_executed_units: *[0-9]*' "$scratch/$target.log" | tr -s ' ')" \
    "$(grep -o 'cov: [0-9]* ft: [0-9]*' "$scratch/$target.log" | tail -n 1)"
done
