#!/bin/sh
# Installs, builds and runs every test; closes with ctest's summary.
#   tests/run.sh [ctest arguments, e.g. -R blocks -V]
set -eu
cd "$(dirname "$0")/.."
deploy/install-deps.sh --yes
[ -f build/release/build.ninja ] || cmake --preset release >/dev/null
cmake --build --preset release
status=0
ctest --test-dir build/release --output-on-failure -j2 "$@" || status=$?
# of a whole run: every test that docs/models.md names was in it
[ $# -gt 0 ] || python3 tests/docs/check_models.py --ran build/release/Testing/Temporary/LastTest.log || status=$?
exit $status
