#!/bin/busybox sh
# The first program of a virtual machine of scripts/emulator.sh: makes it a place to work in, runs
# /script there, and powers the machine off. All that is said goes to the second serial port; its
# last line is "result: ok: ..." or "result: what failed".
export PATH=/bin:/products HOME=/tmp
if [ "$1" != again ]; then
  /bin/busybox --install -s /bin
  # CRIU dumps no process whose root is not a mount, as that of an initial file system is not.
  mkdir /new
  mount -t tmpfs -o size=90% tmpfs /new
  for entry in /*; do
    [ "$entry" = /new ] || cp -a "$entry" /new
  done
  exec switch_root /new /init again
fi

mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/shm
mount -t tmpfs -o size=90% tmpfs /dev/shm
mount -t tmpfs -o size=90% tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
# CRIU keeps there what it finds out of the kernel, and tries that over the loopback.
mkdir -p /run
mount -t tmpfs tmpfs /run
ifconfig lo 127.0.0.1 up
for module in /modules/*; do
  [ ! -e "$module" ] || insmod "$module"
done
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

# What the kernel's command line says of a name.
argument() { tr ' ' '\n' < /proc/cmdline | sed -n "s/^$1=//p"; }
uptime_seconds() { cut -d ' ' -f 1 /proc/uptime; }
echo "[$(uptime_seconds)] Linux $(uname -r), $(cat /proc/cmdline)"

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

# start_workload WORDS...: `target` becomes a process that leads its session and answers, in a file,
# what it is asked through a fifo: what CRIU dumps.
start_workload() {
  mkfifo /tmp/in
  : > /tmp/out
  setsid workload "$@" pdeathsig=0 < /tmp/in > /tmp/out 2> /dev/null &
  target=$!
  exec 3> /tmp/in
  until grep -q '^ready' /tmp/out; do
    [ -e "/proc/$target" ] || fail "the workload did not start"
    usleep 20000
  done
}

# ask WORD: the answer of the workload. A program, so that memdump's commands have it, too.
cat > /bin/ask <<'END'
#!/bin/sh
before=$(wc -l < /tmp/out)
echo "$1" > /tmp/in
until [ "$(wc -l < /tmp/out)" -gt "$before" ]; do usleep 20000; done
tail -n 1 /tmp/out
END
chmod 755 /bin/ask

. /script
