#!/usr/bin/env bash
# Moves a redis-server from one network namespace to another while a client counts in it over TCP:
#
#   scripts/migrate-demo.sh [--size MB]
#
#   --size MB   how much data redis holds (default 300)
#
# First the destination fails to restore, and redis runs on where it was. Then memdump moves it, with
# `memdump migrate` and `memdump receive --restore`. Then criu alone moves another one: dump, copy,
# restore. The client keeps its connection and loses no increment; how long it waited is printed.
#
# Needs root, criu 4 (CRIU=PATH names one), redis, iproute2, nftables support in criu. MEMDUMP=PATH
# takes a memdump that is already built. Namespaces, processes and files are its own, and end with it.
set -euo pipefail

readonly repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly address=10.77.0.10
fail() { printf 'migrate-demo: %s\n' "$*" >&2; exit 1; }
title() { printf '\n== %s\n' "$*"; }

size=300
while [ $# -gt 0 ]; do
  case $1 in
    --size) size=${2:-}; shift ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
  esac
  shift || exit 64
done
[[ $size =~ ^[1-9][0-9]*$ ]] || fail "--size wants a number of megabytes, not '$size'"
[ "$(id -u)" -eq 0 ] || fail "this makes namespaces and runs criu: run it as root"
criu=${CRIU:-$repository/.build/criu/bin/criu}
[ -x "$criu" ] || criu=$(command -v criu) || fail "there is no criu; scripts/criu-root.sh fetches one"
memdump=${MEMDUMP:-}
if [ -z "$memdump" ]; then
  swift build --package-path "$repository" -c release --product memdump
  memdump=$repository/.build/release/memdump
fi

