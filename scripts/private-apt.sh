# Fetches Debian packages of other suites than this machine's, without touching the system. Sourced.
#
# A private apt whose idea of the installed system is empty resolves dependencies down to libc, so
# that what it fetches runs by the dynamic linker that comes with it. Suites after the merge of /lib
# into /usr hold everything below usr.

readonly private_linker=usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2

# The mirror that this machine already uses, never one of our choice.
debian_mirror() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
    | grep -E '/debian/?$' | sort -u | head -n 1
}

# private_apt STATE MIRROR SUITE...: makes the directory STATE, and sets apt_options, with which
# apt-get and apt-cache work on it.
private_apt() {
  local state=$1 mirror=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  shift 2
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  : > "$state/status"
  printf "deb [signed-by=$keyring] $mirror %s main\n" "$@" > "$state/sources.list"
  apt_options=(
    -qq
    -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::Etc::Preferences=$state/preferences" -o Dir::Etc::PreferencesParts=/dev/null
    -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache"
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o APT::Install-Recommends=false
  )
  apt-get "${apt_options[@]}" update
}

# private_unpack STATE ROOT: unpacks everything that was fetched to STATE into ROOT.
private_unpack() {
  local package
  mkdir -p "$2"
  for package in "$1"/cache/archives/*.deb; do
    dpkg -x "$package" "$2" || return 1
  done
}
