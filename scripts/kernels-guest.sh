# The script of scripts/kernels.sh's guest: tests memdump on this kernel. The kernel's command line has
# expected= (works or refuses: whether this kernel can do what memdump needs) and seeds= (of the
# oracle).
expected=$(argument expected)
seeds=$(argument seeds)

expect_unharmed() {
  answer=$(ask check)
  [ "$answer" = ok ] || fail "the process finds its memory changed: $answer"
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
  run_tests SoftDirtyTests 'soft-dirty tracking: there'
  export MEMDUMP_ORACLE_SEED=1 MEMDUMP_ORACLE_OPS=300
  while [ "$MEMDUMP_ORACLE_SEED" -le "$seeds" ]; do
    echo "seed $MEMDUMP_ORACLE_SEED"
    run_tests OracleTests.nothingIsLost 'oracle: 1 runs'
    MEMDUMP_ORACLE_SEED=$((MEMDUMP_ORACLE_SEED + 1))
  done
  test_migration
  test_tests_of_migration
  finish "ok: chain of $rounds rounds equals the process, self-test passed, $seeds seeds of the" \
    "oracle, moved by CRIU"
}

# Its memory by memdump, the rest by CRIU; what comes back checks itself. These kernels have soft-dirty
# tracking, and memdump is to use it, unless somebody else does.
test_migration() {
  run '0 3' memdump predump --pid "$target" --images-dir /tmp/move --leave stopped
  run 1 memdump criu-dump /tmp/move --omit soft-dirty --decide false
  expect_unharmed
  rm -rf /tmp/move
  run '0 3' memdump predump --pid "$target" --images-dir /tmp/move --leave stopped
  run 0 memdump criu-dump /tmp/move --omit soft-dirty --leave killed --json
  says '"omission":"soft-dirty"'
  dropped=$(sed -n 's/.*"bytes_dropped":\([0-9]*\).*/\1/p' /tmp/said)
  # Where CRIU itself has written.
  [ "$dropped" -le $((64 * 4096)) ] || fail "criu has dumped $dropped bytes of memory"
  # Its pid must be free.
  wait "$target"
  run 0 memdump restore /tmp/move
  expect_unharmed
  for way in soft-dirty lazy; do
    rm -rf /tmp/again
    run '0 3' memdump predump --pid "$target" --images-dir /tmp/again --leave stopped
    run 0 memdump criu-dump /tmp/again --leave running --json
    says "\"omission\":\"$way\""
    expect_unharmed
  done
}

# A child that no round has, and a move to another pid namespace: memory is left out in the way that
# this kernel has.
test_tests_of_migration() {
  mkdir -p /usr/bin
  cat > /usr/bin/env <<'END'
#!/bin/sh
case $1 in
  unshare | nsenter)
    program=/products/$1
    shift
    exec "$program" "$@"
    ;;
esac
exec "$@"
END
  chmod 755 /usr/bin/env
  ln -s /products /products/bin
  export MEMDUMP_CRIU_ROOT=/products
  run_tests 'StateDumpTests/childOfCRIU\(|MigrateTests/moves\(' 'with 2 tests in 2 suites passed'
}

# What everybody waits for, if this takes long.
(
  sleep 200
  for process in /proc/[0-9]*/task/*; do
    echo "$process $(cat "$process/comm") $(cat "$process/wchan") $(grep State "$process/status")" \
      "$(cat "$process/syscall")"
  done
) &

start_workload stamp pages=1024 rate=1000 threads=2 drop=1
case $expected in
  works) test_dump ;;
  refuses) test_refusal ;;
  *) fail "nothing is expected of this kernel" ;;
esac
