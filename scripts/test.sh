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

swift build --build-tests < /dev/null
# One test at a time in a process: tests stop and count processes of their own.
each=(swift test --no-parallel --skip-build)
if [ $# -gt 0 ]; then exec "${each[@]}" "$@" < /dev/null; fi
# Much of a test is waiting, so two halves run side by side. The build is not touched any more, so
# that neither needs the lock on it.
readonly half='^(PredumpTests|MigrationTests)\.' logs=(.build/test-{first,second}.log)
"${each[@]}" --ignore-lock --filter "$half" < /dev/null > "${logs[0]}" 2>&1 &
trap 'kill $! 2> /dev/null' EXIT
failed=0
"${each[@]}" --ignore-lock --skip "$half" < /dev/null 2>&1 | tee "${logs[1]}" || failed=1
wait $! || failed=1
trap - EXIT
cat "${logs[0]}"
# What failed, if anything, where it is seen.
grep -hE '✘|Test run with' "${logs[@]}" || true
exit $failed
