# Boots other kernels in QEMU. Sourced, with `repository` and `say` defined; needs no root and no KVM:
# the processor is emulated, and slow. Kernels are kept in .build/kernels of the repository.

. "$repository/scripts/private-apt.sh"
readonly kept=$repository/.build/kernels
readonly guest=$kept/guest

suites() {
  case $1 in
    6.1) echo bookworm ;;
    6.12) echo trixie ;;
    newest) echo experimental sid ;;
  esac
}

# MARK: What is fetched

# QEMU and a static busybox, from a suite whose QEMU emulates cmpxchg16b right (7.2 does not). Ends
# the script with 75 if they cannot be had.
fetch_qemu() {
  if [ "$(dpkg --print-architecture 2> /dev/null)" != amd64 ] \
    || ! command -v apt-get > /dev/null; then
    say "not run: needs Debian's packages, and x86-64"
    exit 75
  fi
  mkdir -p "$kept"
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || { say "not run: apt-get indextargets names no Debian mirror"; exit 75; }
  [ -x "$kept/qemu/usr/bin/qemu-system-x86_64" ] || unpack_qemu \
    || { say "not run: QEMU could not be fetched from $mirror"; exit 75; }
}

unpack_qemu() {
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
# images for clouds are the smallest; what memdump needs is built into them, and what CRIU needs
# besides becomes $kept/KERNEL/modules.cpio.
fetch_kernel() {
  [ -e "$kept/$1/modules.cpio" ] && return
  local work=$kept/$1.partial release package busybox=$kept/qemu/usr/bin/busybox
  rm -rf "$work"
  say "fetching kernel $1 from $mirror"
  private_apt "$work/apt" "$mirror" $(suites "$1") || return 1
  release=$(apt-cache "${apt_options[@]}" pkgnames linux-image- \
    | sed -n 's/^linux-image-\([0-9].*-cloud-amd64\)$/\1/p' | sort -V | tail -n 1)
  [ -n "$release" ] || return 1
  package=linux-image-$release
  # Of newer ones, which are split; they have all that is needed built in.
  if apt-cache "${apt_options[@]}" show "linux-binary-$release" > /dev/null 2>&1; then
    package=linux-binary-$release
  fi
  (cd "$work/apt/cache/archives" && apt-get "${apt_options[@]}" download "$package") || return 1
  private_unpack "$work/apt" "$work/root" || return 1
  mkdir -p "$kept/$1" "$work/guest/modules"
  find "$work/root" -type f -name 'vmlinuz*' -exec mv {} "$kept/$1/vmlinuz" \;
  [ -s "$kept/$1/vmlinuz" ] || return 1
  printf '%s\n' "$release" > "$kept/$1/release"
  # Without it, built in or not, CRIU ends as soon as it asks what the kernel's firewall can do.
  find "$work/root" -type f -name 'nfnetlink.ko*' -exec cp {} "$work/guest/modules" \;
  [ ! -e "$work/guest/modules/nfnetlink.ko.xz" ] || "$busybox" unxz "$work/guest/modules/"*.xz \
    || return 1
  (cd "$work/guest" && find modules | "$busybox" cpio -o -H newc) > "$work/modules.cpio" \
    2> /dev/null || return 1
  mv "$work/modules.cpio" "$kept/$1/modules.cpio"
  rm -rf "$work"
}

# MARK: The guest's files

# An initial file system: no disk, no driver, nothing of this machine that the guest could write.

# new_guest SCRIPT: begins one that runs SCRIPT.
new_guest() {
  rm -rf "$guest"
  mkdir -p "$guest"/{bin,dev,proc,products,sys,tmp,var/tmp}
  cp "$kept/qemu/usr/bin/busybox" "$guest/bin/busybox"
  cp "$repository/scripts/emulator-guest.sh" "$guest/init"
  cp "$1" "$guest/script"
}

# add_programs PROGRAM...: and every library they load, those at the paths that they have here.
add_programs() {
  local file
  # Not where they lie here: that may be under /tmp, which the guest has its own of.
  for file; do strip --strip-debug -o "$guest/products/${file##*/}" "$file"; done
  ldd "$@" | grep -o '/[^ :]*\.so[^ :]*' | sort -u | while read -r file; do
    mkdir -p "$guest$(dirname "$file")"
    strip --strip-debug -o "$guest$file" "$file"
  done
}

# CRIU, with the linker and the libraries that came with it.
add_criu() {
  local root=$repository/.build/criu/root
  "$repository/scripts/criu-root.sh" || return 1
  mkdir -p "$guest/criu"
  cp "$root/$private_linker" "$root/usr/sbin/criu" "$guest/criu"
  "$root/$private_linker" --library-path "$root/usr/lib/x86_64-linux-gnu" --list \
    "$root/usr/sbin/criu" | sed -n 's/.*=> \([^ ]*\).*/\1/p' | xargs cp -Lt "$guest/criu"
  printf '#!/bin/sh\nexec /criu/%s --library-path /criu /criu/criu "$@"\n' \
    "${private_linker##*/}" > "$guest/products/criu"
  chmod 755 "$guest/products/criu"
}

pack_guest() {
  (cd "$guest" && find . | "$kept/qemu/usr/bin/busybox" cpio -o -H newc) \
    > "$kept/guest.cpio" 2> /dev/null
  rm -rf "$guest"
}

# MARK: A run

# boot KERNEL MEMORY SECONDS LOG ARGUMENT...: LOG gets what the guest's script says, LOG.console what
# the kernel does. An emulated processor with two cores may panic while a kernel patches its own
# code: nothing of ours has run by then, and it is tried again.
boot() {
  local attempt
  for attempt in 1 2 3; do
    rm -f "$4" "$4.console"
    boot_once "$@"
    [ -s "$4" ] && break
    say "kernel $1 did not come up at attempt $attempt: see $4.console"
  done
}

# -erms,-fsrm: the kernel copies by words, which the emulator translates well, not byte by byte.
boot_once() {
  local kernel=$1 memory=$2 seconds=$3 log=$4 waited
  shift 4
  cat "$kept/guest.cpio" "$kept/$kernel/modules.cpio" > "$kept/initrd"
  "$kept/qemu/$private_linker" --library-path "$kept/qemu/usr/lib/x86_64-linux-gnu" \
    "$kept/qemu/usr/bin/qemu-system-x86_64" -L "$kept/qemu/usr/share/qemu" \
    -L "$kept/qemu/usr/share/seabios" -nodefaults -no-user-config -machine q35 \
    -accel tcg,thread=multi \
    -cpu max,-erms,-fsrm,-la57 -smp 2 -m "$memory" -display none -no-reboot \
    -kernel "$kept/$kernel/vmlinuz" -initrd "$kept/initrd" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr $*" \
    -serial "file:$log.console" -serial "file:$log" < /dev/null > /dev/null 2>&1 &
  qemu=$!
  for ((waited = 0; waited < seconds; waited++)); do
    kill -0 "$qemu" 2> /dev/null || break
    sleep 1
  done
  end_qemu
}

# result LOG: the last word of the guest's script.
result() { sed -n 's/^result: //p' "$1" 2> /dev/null | tr -d '\r'; }

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
