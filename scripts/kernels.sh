#!/usr/bin/env bash
# Boots other kernels in QEMU, and tests memdump there:
#
#   scripts/kernels.sh [--seeds N] [KERNEL...]     (default: 2 seeds of the oracle, all kernels)
#
#   6.1     Debian 12's, which lacks PAGEMAP_SCAN: memdump must say so and leave the process alone
#   6.12    Debian 13's, told to let only a tracer read inaccessible memory, as newer ones do
#   newest  the newest one in Debian's sid and experimental
#
# Needs no root and no KVM: the processor is emulated, and slow. Prints a line for each kernel. Ends
# with 0 if all is well; with 75 if QEMU or a kernel could not be fetched, and nothing failed; with 1
# at any failure. Kernels and logs are kept in .build/kernels of this repository.
set -euo pipefail

say() { printf 'kernels: %s\n' "$*" >&2; }

readonly repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$repository/scripts/emulator.sh"

# Seconds from power-on to power-off; a busy machine of two cores needs a sixth of it.
readonly time_limit=600

seeds=2 kernels=()
while [ $# -gt 0 ]; do
  case $1 in
    --seeds) seeds=${2:-}; shift ;;
    6.1 | 6.12 | newest) kernels+=("$1") ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "unknown argument $1; see --help"; exit 64 ;;
  esac
  shift || exit 64
done
[[ $seeds =~ ^[0-9]+$ ]] || { say "--seeds wants a number, not '$seeds'"; exit 64; }
[ ${#kernels[@]} -gt 0 ] || kernels=(6.1 6.12 newest)

make_guest() {
  local products
  products=$(swift build --package-path "$repository" --show-bin-path)
  new_guest "$repository/scripts/kernels-guest.sh"
  # Busybox's have not all the options that the tests of migrations want.
  add_programs "$products"/{memdump,workload,memdumpPackageTests.xctest} /usr/bin/{unshare,nsenter}
  add_criu || { say "not run: CRIU could not be fetched"; exit 75; }
  pack_guest
}

# test_kernel KERNEL: prints its line.
test_kernel() {
  local log=$kept/$1.log release expected=works result
  release=$(cat "$kept/$1/release")
  [ "$1" = 6.1 ] && expected=refuses
  SECONDS=0
  boot "$1" 2G "$time_limit" "$log" proc_mem.force_override=ptrace "expected=$expected" \
    "seeds=$seeds"
  result=$(result "$log")
  case $result in
    'ok: '*) printf 'kernel %s %s (%d s)\n' "$release" "$result" "$SECONDS" ;;
    *)
      printf 'kernel %s FAILED: %s (%d s)\n' "$release" \
        "${result:-it did not come to an end}" "$SECONDS"
      tail -n 25 "$log" "$log.console" >&2 || true
      return 1
      ;;
  esac
}

main() {
  local status=0 kernel
  fetch_qemu
  swift build --package-path "$repository" --build-tests < /dev/null > "$kept/build.log" 2>&1 \
    || { tail -n 20 "$kept/build.log" >&2; exit 1; }
  make_guest
  for kernel in "${kernels[@]}"; do
    if ! fetch_kernel "$kernel"; then
      say "kernel $kernel not run: it could not be fetched from $mirror"
      [ "$status" -eq 1 ] || status=75
      continue
    fi
    test_kernel "$kernel" || status=1
  done
  exit "$status"
}

main
