#!/bin/sh
# The long runs that continuous integration does not have the time for: random tests by new seeds (RUNS, default 50), chaos (ROUNDS per seed,
# default 25 x 8 seeds), fuzzing (SECONDS each).
#   tests/long.sh [random|chaos|fuzz] ; logs to stdout
set -eu
cd "$(dirname "$0")/.."
what=${1:-all}
if [ "$what" = all ] || [ "$what" = random ]; then
    # every program that knows TEST_SEED; a failure names its seed
    for i in $(seq "${RUNS:-50}"); do
        TEST_SEED=time ctest --test-dir build/release -Q --output-on-failure -LE "system|mpi" || exit 1
    done
fi
if [ "$what" = all ] || [ "$what" = chaos ]; then
    for seed in 1 2 3 4 5 6 7 8; do
        python3 -B tests/chaos/chaos.py --rounds "${ROUNDS:-25}" --seed "$seed"
    done
fi
if [ "$what" = all ] || [ "$what" = fuzz ]; then
    cmake --preset fuzz >/dev/null
    cmake --build --preset fuzz
    for f in build/fuzz/fuzz/fuzz_* build/fuzz/tests/fuzz_*; do
        [ -x "$f" ] || continue
        corpus=tests/fuzz/corpus/$(basename "$f" | sed 's/^fuzz_//')
        mkdir -p "build/fuzz/corpus/$(basename "$f")"
        "$f" -max_total_time="${SECONDS_EACH:-120}" "build/fuzz/corpus/$(basename "$f")" $([ -d "$corpus" ] && echo "$corpus")
    done
fi
