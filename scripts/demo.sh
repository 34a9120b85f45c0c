#!/usr/bin/env bash
# Shows memdump on a redis-server that is being written to:
#
#   scripts/demo.sh [--size MB] [--target-downtime TIME] [--keep]
#
#   --size MB               how much data redis holds (default 300)
#   --target-downtime TIME  handed to `memdump predump` (default 5ms)
#   --keep                  keep the images and say where they are
#
# Needs root. MEMDUMP=PATH takes a memdump that is already built. Everything it starts is its own
# (redis listens on a private socket only) and ends with it; so does its directory.
set -euo pipefail

readonly repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit "$1"
}
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
title() { printf '\n== %s\n' "$*"; }

size=300 keep=no downtime=5ms
while [ $# -gt 0 ]; do
  case $1 in
    --size) size=${2:-}; shift ;;
    --target-downtime) downtime=${2:-}; shift ;;
    --keep) keep=yes ;;
    -h | --help) usage 0 ;;
    *) printf 'demo: unknown argument %s\n' "$1" >&2; usage 64 ;;
  esac
  shift || usage 64
done
[[ $size =~ ^[1-9][0-9]*$ ]] || fail "--size wants a number of megabytes, not '$size'"
[ -n "$downtime" ] || fail "--target-downtime wants a time, such as 20ms"
[ "$(id -u)" -eq 0 ] || fail "memdump dumps other processes: run this as root"

work='' redis='' load='' current=''
# Each pid is a child of this shell that has not been waited for, so it cannot have become another
# process meanwhile. memdump first: it lets go of redis when it is asked to end.
cleanup() {
  local status=$?
  trap - EXIT INT TERM HUP
  set +e
  if [ -n "$current" ]; then
    kill -TERM "$current" 2> /dev/null
    wait "$current" 2> /dev/null
  fi
  local pid
  for pid in $load $redis; do
    # KILL also ends a stopped process, and nothing of this redis is to be kept.
    kill -KILL "$pid" 2> /dev/null
    wait "$pid" 2> /dev/null
  done
  if [ -n "$work" ]; then
    if [ "$keep" = yes ] && [ -d "$work/images" ]; then
      printf '\nThe images are in %s\n' "$work/images"
      rm -f "$work"/redis.* "$work"/*.log
    else
      rm -rf "$work"
    fi
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# run COMMAND...: shows and runs it. In the background, so that a signal to this script is handled
# at once. Exit code 3 is "finished, with warnings".
run() {
  printf '\n$ %s\n' "${*/#$memdump/memdump}"
  local status=0
  "$@" < /dev/null &
  current=$!
  wait "$current" || status=$?
  current=''
  case $status in
    0) ;;
    3) printf '(exit code 3: finished with warnings)\n' ;;
    *) fail "$(basename "$1") ${2:-} ended with exit code $status" ;;
  esac
}

ask() { redis-cli -s "$work/redis.sock" "$@"; }

start_redis() {
  redis-server --port 0 --unixsocket "$work/redis.sock" --unixsocketperm 700 --dir "$work" \
    --save '' --appendonly no --daemonize no > "$work/redis.log" 2>&1 < /dev/null &
  redis=$!
  local attempt
  for ((attempt = 0; attempt < 100; attempt++)); do
    if [ "$(ask ping 2> /dev/null)" = PONG ]; then return; fi
    kill -0 "$redis" 2> /dev/null || break
    sleep 0.1
  done
  tail -n 5 "$work/redis.log" >&2
  fail "redis-server did not start"
}

# Sessions as a web shop would keep them: about half of each value is words, half is tokens, so that
# compression has something to find and something to miss.
generate() {
  python3 - "$1" <<'PYTHON'
import base64, random, sys

count = int(sys.argv[1])
rng = random.Random(20)
words = "blue green cotton wool shirt jacket boots lamp table chair large small sale new".split()
out = sys.stdout.buffer
for i in range(count):
    items = ",".join(
        '{"item":"%s %s","quantity":%d,"price_cents":%d}'
        % (rng.choice(words), rng.choice(words), rng.randrange(1, 9), rng.randrange(99, 99999))
        for _ in range(8))
    token = base64.b64encode(rng.randbytes(390))
    value = (b'{"user":%d,"cart":[' % i) + items.encode() + b'],"token":"' + token + b'"}'
    key = b"key:%012d" % i
    out.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))
PYTHON
}

