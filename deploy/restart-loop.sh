#!/bin/sh
# Run a job of workers again and again until the coordinator sends it home (exit code 0), for machines without a batch system:
#
#   deploy/restart-loop.sh mpirun -n 4 --hostfile hosts tessera worker --join head:7000 --cluster-key-file key
#   TESSERA_CLUSTER_KEY=... deploy/restart-loop.sh mpirun -n 4 --hostfile hosts tessera serve model.gguf --listen head:7000
#
# A job that fails is started again after 1 s, then 2, 4, ... 60; after a minute of good work it is 1 s again. The streams that were open wait
# --rejoin-timeout for it. The second form needs a key and a port that stay: the first job starts the coordinator, later ones join it.
[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT...]" >&2; exit 2; }
pause=1
trap 'trap - TERM INT; kill "$job" 2>/dev/null; wait "$job"; exit 143' TERM INT
while :; do
    begun=$(date +%s)
    "$@" &
    job=$!
    wait "$job" && exit 0
    code=$?
    [ $(($(date +%s) - begun)) -lt 60 ] || pause=1
    echo "restart-loop: exit code $code; again in $pause s" >&2
    sleep "$pause" &
    wait $!
    pause=$((pause * 2)); [ $pause -le 60 ] || pause=60
done
