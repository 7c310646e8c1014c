#!/usr/bin/env bash
# One node of the Ray cluster that slurm/prep.sh starts for the time of its job: HEAD, PORT and the node's CPUs.

set -uo pipefail
# shellcheck source=slurm/environment.sh
source slurm/environment.sh
head=$1 port=$2 cpus=$3

[[ -x $VENV/bin/ray ]] || fail "several nodes need the package ray in VENV=$VENV: pip install -c constraints.txt -e '.[ray]'"
files=/tmp/ray-$SLURM_JOB_ID
trap : TERM # the end of the job, which Ray hears too: afterwards its files are removed
# Ports that the system finds free, as other jobs may be on the node.
start=("$VENV/bin/ray" start --block --disable-usage-stats --num-cpus "$cpus" --num-gpus 0
    --object-store-memory 500000000 --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0)
if ((SLURM_NODEID == 0)); then
    start+=(--head --port "$port" --ray-client-server-port $((port + 10000)) --include-dashboard false
        --temp-dir "$files")
else
    for ((second = 0; second < 180; second++)); do
        (exec 3<>"/dev/tcp/$head/$port") 2>/dev/null && break
        sleep 1
    done
    start+=(--address "$head:$port")
fi
"${start[@]}" >/dev/null
status=$?
rm -rf "$files"
exit $status
