#!/bin/busybox sh
# The first and only program of the virtual machine that scripts/kernels.sh boots. It tests memdump
# there and powers the machine off. All that it says goes to the second serial port; its last line
# is "result: ok: ..." or "result: what failed". The kernel's command line has expected= (works or
# refuses: whether this kernel can do what memdump needs) and seeds= (of the oracle).
/bin/busybox mkdir -p /sbin
/bin/busybox --install -s /bin
export PATH=/bin:/products HOME=/tmp

mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
exec < /dev/null > /dev/ttyS1 2>&1
# One CR less in each line of the log.
stty -F /dev/ttyS1 -onlcr

finish() {
  echo "result: $*"
  sync
  poweroff -f
  sleep 1000
}
fail() { finish "$*"; }

argument() { tr ' ' '\n' < /proc/cmdline | sed -n "s/^$1=//p"; }
expected=$(argument expected)
seeds=$(argument seeds)
uptime_seconds() { cut -d ' ' -f 1 /proc/uptime; }
echo "[$(uptime_seconds)] Linux $(uname -r), expected: $expected"

# run WORDS COMMAND...: WORDS are the exit codes that are right; what it says is in /tmp/said too.
run() {
  right=$1
  shift
  echo "[$(uptime_seconds)] \$ $*"
  (
    "$@" 2>&1
    echo $? > /tmp/code
  ) | tee /tmp/said
  read -r code < /tmp/code
  for word in $right; do
    if [ "$code" = "$word" ]; then return; fi
  done
  fail "$1 $2 ended with $code, not with $right"
}
says() { grep -qF -- "$1" /tmp/said || fail "it does not say $1"; }

# A process whose pages say what they should hold, asked through two pipes.
start_workload() {
  mkfifo /tmp/in /tmp/out
  workload stamp pdeathsig=0 pages=1024 rate=1000 threads=2 drop=1 < /tmp/in > /tmp/out &
  target=$!
  exec 3> /tmp/in 4< /tmp/out
  read -r line <&4
  case $line in
    ready*) ;;
    *) fail "the workload did not start: $line" ;;
  esac
}
expect_unharmed() {
  echo check >&3
  read -r line <&4
  [ "$line" = ok ] || fail "the process finds its memory changed: $line"
  grep -q '^TracerPid:.0$' "/proc/$target/status" || fail "the process is still traced"
}

test_refusal() {
  run 22 memdump check
  says PAGEMAP_SCAN
  says UFFD_FEATURE_WP_ASYNC
  run 22 memdump check --json --pid "$target"
  says kernel.pagemap-scan
  run 22 memdump predump --pid "$target" --images-dir /tmp/images
  says UFFD_FEATURE_WP_ASYNC
  [ -z "$(ls -A /tmp/images 2> /dev/null)" ] || fail "a refused dump left something"
  expect_unharmed
  finish "ok: check and predump refuse with 22 and say why"
}

# A swift-testing run whose filter matches nothing succeeds too: the line that counts is looked for.
run_tests() {
  # By its path: it looks for the other programs where it lies itself.
  run 0 /products/memdumpPackageTests.xctest --testing-library swift-testing --no-parallel --filter "$1"
  says "$2"
}

test_dump() {
  run 0 memdump check --pid "$target"
  says 'A dump can work here.'
  run '0 3' memdump predump --pid "$target" --images-dir /tmp/images --target-downtime 1us \
    --threshold-pages 0 --min-shrink 0 --max-rounds 4 --leave stopped
  rounds=$(ls -d /tmp/images/round-* | wc -l)
  [ "$rounds" -ge 3 ] || fail "$rounds rounds are no chain"
  run 0 memdump restore-check /tmp/images --pid "$target"
  run 0 memdump restore-check /tmp/images --rebuild
  kill -CONT "$target"
  expect_unharmed
  run_tests TrackingSelfTestTests.passesHere 'with 1 test in 1 suite passed'
  export MEMDUMP_ORACLE_SEED=1 MEMDUMP_ORACLE_OPS=300
  while [ "$MEMDUMP_ORACLE_SEED" -le "$seeds" ]; do
    echo "seed $MEMDUMP_ORACLE_SEED"
    run_tests OracleTests.nothingIsLost 'oracle: 1 runs'
    MEMDUMP_ORACLE_SEED=$((MEMDUMP_ORACLE_SEED + 1))
  done
  finish "ok: chain of $rounds rounds equals the process, self-test passed, $seeds seeds of the oracle"
}

# What everybody waits for, if this takes long.
(
  sleep 200
  for process in /proc/[0-9]*/task/*; do
    echo "$process $(cat "$process/comm") $(cat "$process/wchan") $(grep State "$process/status")" \
      "$(cat "$process/syscall")"
  done
) &

start_workload
case $expected in
  works) test_dump ;;
  refuses) test_refusal ;;
  *) fail "nothing is expected of this kernel" ;;
esac
