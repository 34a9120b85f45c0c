#!/usr/bin/env bash
# Runs the oracle with fresh seeds for hours: scripts/soak.sh [HOURS], default 1.
#
# As root. Stops at the first failure, whose seed it leaves in .build/soak.log; MEMDUMP_ORACLE_OPS
# sets the operations of each seed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

hours=${1:-1}
log=.build/soak.log

swift build --build-tests < /dev/null
end=$(($(date +%s) + $(awk -v hours="$hours" 'BEGIN { printf "%d", hours * 3600 }')))
rounds=0
while [ "$(date +%s)" -lt "$end" ]; do
  if ! MEMDUMP_ORACLE_SEEDS=${MEMDUMP_ORACLE_SEEDS:-200} \
    swift test --skip-build --no-parallel --filter OracleTests.nothingIsLost \
    < /dev/null > "$log" 2>&1; then
    grep -E 'seed|✘' "$log" >&2 || tail -n 50 "$log" >&2
    exit 1
  fi
  rounds=$((rounds + 1))
  printf '%s  ' "$rounds"
  grep '^oracle:' "$log"
done
