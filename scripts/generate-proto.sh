#!/bin/sh
# Generates Sources/CCRIUImages from Proto/. With --check, changes nothing and fails with a diff
# when the committed C is not what protoc-c makes of Proto/.
#
# Needs protoc-c (Debian: protobuf-c-compiler, libprotobuf-c-dev).
set -eu

usage() { echo "usage: $0 [--check]" >&2; exit 64; }

check=no
case $# in
  0) ;;
  1) [ "$1" = --check ] || usage; check=yes ;;
  *) usage ;;
esac
command -v protoc-c >/dev/null || {
  echo "$0: protoc-c is missing: apt install protobuf-c-compiler libprotobuf-c-dev" >&2
  exit 69
}

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
mkdir "$made/include"
protoc-c --proto_path="$root/Proto" --c_out="$made" "$root"/Proto/*.proto
mv "$made"/*.pb-c.h "$made/include/"

if [ $check = yes ]; then
  diff -ru "$root/Sources/CCRIUImages" "$made" || {
    echo "$0: Sources/CCRIUImages differs from Proto/: run scripts/generate-proto.sh" >&2
    exit 1
  }
else
  mkdir -p "$root/Sources/CCRIUImages/include"
  rm -f "$root"/Sources/CCRIUImages/*.pb-c.c "$root"/Sources/CCRIUImages/include/*.pb-c.h
  cp "$made"/*.pb-c.c "$root/Sources/CCRIUImages/"
  cp "$made"/include/*.pb-c.h "$root/Sources/CCRIUImages/include/"
fi
