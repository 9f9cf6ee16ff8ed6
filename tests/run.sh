#!/bin/sh
# Installs, builds and runs every test; closes with ctest's summary.
#   tests/run.sh [ctest arguments, e.g. -R blocks -V]
set -eu
cd "$(dirname "$0")/.."
deploy/install-deps.sh --yes
[ -f build/release/build.ninja ] || cmake --preset release >/dev/null
cmake --build --preset release
exec ctest --test-dir build/release --output-on-failure -j2 "$@"
