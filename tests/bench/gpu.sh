#!/usr/bin/env bash
# gpu.sh: everything that docs/gpu-log.md awaits of a card, in two calls; each command's output goes to a file of its own.
#
#   tests/bench/gpu.sh check|speed OUT [BUILD]    OUT: a folder for the files; BUILD: build/gpu-bench by default, made if it is not there
#
# check: build, the kernels and whole models against the CPU, compute-sanitizer. speed: tessera bench engine at published shapes; a shape that
# does not fit the card says so. Exit code: how many commands failed. Needs CUDA, a C compiler and CMake; ARCH=90 builds for that card alone.
set -u
what=${1:-} out=${2:-} build=${3:-build/gpu-bench} failed=0
if [ -z "$out" ] || { [ "$what" != check ] && [ "$what" != speed ]; }; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
cd "$(dirname "$0")/../.." || exit 2
mkdir -p "$out" || exit 2

# step NAME COMMAND...: to OUT/NAME.log, and one line here.
step() {
    local name=$1 from=$SECONDS rc
    shift
    { echo "\$ $*"; "$@"; } >"$out/$name.log" 2>&1
    rc=$?
    [ $rc = 0 ] || failed=$((failed + 1))
    printf '%-28s exit %d, %d s\n' "$name" $rc $((SECONDS - from))
    return $rc
}

bench() { step "$1" "$build/bin/tessera" bench engine --device cuda "${@:2}"; }

{ nvidia-smi; nvcc --version; uname -a; } >"$out/machine.log" 2>&1
if [ "$what" = check ] || [ ! -x "$build/bin/tessera" ]; then
    step configure cmake --preset gpu-bench -B "$build" -DCMAKE_CUDA_ARCHITECTURES="${ARCH:-native}" || exit 1
    step build cmake --build "$build" -j "$(nproc)" || exit 1
fi
if [ "$what" = check ]; then
    export TESSERA_CUDA_PLUGIN=$PWD/$build/bin/libtessera_cuda.so
    step kernels "$build/tests/test_kernels_cuda"
    step direct timeout 300 "$build/tests/test_direct_cuda"
    step models "$build/tests/test_model_cuda"
    for tool in memcheck racecheck initcheck synccheck; do
        step "$tool" timeout 900 compute-sanitizer --error-exitcode 1 --tool "$tool" "$build/tests/test_kernels_cuda"
    done
else
    for type in q4_k q8_0 bf16; do
        bench "8b-$type" --shape llama3-8b --type "$type" --batch 1,8,16,64 --prompt 512,2048 --profile
    done
    bench 8b-bf16-rounded --shape llama3-8b --type bf16 --batch 1,16,64 --prompt 512,2048 --exact off
    TESSERA_CUBLASLT=off bench 8b-bf16-rounded-ours --shape llama3-8b --type bf16 --batch 1 --prompt 256,512,2048 --exact off
    bench 70b-q4_k --shape llama3-70b --type q4_k --batch 1,16 --prompt 512 --profile
    for kv in f16 q8_0 fp8; do
        bench "long-context-$kv" --shape llama3.2-1b --type q8_0 --batch 1 --prompt '' --depth 32768 --kv-type "$kv"
    done
    bench two-ranks --shape llama3-8b --type q4_k --tp 2 --batch 1 --prompt 512
fi
exit $failed
