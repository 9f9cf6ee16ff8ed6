#!/usr/bin/env bash
# peers.sh: the same GGUF file through tessera and through peers built from llama.cpp's line, in turn,
# test by test, on one machine; medians, and tessera's ratio to the best peer.
#
#   tests/bench/peers.sh -m model.gguf -t 2 -r 3 -b build/bin/tessera \
#       'llama.cpp=/path/bin,-fa 0' 'ik=/path/bin,-fa 1 -rtr 1,-fa on -rtr'
#
# A peer is NAME=DIR[,FLAGS of llama-bench[,FLAGS of llama-batched-bench]]; DIR holds both programs.
# A run begins when the machine has been idle for a second (waited for at most -w seconds); one during
# which other processes took more than -q percent of the machine is repeated, at most twice, and the
# least disturbed of them counts. Tests, chosen with -T "d1 d8 p512 ...": dN decode of N sequences, 128
# tokens before (d2048: one sequence, 2048 before; d2048q: the same, KV in q8_0), pN a prompt of N
# tokens, tp2 decode of one sequence by two ranks of one thread (tessera alone, against itself).
set -u
model='' threads=$(nproc) rounds=3 tessera=build/bin/tessera quiet=6 wait=60 tests='d1 d8 d16 d32 p512 d2048'
while getopts m:t:r:b:q:w:T: o; do
    case $o in
    m) model=$OPTARG ;; t) threads=$OPTARG ;; r) rounds=$OPTARG ;; b) tessera=$OPTARG ;;
    q) quiet=$OPTARG ;;
    w) wait=$OPTARG ;; T) tests=$OPTARG ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
if [ ! -r "$model" ] || [ ! -x "$tessera" ]; then
    echo "peers.sh: -m MODEL and -b TESSERA must exist" >&2
    exit 2
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Jiffies in which any processor was busy, and those of this script's children.
busy() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 }' /proc/stat; }
ours() { awk '{ sub(/.*\) /, ""); print $14 + $15 }' "/proc/$1/stat"; } # of the shell with this pid

# Tokens per second of one test by one program; empty when it failed.
run_tessera() {
    local list=(--batch '' --prompt '' --depth '')
    case $1 in
    p*) list=(--batch '' --prompt "${1#p}" --depth '') ;;
    d2048) list=(--batch '' --prompt '' --depth 2048) ;;
    d2048q) list=(--batch '' --prompt '' --depth 2048 --kv-type q8_0) ;;
    tp2) list=(--batch 1 --prompt '' --depth '' --tp 2 --threads 1) ;;
    d*) list=(--batch "${1#d}" --prompt '' --depth '') ;;
    esac
    "$tessera" bench engine "$model" --threads "$threads" --runs 3 --steps 16 "${list[@]}" |
        awk '$1 == "prompt" || $1 == "decode" { print $6 }'
}
run_bench() { # dir flags prompt generate
    # shellcheck disable=SC2086
    "$1"/llama-bench -m "$model" -t "$threads" -r 3 -p "$3" -n "$4" -mmp 0 $2 -o csv 2>/dev/null |
        awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "avg_ts") c = i - NF }
                 NR == 2 { v = $(NF + c); gsub(/"/, "", v); print v }'
}
run_batched() { # dir flags prompt generate sequences
    # shellcheck disable=SC2086
    "$1"/llama-batched-bench -m "$model" -t "$threads" -c $((($3 + $4) * $5 + 64)) -b 2048 -ub 512 \
        -npp "$3" -ntg "$4" -npl "$5" $2 2>&1 |
        awk -F'|' -v n="$5" '$4 + 0 == n && NF > 8 { print $9 + 0 }'
}
run_peer() { # test spec
    local IFS=, dir bench batched
    read -r dir bench batched <<<"${2#*=}"
    unset IFS
    case $1 in
    p*) run_bench "$dir" "$bench" "${1#p}" 0 ;;
    d1) run_bench "$dir" "$bench" 0 32 ;;
    d2048) run_batched "$dir" "$batched" 2048 32 1 ;;
    d2048q) run_batched "$dir" "$batched -ctk q8_0 -ctv q8_0" 2048 32 1 ;;
    tp2) ;;
    d*) run_batched "$dir" "$batched" 128 32 "${1#d}" ;;
    esac
}

await_idle() {
    local b until=$((SECONDS + wait))
    while [ $SECONDS -lt $until ]; do
        b=$(busy)
        sleep 1
        [ $(($(busy) - b)) -lt $((quiet * $(nproc))) ] && return
    done
}

# One sample: prints "value others%"; repeated while others disturb.
sample() { # test name spec
    local best='' least=1000 pid=$BASHPID v b0 o0 wall others
    for _ in 1 2 3; do
        await_idle
        b0=$(busy) o0=$(ours "$pid") wall=$(date +%s%N)
        if [ "$2" = tessera ]; then run_tessera "$1"; else run_peer "$1" "$3"; fi >"$tmp/value"
        v=$(head -1 "$tmp/value")
        wall=$((($(date +%s%N) - wall) * $(nproc) / 10000000))
        others=$((100 * ($(busy) - b0 - $(ours "$pid") + o0) / (wall > 0 ? wall : 1)))
        [ -n "$v" ] || break
        if [ "$others" -lt "$least" ]; then best=$v least=$others; fi
        [ "$others" -le "$quiet" ] && break
    done
    [ -n "$best" ] && echo "$best $least"
}

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'; }

names=(tessera)
for p in "$@"; do names+=("${p%%=*}"); done
for ((r = 1; r <= rounds; r++)); do
    for t in $tests; do
        for n in "${!names[@]}"; do
            spec=''
            [ "$n" -gt 0 ] && spec=${!n}
            s=$(sample "$t" "${names[$n]}" "$spec")
            echo "round $r  $t  ${names[$n]}  ${s:-failed} (tok/s, others %)" >&2
            [ -n "$s" ] && echo "${s% *}" >>"$tmp/$t.$n" && echo "${s#* }" >>"$tmp/others"
        done
    done
done

printf '\n%s, %s threads, median of %s; others took %s %% (median) of the machine\n' \
    "$(basename "$model")" "$threads" "$rounds" "$(median <"$tmp/others")"
printf '%-8s' test
printf ' %12s' "${names[@]}" ratio
echo
for t in $tests; do
    printf '%-8s' "$t"
    best=0
    for n in "${!names[@]}"; do
        v=$(median <"$tmp/$t.$n" 2>/dev/null)
        printf ' %12s' "${v:--}"
        if [ "$n" -eq 0 ]; then mine=${v:-0}; else best=$(awk -v a="$best" -v b="${v:-0}" 'BEGIN { print (a > b ? a : b) }'); fi
    done
    awk -v a="$mine" -v b="$best" 'BEGIN { if (b > 0) printf " %12.2f\n", a / b; else print "            -" }'
done
