#!/usr/bin/env bash
# Measures memdump beside CRIU's own chain (pre-dumps, then a dump that refers to them), which needs
# a kernel with soft-dirty tracking: Debian's, in QEMU, where the processor is emulated, and slow.
#
#   scripts/bench-softdirty.sh [--quick] [--repetitions N] [--more] [--out DIR]
#
#   --quick    a target of 256 MiB and one repetition: shows that the benchmark works, not more
#   --more     adds to what the directory has of earlier runs, instead of beginning anew
#   --out DIR  where results.json, table.txt and the guest's logs go
#              (default: .build/bench-softdirty of this repository)
#
# Needs no root and no KVM, 6 GiB of memory, and a machine that does nothing else: about 150 seconds
# a repetition (default: 5). Ends with 75 if QEMU, CRIU or the kernel could not be fetched.
set -euo pipefail

say() { printf 'bench-softdirty: %s\n' "$*" >&2; }

readonly repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$repository/scripts/emulator.sh"

readonly version=6.12
mebibytes=1024 repetitions=5 more=no out=$repository/.build/bench-softdirty
while [ $# -gt 0 ]; do
  case $1 in
    --quick) mebibytes=256 repetitions=1 ;;
    --repetitions) repetitions=${2:-}; shift ;;
    --more) more=yes ;;
    --out) out=${2:-}; shift ;;
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "unknown argument $1; see --help"; exit 64 ;;
  esac
  shift || exit 64
done
[[ $repetitions =~ ^[1-9][0-9]*$ ]] || { say "--repetitions wants a number"; exit 64; }

fetch_qemu
fetch_kernel "$version" || { say "not run: kernel $version could not be fetched"; exit 75; }
for product in memdump workload; do
  swift build --package-path "$repository" -c release --product "$product" < /dev/null >&2
done
products=$(swift build --package-path "$repository" -c release --show-bin-path)
new_guest "$repository/scripts/bench-softdirty-guest.sh"
add_programs "$products"/{memdump,workload}
add_criu || { say "not run: CRIU could not be fetched"; exit 75; }
pack_guest

mkdir -p "$out"
[ "$more" = yes ] || rm -f "$out"/run-*
log=$out/last.log
read -r load _ < /proc/loadavg
# Some 3,000 pages in the pause: what is written, and the pages of the table that it is noted in.
boot "$version" 5G $((120 + 200 * repetitions)) "$log" "mebibytes=$mebibytes" \
  "repetitions=$repetitions" pause=3 rate=800
case $(result "$log") in
  'ok: '*) mv "$log" "$out/run-$(date +%s).log" ;;
  *) say "$(result "$log"); see $log"; exit 1 ;;
esac
MEMDUMP_BUILD=$products MEMDUMP_CRIU=$repository/.build/criu/bin/criu PYTHONDONTWRITEBYTECODE=1 \
  exec python3 "$repository/scripts/benchmark/softdirty.py" "$out" \
  "$(cat "$kept/$version/release")" "$load"
