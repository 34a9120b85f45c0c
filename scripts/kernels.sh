#!/usr/bin/env bash
# Boots other kernels in QEMU, and tests memdump there:
#
#   scripts/kernels.sh [--seeds N] [KERNEL...]     (default: 2 seeds of the oracle, all kernels)
#
#   6.1     Debian 12's, which lacks PAGEMAP_SCAN: memdump must say so and leave the process alone
#   6.12    Debian 13's, told to let only a tracer read inaccessible memory, as newer ones do
#   newest  the newest one in Debian's sid and experimental
#
# Needs no root and no KVM: the processor is emulated, and slow. Prints a line for each kernel. Ends
# with 0 if all is well; with 75 if QEMU or a kernel could not be fetched, and nothing failed; with 1
# at any failure. Kernels and logs are kept in .build/kernels of this repository.
set -euo pipefail

say() { printf 'kernels: %s\n' "$*" >&2; }

readonly repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly kept=$repository/.build/kernels
. "$repository/scripts/private-apt.sh"

# Seconds from power-on to power-off; a busy machine of two cores needs a sixth of it.
readonly time_limit=600

seeds=2 kernels=()
while [ $# -gt 0 ]; do
  case $1 in
    --seeds) seeds=${2:-}; shift ;;
    6.1 | 6.12 | newest) kernels+=("$1") ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "unknown argument $1; see --help"; exit 64 ;;
  esac
  shift || exit 64
done
[[ $seeds =~ ^[0-9]+$ ]] || { say "--seeds wants a number, not '$seeds'"; exit 64; }
[ ${#kernels[@]} -gt 0 ] || kernels=(6.1 6.12 newest)

suites() {
  case $1 in
    6.1) echo bookworm ;;
    6.12) echo trixie ;;
    newest) echo experimental sid ;;
  esac
}

# MARK: What is fetched

# QEMU and a static busybox, from a suite whose QEMU emulates cmpxchg16b right (7.2 does not).
fetch_qemu() {
  [ -x "$kept/qemu/usr/bin/qemu-system-x86_64" ] && return
  local work=$kept/qemu.partial
  rm -rf "$work"
  say "fetching QEMU from $mirror"
  private_apt "$work/apt" "$mirror" trixie || return 1
  apt-get "${apt_options[@]}" -y --download-only install qemu-system-x86 busybox-static \
    > /dev/null || return 1
  private_unpack "$work/apt" "$work/root" || return 1
  mv "$work/root" "$kept/qemu" && rm -rf "$work"
}

# fetch_kernel KERNEL: its image becomes $kept/KERNEL/vmlinuz, its release $kept/KERNEL/release. The
# images for clouds are the smallest; what is needed here is built into them.
fetch_kernel() {
  [ -e "$kept/$1/release" ] && return
  local work=$kept/$1.partial release package
  rm -rf "$work"
  say "fetching kernel $1 from $mirror"
  private_apt "$work/apt" "$mirror" $(suites "$1") || return 1
  # Of one with a split package the image is in linux-binary-RELEASE.
  release=$(apt-cache "${apt_options[@]}" pkgnames linux-image- \
    | sed -n 's/^linux-image-\([0-9].*-cloud-amd64\)$/\1/p' | sort -V | tail -n 1)
  [ -n "$release" ] || return 1
  package=linux-image-$release
  if apt-cache "${apt_options[@]}" show "linux-binary-$release" > /dev/null 2>&1; then
    package=linux-binary-$release
  fi
  (cd "$work/apt/cache/archives" && apt-get "${apt_options[@]}" download "$package") || return 1
  private_unpack "$work/apt" "$work/root" || return 1
  mkdir -p "$kept/$1"
  find "$work/root" -type f -name 'vmlinuz*' -exec mv {} "$kept/$1/vmlinuz" \;
  [ -s "$kept/$1/vmlinuz" ] || return 1
  printf '%s\n' "$release" > "$kept/$1/release"
  rm -rf "$work"
}

# MARK: The guest's files

