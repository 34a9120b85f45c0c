#!/usr/bin/env bash
# Builds everything and runs all tests: scripts/test.sh [arguments of swift test]
#
# As root, since the tests dump other processes. MEMDUMP_CRIU_ROOT tells them where the CRIU is that
# restores what memdump wrote.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh
scripts/criu-root.sh
MEMDUMP_CRIU_ROOT=$PWD/.build/criu
export MEMDUMP_CRIU_ROOT
# The generated C is committed, so that building needs no protoc; it must still be what Proto/ says.
if [ -x scripts/generate-proto.sh ]; then scripts/generate-proto.sh --check; fi

swift build < /dev/null
# One test at a time: freezes are measured, and two cores are soon busy.
exec swift test --no-parallel "$@" < /dev/null
