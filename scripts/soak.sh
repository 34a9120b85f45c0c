#!/usr/bin/env bash
# Runs what takes hours, again and again: scripts/soak.sh [HOURS [WHAT...]], default 1 hour of the
# oracle. WHAT, in turn:
#
#   oracle  random hostile address spaces, compared byte for byte with the frozen process
#   chaos   memdump killed at 200 random instants over processes that look at themselves
#   matrix  200 attaches and freezes of a thread in every blocking call and every state
#   faults  every single file operation of a dump failing in every way
#
# As root. Seeds are fresh ones. Stops at the first failure, whose seed it leaves in .build/soak.log;
# MEMDUMP_ORACLE_OPS sets the operations of each seed of the oracle, MEMDUMP_CHAOS_COUNT and
# MEMDUMP_MATRIX_COUNT the other numbers.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

hours=${1:-1}
what=("${@:2}")
if [ ${#what[@]} -eq 0 ]; then what=(oracle); fi
log=.build/soak.log

# One turn of $1: the tests, and what they are told.
turn() {
  case $1 in
    oracle) set -- OracleTests.nothingIsLost "MEMDUMP_ORACLE_SEEDS=${MEMDUMP_ORACLE_SEEDS:-200}" ;;
    chaos)
      set -- ChaosTests "MEMDUMP_CHAOS_COUNT=${MEMDUMP_CHAOS_COUNT:-200}" "MEMDUMP_TEST_SEED=$SRANDOM"
      ;;
    matrix)
      set -- 'MatrixTests|HarmTests' "MEMDUMP_MATRIX_COUNT=${MEMDUMP_MATRIX_COUNT:-200}" \
        "MEMDUMP_TEST_SEED=$SRANDOM"
      ;;
    faults) set -- FaultTests MEMDUMP_FAULT_SWEEP=all ;;
    *)
      echo "soak.sh: '$1' is not oracle, chaos, matrix or faults" >&2
      exit 64
      ;;
  esac
  env "${@:2}" swift test --skip-build --no-parallel --filter "$1" < /dev/null > "$log" 2>&1
}

swift build --build-tests < /dev/null
end=$(($(date +%s) + $(awk -v hours="$hours" 'BEGIN { printf "%d", hours * 3600 }')))
turns=0
while [ "$(date +%s)" -lt "$end" ]; do
  name=${what[turns % ${#what[@]}]}
  if ! turn "$name"; then
    grep -E 'seed|SEED|✘' "$log" >&2 || tail -n 50 "$log" >&2
    exit 1
  fi
  turns=$((turns + 1))
  printf '%s  %s  ' "$turns" "$name"
  grep -E '^(oracle|chaos|faults):' "$log" || tail -n 1 "$log"
done
