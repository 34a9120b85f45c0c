#!/usr/bin/env bash
# Makes a directory with a CRIU that runs on current kernels, without touching the system:
#
#   scripts/criu-root.sh [DIR]        (default: .build/criu of this repository)
#
#   DIR/bin/criu    the C program (dumps, restores)
#   DIR/bin/crit    the Python image tool (decodes, checks, decompresses)
#
# Debian 12's own criu (3.17.1) does not start on kernels from 6.18 on ("Unexpected rt vDSO area
# bounds"). Newer ones are in Debian's later suites; their libraries are too new for this system,
# so everything is unpacked into DIR/root and run by the dynamic linker that came with it.
#
# Debian's 4.3 is built without LZ4 (CONFIG_LZ4): it restores plain images only, and
# `criu check --feature compress` fails. crit 4.3 reads compressed images too, so those are proved
# with `crit`, and plain chains with a real `criu restore`.
#
# What its use needs, seen on Linux 6.18:
# * A target that leads its own session and holds no terminal and no pipe to others is dumped by
#   `criu dump -t PID -D DIR` and comes back by `criu restore -D DIR -d`. One that does not lead its
#   session needs --shell-job for both.
# * Its old pid must be free at restore. Under an init that reaps slowly a zombie holds it for a
#   moment ("Can't fork for PID: File exists"): wait until /proc/PID is gone.
# * "Can't setup RLIMIT_NOFILE" (no CAP_SYS_RESOURCE) and "Can't keep kdat cache" are harmless.
set -euo pipefail

say() { printf 'criu-root: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$repository/scripts/private-apt.sh"
target=$(realpath -m "${1:-$repository/.build/criu}")
# Changes with what this script makes: an older directory is then made again.
readonly recipe=1

works() {
  [ "$(cat "$target/recipe" 2>/dev/null)" = "$recipe" ] \
    && "$target/bin/criu" --version > /dev/null 2>&1 \
    && "$target/bin/crit" --help > /dev/null 2>&1
}

# fetch SUITE [LIBRARY_SUITE]: criu and pycriu from SUITE with every package they run on, unpacked
# into $work/root.
fetch() {
  local state=$work/apt
  rm -rf "$state" "$work/root"
  private_apt "$state" "$mirror" "$@" || return 1
  # `apt-get install criu/experimental` would want the newest libraries too, and experimental's do
  # not always fit each other: take CRIU alone from there.
  printf '%s\n' 'Package: criu libcompel1 python3-pycriu' "Pin: release a=$1" 'Pin-Priority: 990' \
    > "$state/preferences"
  apt-get "${apt_options[@]}" -y --download-only install criu > /dev/null || return 1
  # Without its dependencies: this machine's Python runs it.
  (cd "$state/cache/archives" && apt-get "${apt_options[@]}" download python3-pycriu) || return 1
  private_unpack "$state" "$work/root" || return 1
  [ -x "$work/root/$private_linker" ] && [ -x "$work/root/usr/sbin/criu" ]
}

# crit needs a protobuf newer than most distributions', and lz4 for compressed images.
make_python() {
  python3 -m venv "$work/venv" || return 1
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check 'protobuf>=7' lz4
}

# Wrappers find their own directory, so that DIR may be moved (a virtual machine's mount, a cache).
write_wrappers() {
  mkdir -p "$work/bin"
  cat > "$work/bin/criu" <<'WRAPPER'
#!/usr/bin/env bash
# By CRIU's own linker and libraries: the system's are older.
dir=$(dirname "$(dirname "$(readlink -f "$0")")")
libraries=$dir/root/usr/lib/x86_64-linux-gnu
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$dir/root/usr/sbin/criu" "$@"
WRAPPER
  cat > "$work/bin/crit" <<'WRAPPER'
#!/usr/bin/env bash
dir=$(dirname "$(dirname "$(readlink -f "$0")")")
export PYTHONPATH=$dir/root/usr/lib/python3/dist-packages
# The script by its path, not -m: the caller's directory stays out of Python's module search.
exec "$dir/venv/bin/python3" "$dir/root/usr/bin/crit" "$@"
WRAPPER
  chmod 755 "$work/bin/criu" "$work/bin/crit"
}

main() {
  if works; then return; fi
  command -v dpkg > /dev/null && command -v apt-get > /dev/null \
    || fail "needs apt-get and dpkg to fetch Debian's packages"
  [ "$(dpkg --print-architecture)" = amd64 ] || fail "memdump is for x86-64"
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || fail "apt-get indextargets names no Debian mirror; CRIU 4.x comes from one"
  # Made beside the target and renamed: an interrupted run leaves no half directory.
  mkdir -p "$(dirname "$target")"
  work=$(mktemp -d "$target.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  say "fetching CRIU from $mirror"
  fetch experimental sid || fetch experimental trixie || fetch sid || fetch trixie \
    || fail "no suite of $mirror gave a CRIU 4.x"
  make_python || fail "could not install protobuf and lz4 for crit with pip"
  write_wrappers
  rm -rf "$work/apt"
  printf '%s\n' "$recipe" > "$work/recipe"
  rm -rf "$target"
  mv "$work" "$target"
  trap - EXIT
  chmod 755 "$target"
  works || fail "$target/bin/criu or $target/bin/crit does not run"
  say "$("$target/bin/criu" --version | head -n 1) in $target"
}

main
