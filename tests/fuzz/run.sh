#!/bin/sh
# Builds fuzz targets (clang, preset fuzz) and runs each for a while from its committed corpus.
#   tests/fuzz/run.sh [--seconds N] [--seed S] [--fresh] [TARGET...]   targets without "fuzz_"; none: all
# What is found lies in build/fuzz/found; what is learned in build/fuzz/corpus, from where the next run goes on unless --fresh.
set -eu
cd "$(dirname "$0")/../.."
seconds=60 seed=0 fresh=no targets=""
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=$2; shift ;;
        --seed) seed=$2; shift ;;
        --fresh) fresh=yes ;;
        -*) echo "usage: $0 [--seconds N] [--seed S] [--fresh] [TARGET...]" >&2; exit 2 ;;
        *) targets="$targets $1" ;;
    esac
    shift
done
command -v clang >/dev/null || { echo "fuzz: skipped, clang is not here (Debian: clang, libclang-rt-14-dev)"; exit 0; }
try=$(mktemp -d)
trap 'rm -rf "$try"' EXIT
printf 'int LLVMFuzzerTestOneInput(const unsigned char *p, unsigned long n) { return p && n ? 0 : 0; }\n' >"$try/t.c"
if ! clang -fsanitize=fuzzer,address "$try/t.c" -o "$try/t" 2>/dev/null; then
    echo "fuzz: skipped, this clang has no libFuzzer (Debian: libclang-rt-14-dev)"
    exit 0
fi
[ -n "$targets" ] || targets=$(sed -n 's/^ *tessera_fuzz(\([a-z_]*\) .*/\1/p' tests/fuzz/CMakeLists.txt; echo grammar_schema grammar_regex grammar_gbnf grammar_parts)
[ -f build/fuzz/build.ninja ] || cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target $(for t in $targets; do echo "fuzz_$t"; done) >"$try/log" || { cat "$try/log"; exit 1; }
mkdir -p build/fuzz/found
failed=""
for t in $targets; do
    if [ $fresh = yes ]; then learned=$try/$t; else learned=build/fuzz/corpus/fuzz_$t; fi
    known=tests/fuzz/corpus/$t
    mkdir -p "$learned"
    if build/fuzz/fuzz/fuzz_$t -max_total_time="$seconds" -seed="$seed" -timeout=20 -rss_limit_mb=4096 -max_len=4096 \
        -artifact_prefix="build/fuzz/found/$t-" "$learned" $([ -d "$known" ] && echo "$known") >"$try/log" 2>&1; then
        echo "fuzz: $t: $(sed -n 's/^Done \([0-9]*\) runs in \([0-9]*\).*/\1 runs in \2 s/p' "$try/log")"
    else
        tail -60 "$try/log"
        failed="$failed $t"
    fi
done
[ -z "$failed" ] || { echo "fuzz: found something:$failed (build/fuzz/found)"; exit 1; }
