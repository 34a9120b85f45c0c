#!/usr/bin/env bash
# Measures memdump beside CRIU, gcore and what the machine allows, all in one run:
#
#   scripts/bench.sh [--quick] [--only SECTION,...] [--out DIR]
#
#   --quick    256 MiB targets, two repetitions: shows that the benchmark works, not more
#   --only     some of: full_round zero_heavy inner_loops scan freeze matrix gaps throughput redis
#              migrate transfer
#   --out DIR  where results.json and table.txt go (default: .build/bench of this repository)
#
# Needs root, and a machine that does nothing else: about 20 GiB of memory and 25 minutes. Prints a
# table and ends with 0 whether or not the goals are met. All that it starts it ends.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case " $* " in
  *' -h '* | *' --help '*) sed -n '2,12s/^# \{0,1\}//p' scripts/bench.sh; exit 0 ;;
esac
[ "$(id -u)" -eq 0 ] || { echo 'bench: memdump dumps other processes: run this as root' >&2; exit 1; }

scripts/install-deps.sh
scripts/criu-root.sh
for product in memdump workload benchmarks; do
  swift build -c release --product "$product" < /dev/null >&2
done
MEMDUMP_BUILD=$(swift build -c release --show-bin-path) MEMDUMP_CRIU=$PWD/.build/criu/bin/criu \
  PYTHONDONTWRITEBYTECODE=1 exec python3 scripts/benchmark "$@" < /dev/null