# Overwrites the first twentieth of the keys, over and over, with values as long as they had.
start_load() {
  local value
  value=$(head -c 735 /dev/urandom | base64 -w 0)
  redis-benchmark -s "$work/redis.sock" -c 4 -n 2000000000 -r $((keys / 20)) -q \
    SET key:__rand_int__ "$value" > "$work/load.log" 2>&1 < /dev/null &
  load=$!
  sleep 0.5
  kill -0 "$load" 2> /dev/null || fail "redis-benchmark ended: $(tail -n 1 "$work/load.log")"
}

stop_load() {
  # SIGKILL: redis is stopped, so the benchmark would wait for an answer before it looked.
  kill -KILL "$load"
  wait "$load" 2> /dev/null || true
  load=''
}

writes() { ask info commandstats | sed -n 's/^cmdstat_set:calls=\([0-9]*\),.*/\1/p'; }
megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }

# The freeze as the last round's stats-dump has it, which is where CRIU's own tools look:
# two magics, a length, and a record whose field 1 holds freezing (1) and frozen (2) microseconds.
freeze_of() {
  python3 - "$1/stats-dump" <<'PYTHON' 2> /dev/null || echo unknown
import sys

data = open(sys.argv[1], "rb").read()[12:]
position = 0
def varint():
    global position
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value

assert varint() == 0x0A
end = varint() + position
fields = {}
while position < end:
    tag = varint()
    fields[tag >> 3] = varint()
print("%.1f ms (stopping took %.1f ms)" % (fields[2] / 1000, fields.get(1, 0) / 1000))
PYTHON
}

summary() {
  local round count=0
  title "Summary"
  for round in "$work"/images/round-*; do
    printf '  %s  %s\n' "$(basename "$round")" "$(megabytes "$(du -sb "$round" | cut -f 1)")"
    count=$((count + 1))
  done
  printf '  rounds          %d\n' "$count"
  printf '  freeze          %s\n' "$(freeze_of "$work/images/latest")"
  printf '  images          %s\n' "$(megabytes "$(du -sb "$work/images" | cut -f 1)")"
  printf '  redis resident  %s\n' "$(megabytes $((resident * 1024)))"
  printf '  written during  %d SETs\n' "$((writes_after - writes_before))"
  printf '  wall clock      %d s\n' "$dump_seconds"
}

main() {
  "$repository/scripts/install-deps.sh"
  if [ -n "${MEMDUMP:-}" ]; then
    memdump=$MEMDUMP
  else
    title "Building memdump"
    swift build --package-path "$repository" -c release --product memdump < /dev/null
    memdump=$(swift build --package-path "$repository" -c release --show-bin-path)/memdump
  fi
  [ -x "$memdump" ] || fail "no memdump at $memdump"
  work=$(mktemp -d "${TMPDIR:-/tmp}/memdump-demo.XXXXXX")

  title "A redis-server with $size MB, written to all the time"
  start_redis
  keys=$((size * 1000000 / 1000))
  generate "$keys" | ask --pipe
  local keys_before keys_after
  keys_before=$(ask dbsize)
  [ "$keys_before" -eq "$keys" ] || fail "redis took $keys_before of $keys keys"
  start_load
  resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$redis/status")
  printf 'pid %d, %d keys, %s resident\n' "$redis" "$keys" "$(megabytes $((resident * 1024)))"

  title "What this machine and this process allow"
  run "$memdump" check --pid "$redis"

  title "Rounds while redis runs, then a short freeze"
  writes_before=$(writes)
  SECONDS=0
  run "$memdump" predump --pid "$redis" --images-dir "$work/images" \
    --target-downtime "$downtime" --leave stopped
  dump_seconds=$SECONDS
  stop_load

  title "Redis is stopped: the images must say exactly what it holds"
  grep -q '^State:.T' "/proc/$redis/status" || fail "redis is not stopped"
  run "$memdump" restore-check "$work/images" --pid "$redis"
  run "$memdump" restore-check "$work/images" --rebuild
  run "$memdump" inspect "$work/images"

  title "Redis goes on"
  kill -CONT "$redis"
  printf 'PING: %s\n' "$(ask ping)"
  writes_after=$(writes)
  keys_after=$(ask dbsize)
  printf 'DBSIZE: %s (before: %s)\n' "$keys_after" "$keys_before"
  [ "$keys_after" = "$keys_before" ] || fail "redis lost keys"
  summary
}

main
