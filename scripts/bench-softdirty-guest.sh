# The script of scripts/bench-softdirty.sh's guest. What counts are the lines that begin with
# "sample:" (what the target saw, what CRIU wrote of itself) and memdump's own events.
size=$(argument mebibytes)
repetitions=$(argument repetitions)
# Seconds between two rounds, of CRIU's and of memdump's.
pause=$(argument pause)

sample() { echo "sample: $*"; }
gap() { ask gap | sed s/gap=//; }
hex() { xxd -p "$1" | tr -d '\n'; }

criu_chain() {
  mkdir /tmp/criu
  parent=
  for round in 1 2 3; do
    mkdir "/tmp/criu/$round"
    gap > /dev/null
    # shellcheck disable=SC2086
    run 0 criu pre-dump -t "$target" -D "/tmp/criu/$round" --track-mem $parent -v1 -o log
    sample "criu-$round saw_ns=$(gap) stats=$(hex "/tmp/criu/$round/stats-dump")"
    parent="--prev-images-dir ../$round"
    sleep "$pause"
  done
  mkdir /tmp/criu/last
  gap > /dev/null
  # shellcheck disable=SC2086
  run 0 criu dump -t "$target" -D /tmp/criu/last --track-mem $parent --leave-running -v1 -o log
  sample "criu-last saw_ns=$(gap) stats=$(hex /tmp/criu/last/stats-dump)"
  rm -rf /tmp/criu
}

# The longest gap of each round, and of the freeze.
cat > /bin/on-event <<END
#!/bin/sh
case \$MEMDUMP_EVENT in
  pre-round) ask gap > /dev/null ;;
  post-round)
    [ \$MEMDUMP_ROUND -le 3 ] || exit 0
    echo "sample: memdump-\$MEMDUMP_ROUND saw_ns=\$(ask gap | sed s/gap=//)"
    sleep $pause
    ;;
  thawed) echo "sample: memdump-last saw_ns=\$(ask gap | sed s/gap=//)" ;;
esac
END
chmod 755 /bin/on-event

memdump_chain() {
  run '0 3' memdump predump --pid "$target" --images-dir /tmp/images --no-sync --json \
    --target-downtime 1us --threshold-pages 0 --min-shrink 0 --max-rounds 3 --on-event /bin/on-event
  rm -rf /tmp/images
}

# What CRIU's part of a freeze takes when the pages are another's: three ways to leave them out.
ways() {
  for way in lazy soft-dirty stream; do
    run '0 3' memdump predump --pid "$target" --images-dir /tmp/images --no-sync --compress none \
      --leave stopped --max-rounds 1
    begin=$(uptime_seconds)
    run 0 memdump criu-dump /tmp/images --omit "$way" --leave stopped --no-sync --json
    criu=$(sed -n 's/.*"wall_ns":\([0-9]*\).*/\1/p' /tmp/said)
    sample "way-$way begin=$begin end=$(uptime_seconds) criu_ns=$criu"
    kill -CONT "$target"
    rm -rf /tmp/images
  done
}

# window NAME: the longest gap while nothing is dumped.
window() {
  gap > /dev/null
  sleep 10
  sample "$1 saw_ns=$(gap)"
}
busy() {
  sha256sum /dev/zero &
  first=$!
  sha256sum /dev/zero &
  window busy
  kill "$first" $!
}

# It keeps what it finds out of the kernel.
criu check > /dev/null 2>&1
start_workload stamp "pages=$((size * 256))" "rate=$(argument rate)" cold=0 gap=2 thp=0
repetition=0
while [ "$repetition" -lt "$repetitions" ]; do
  criu_chain
  window undisturbed
  memdump_chain
  busy
  ways
  repetition=$((repetition + 1))
done
finish "ok: $repetitions repetitions"