work=$(mktemp -d /var/tmp/memdump-migrate.XXXXXX)
readonly tag=md$$
machine='' redis='' client='' arrival='' arrived=''
cleanup() {
  local status=$?
  trap - EXIT INT TERM HUP
  set +e
  [ -n "$client" ] && kill -KILL "$client" 2> /dev/null
  [ -n "$arrival" ] && kill -KILL "$arrival" 2> /dev/null
  [ -n "$redis" ] && kill -KILL "$redis" 2> /dev/null
  # The destination's first process: all others of its pid namespace end with it.
  [ -n "$machine" ] && kill -KILL "$machine" 2> /dev/null
  wait 2> /dev/null
  local name
  for name in switch here there client; do ip netns del "$tag-$name" 2> /dev/null; done
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# -- The network: three machines at a switch. ------------------------------------------------------
net() { local name=$1; shift; ip -n "$tag-$name" "$@"; }
within() { local name=$1; shift; nsenter --net="/run/netns/$tag-$name" "$@"; }
# The same for the background: $! is the program itself, not a shell that waits for it.
become() { local name=$1; shift; exec nsenter --net="/run/netns/$tag-$name" "$@"; }
make_network() {
  local name
  for name in switch here there client; do ip netns add "$tag-$name"; done
  net switch link add bridge type bridge
  net switch link set bridge up
  for name in here there client; do
    net switch link add "to-$name" type veth peer name eth0 netns "$tag-$name"
    net switch link set "to-$name" master bridge up
    net "$name" link set lo up
  done
  net client address add 10.77.0.2/24 dev eth0
  net client link set eth0 up
  # The link address moves with the IP address: nobody has to learn a new one.
  for name in here there; do net "$name" link set eth0 address 02:77:00:00:00:10; done
  net here address add $address/24 dev eth0
  net here link set eth0 up
}
# move_address FROM TO
move_address() {
  net "$1" link set eth0 down
  net "$1" address flush dev eth0
  net "$2" address add $address/24 dev eth0
  net "$2" link set eth0 up
}
# The destination has its own processes too: the source's still exists when the destination's starts.
make_machine() {
  unshare --pid --fork --kill-child --mount-proc nsenter --net="/run/netns/$tag-there" \
    sleep infinity < /dev/null > /dev/null 2>&1 &
  local outer=$!
  until machine=$(cat "/proc/$outer/task/$outer/children") && [ -n "$machine" ]; do sleep 0.05; done
  machine=${machine%% *}
  until [ "$(cat "/proc/$machine/comm")" = sleep ]; do sleep 0.05; done
}
there() { nsenter --target "$machine" --pid --mount --net "$@"; }

# -- Redis, and its client. ------------------------------------------------------------------------
ask() { within client redis-cli -h $address "$@"; }
start_redis() {
  become here setsid redis-server --bind $address --save '' --appendonly no --protected-mode no \
    --enable-debug-command yes --logfile "$work/redis.log" --dir "$work" \
    < /dev/null > /dev/null 2>&1 &
  redis=$!
  until [ "$(ask ping 2> /dev/null)" = PONG ]; do
    kill -0 "$redis" 2> /dev/null || fail "redis did not start"
    sleep 0.1
  done
  ask debug populate "$((size * 1000))" key 900 > /dev/null
  ask set counter 0 > /dev/null
  digest=$(ask debug digest)
}
start_client() {
  rm -f "$work/stop" "$work/report"
  become client python3 - "$address" "$work" << 'PYTHON' &
import os, socket, sys, time
address, work = sys.argv[1:]
connection = socket.create_connection((address, 6379))
answers = connection.makefile("rb")
count, longest, last = 0, 0.0, time.monotonic()
while not os.path.exists(work + "/stop"):
    connection.sendall(b"INCR counter\r\n")
    line = answers.readline()
    now = time.monotonic()
    count += 1
    if line != b":%d\r\n" % count:
        sys.exit("the client expected %d and read %r" % (count, line))
    longest, last = max(longest, now - last), now
    time.sleep(0.001)
print("%d %.0f" % (count, longest * 1000), file=open(work + "/report", "w"))
PYTHON
  client=$!
  until [ "$(ask get counter)" -gt 50 ]; do sleep 0.1; done
}
# Says how the client fared, and checks what redis holds. check NAME
check() {
  local count gap
  sleep 0.5
  kill -0 "$client" 2> /dev/null || fail "$1: the client lost its connection"
  touch "$work/stop"
  wait "$client" || fail "$1: the client failed"
  client=''
  read -r count gap < "$work/report"
  [ "$(ask get counter)" = "$count" ] || fail "$1: redis has counted $(ask get counter), not $count"
  ask set counter 0 > /dev/null
  [ "$(ask debug digest)" = "$digest" ] || fail "$1: DEBUG DIGEST differs"
  printf '%s: %s increments on one connection, none lost; DEBUG DIGEST equal; longest wait %s ms\n' \
    "$1" "$count" "$gap"
  last_gap=$gap
}
criu_options=(--tcp-established --network-lock nftables)

# -- The three moves. ------------------------------------------------------------------------------
# Both sides in one place: migrate NAME PRE-RESTORE-OPTIONS. The destination takes the address over
# before it restores; the source takes it back if redis goes on there.
migrate() {
  local name=$1 status=0
  shift
  # sh, which runs the commands, hands no functions on.
  { declare -p tag address; declare -f net move_address; echo 'case $MEMDUMP_EVENT in'
    echo 'pre-restore) move_address here there ;;'
    echo 'resumed) move_address there here ;;'
    echo 'esac'; } > "$work/event.sh"
  nsenter --target "$machine" --pid --mount --net "$memdump" receive --restore \
    --images-dir "$work/$name" --from "unix:$work/$name.sock" --criu "$criu" \
    --on-event "bash $work/event.sh" -- --tcp-established "$@" &
  arrival=$!
  until [ -S "$work/$name.sock" ]; do
    kill -0 "$arrival" 2> /dev/null || fail "the destination did not start"
    sleep 0.05
  done
  within here "$memdump" migrate --pid "$redis" --to "unix:$work/$name.sock" --criu "$criu" \
    --work-dir "$work" --on-event "bash $work/event.sh" -- "${criu_options[@]}" || status=$?
  if wait "$arrival"; then arrived=yes; else arrived=no; fi
  arrival=''
  # 3: the freeze was longer than asked for.
  [ $status -eq 0 ] || [ $status -eq 3 ]
}
refuse() {
  title "The destination fails to restore"
  start_client
  if migrate refused --no-such-option || [ "$arrived" = yes ]; then fail "it was to fail"; fi
  check "refused"
}
by_memdump() {
  title "memdump moves it"
  start_client
  migrate arrived || fail "memdump migrate failed"
  [ "$arrived" = yes ] || fail "memdump receive failed"
  check "memdump"
  memdump_gap=$last_gap
}

by_criu() {
  title "criu alone moves it"
  start_client
  mkdir "$work/alone"
  within here "$criu" dump --tree "$redis" -D "$work/alone" -o dump.log "${criu_options[@]}"
  cp -r "$work/alone" "$work/alone-arrived"
  move_address here there
  there "$criu" restore -D "$work/alone-arrived" -d -o restore.log --tcp-established
  check "criu alone"
  printf '\nThe client waited %s ms for memdump, and %s ms for criu alone.\n' "$memdump_gap" "$last_gap"
}

make_network
make_machine
start_redis
refuse
by_memdump
# A new redis for criu: the destination is emptied, and the address goes back.
kill -KILL "$machine"
wait 2> /dev/null || true
make_machine
move_address there here
start_redis
by_criu