# The programs of this build and every library they load, those at the paths that they have here, as
# an initial file system: no disk, no driver, nothing of this machine that the guest could write.
make_guest() {
  local root=$kept/guest products file
  products=$(swift build --package-path "$repository" --show-bin-path)
  rm -rf "$root"
  mkdir -p "$root"/{bin,dev,proc,products,sys,tmp,var/tmp}
  cp "$kept/qemu/usr/bin/busybox" "$root/bin/busybox"
  cp "$repository/scripts/kernels-guest.sh" "$root/init"
  local programs=("$products"/{memdump,workload,memdumpPackageTests.xctest})
  # Not where they lie here: that may be under /tmp, which the guest has its own of.
  for file in "${programs[@]}"; do strip --strip-debug -o "$root/products/${file##*/}" "$file"; done
  ldd "${programs[@]}" | grep -o '/[^ :]*\.so[^ :]*' | sort -u | while read -r file; do
    mkdir -p "$root$(dirname "$file")"
    strip --strip-debug -o "$root$file" "$file"
  done
  (cd "$root" && find . | "$kept/qemu/usr/bin/busybox" cpio -o -H newc) \
    > "$kept/guest.cpio" 2> /dev/null
  rm -rf "$root"
}

# MARK: A run

# boot KERNEL EXPECTED LOG: LOG gets what the guest's script says, LOG.console what the kernel does.
# -erms,-fsrm: the kernel copies by words, which the emulator translates well, not byte by byte.
boot() {
  "$kept/qemu/$private_linker" --library-path "$kept/qemu/usr/lib/x86_64-linux-gnu" \
    "$kept/qemu/usr/bin/qemu-system-x86_64" -L "$kept/qemu/usr/share/qemu" \
    -L "$kept/qemu/usr/share/seabios" -nodefaults -no-user-config -machine q35 -accel tcg \
    -cpu max,-erms,-fsrm,-la57 -smp 2 -m 2G -display none -no-reboot \
    -kernel "$kept/$1/vmlinuz" -initrd "$kept/guest.cpio" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr proc_mem.force_override=ptrace \
      expected=$2 seeds=$seeds" \
    -serial "file:$3.console" -serial "file:$3" < /dev/null > /dev/null 2>&1 &
  qemu=$!
  local waited
  for ((waited = 0; waited < time_limit; waited++)); do
    kill -0 "$qemu" 2> /dev/null || break
    sleep 1
  done
  end_qemu
}

qemu=''
end_qemu() {
  [ -n "$qemu" ] || return 0
  kill "$qemu" 2> /dev/null || true
  wait "$qemu" 2> /dev/null || true
  qemu=''
}
trap end_qemu EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# test_kernel KERNEL: prints its line.
test_kernel() {
  local log=$kept/$1.log release expected=works result attempt
  release=$(cat "$kept/$1/release")
  [ "$1" = 6.1 ] && expected=refuses
  SECONDS=0
  # An emulated processor with two cores may panic while a kernel patches its own code. Nothing of
  # ours has run by then.
  for attempt in 1 2 3; do
    rm -f "$log" "$log.console"
    boot "$1" "$expected" "$log"
    [ -s "$log" ] && break
    say "$release did not come up at attempt $attempt: see $log.console"
  done
  result=$(sed -n 's/^result: //p' "$log" 2> /dev/null | tr -d '\r')
  case $result in
    'ok: '*) printf 'kernel %s %s (%d s)\n' "$release" "$result" "$SECONDS" ;;
    *)
      printf 'kernel %s FAILED: %s (%d s)\n' "$release" \
        "${result:-it did not come to an end}" "$SECONDS"
      tail -n 25 "$log" "$log.console" >&2 || true
      return 1
      ;;
  esac
}

main() {
  local status=0 kernel
  if [ "$(dpkg --print-architecture 2> /dev/null)" != amd64 ] \
    || ! command -v apt-get > /dev/null; then
    say "not run: needs Debian's packages, and x86-64"
    exit 75
  fi
  mkdir -p "$kept"
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || { say "not run: apt-get indextargets names no Debian mirror"; exit 75; }
  fetch_qemu || { say "not run: QEMU could not be fetched from $mirror"; exit 75; }
  swift build --package-path "$repository" --build-tests < /dev/null > "$kept/build.log" 2>&1 \
    || { tail -n 20 "$kept/build.log" >&2; exit 1; }
  make_guest
  for kernel in "${kernels[@]}"; do
    if ! fetch_kernel "$kernel"; then
      say "kernel $kernel not run: it could not be fetched from $mirror"
      [ "$status" -eq 1 ] || status=75
      continue
    fi
    test_kernel "$kernel" || status=1
  done
  exit "$status"
}

main
