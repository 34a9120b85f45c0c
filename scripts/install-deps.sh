#!/usr/bin/env bash
# Installs what building, testing and showing memdump needs from Debian's (or Ubuntu's) archive.
# Says nothing when everything is there. Swift itself is only looked for, never installed.
set -euo pipefail

say() { printf 'install-deps: %s\n' "$*" >&2; }

readonly packages=(
  gcc libc6-dev pkg-config                              # the C targets
  liblz4-dev libxxhash-dev                              # compression and digests
  libprotobuf-c-dev protobuf-c-compiler                 # CRIU's image records
  libssl-dev openssl                                    # TLS; certificates for its tests
  redis-server redis-tools postgresql gdb               # what the tests and the demo dump
  default-jdk-headless nodejs golang-go memcached       # more of what the tests dump
  python3 python3-venv                                  # crit, an independent reader of images
  ca-certificates git                                   # Swift's packages
)

installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# A package manager that starts services would leave a redis-server on the default port, where a
# test could take it for its own. invoke-rc.d asks policy-rc.d first; 101 means "not now".
policy=/usr/sbin/policy-rc.d
policy_is_ours=no
forbid_services() {
  [ -e "$policy" ] && return
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  policy_is_ours=yes
  chmod 755 "$policy"
}
allow_services() {
  if [ "$policy_is_ours" = yes ]; then rm -f "$policy"; fi
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  local options=(-y -qq --no-install-recommends)
  trap allow_services EXIT
  forbid_services
  # The lists on the machine may do; if they are absent or stale, fetch them and try once more.
  if ! apt-get install "${options[@]}" "$@" > /dev/null 2>&1; then
    apt-get update -qq
    apt-get install "${options[@]}" "$@" > /dev/null
  fi
  allow_services
  trap - EXIT
}

main() {
  if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    say "this needs Debian or Ubuntu (apt-get); elsewhere install the equivalents of:"
    say "  ${packages[*]}"
    exit 1
  fi
  local missing=() package
  for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
      say "missing packages. As root, run:"
      say "  apt-get install --no-install-recommends ${missing[*]}"
      exit 1
    fi
    say "installing ${missing[*]}"
    install_packages "${missing[@]}"
  fi
  local version
  version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' \
    | head -n 1)
  # 6.2 is the tools version of Package.swift.
  if [ -z "$version" ] || [ "$(printf '6.2\n%s\n' "$version" | sort -V | head -n 1)" != 6.2 ]; then
    say "needs Swift 6.2 or newer on PATH, found ${version:-none}."
    say "See swift.org/install (swiftly, or the toolchain for this distribution)."
    exit 1
  fi
}

main
