#!/bin/sh
# The long runs that continuous integration does not have the time for; the log of the last ones is docs/long-runs.md.
#   tests/long.sh [random|isa|races|chaos|links|soak|overload|fuzz] ; logs to stdout
# random    every program that knows TEST_SEED, by new seeds (RUNS, default 50)
# isa       the exactness matrix with each instruction set of this processor forced
# races     whole models on emulated cards, every access of every kernel's thread watched (tests/cuda_emu/emu_race.cpp); then, under the thread sanitizer,
#           what hosts and streams do at once, ordered as a card orders them and no more (tests/cuda_emu/emu_order.h; build/tsan, without the plug-in)
# chaos     ROUNDS (25) for each of 8 seeds: 200; PATIENCE (1) times longer than usual may anything take, for a machine that others use too
# links     LINKS (10) rounds over two network namespaces whose link goes down; needs root, ip and sshd
# soak      MINUTES (30) of mixed load and chaos under the address sanitizer, then the thread sanitizer (build/asan, build/tsan)
# overload  MINUTES (10) of ten times more clients than the queue holds; memory must stay flat
# fuzz      every target, SECONDS_EACH (120), from where the last run ended (tests/fuzz/run.sh)
set -eu
cd "$(dirname "$0")/.."
what=${1:-all}
is() { [ "$what" = all ] || [ "$what" = "$1" ]; }
if is random; then
    # a failure names its seed
    for i in $(seq "${RUNS:-50}"); do
        TEST_SEED=time ctest --test-dir build/release -Q --output-on-failure -LE "system|mpi" || exit 1
    done
fi
if is isa; then
    ctest --test-dir build/release -C Long --output-on-failure -R model_exact_
fi
if is races; then
    ctest --test-dir build/release -C Long --output-on-failure -R model_cuda_emu_race
    cmake --preset tsan -DTESSERA_CUDA=OFF >/dev/null
    cmake --build --preset tsan --target tessera_cuda_emu nccl_stub cublaslt_stub test_model_cuda_emu test_sched_device_emu
    TSAN_OPTIONS=suppressions=$PWD/tests/sanitizers/tsan.supp:ignore_noninstrumented_modules=1 \
        setarch -R ctest --test-dir build/tsan --output-on-failure --timeout 1800 -R '^(model_cuda_emu|sched_device_emu)$'
fi
if is chaos; then
    for seed in 1 2 3 4 5 6 7 8; do
        python3 -B tests/chaos/chaos.py --rounds "${ROUNDS:-25}" --seed "$seed" --patience "${PATIENCE:-1}"
    done
fi
if is links; then
    python3 -B tests/chaos/chaos.py --hosts --rounds "${LINKS:-10}" --seed "${SEED:-1}"
fi
if is soak; then
    for kind in asan tsan; do
        cmake --preset $kind >/dev/null
        cmake --build --preset $kind --target tessera
        supp=$PWD/tests/sanitizers
        TESSERA_BIN=build/$kind/bin/tessera ASAN_OPTIONS=fast_unwind_on_malloc=0:detect_leaks=0 \
            TSAN_OPTIONS=suppressions=$supp/tsan.supp:ignore_noninstrumented_modules=1 \
            python3 -B tests/chaos/chaos.py --minutes "${MINUTES:-30}" --seed "${SEED:-1}" --patience 10
    done
fi
if is overload; then
    python3 -B tests/chaos/overload.py --minutes "${MINUTES:-10}"
fi
if is fuzz; then
    tests/fuzz/run.sh --seconds "${SECONDS_EACH:-120}"
fi
