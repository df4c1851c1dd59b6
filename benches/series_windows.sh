#!/usr/bin/env bash
# Windows of series per second, from shards to batches, beside a PyTorch DataLoader over the same arrays in memory:
#   PYTHON=venv/bin/python benches/series_windows.sh BIN SHARDS [ROUNDS] [SECONDS] [HOP_STEPS]
# SHARDS hold audio of one channel with a split. Without HOP_STEPS: a random window of each series per pass, as for 3,000 spoken
# digits imported from a folder with metadata.csv. With it: every window at that hop once per pass, in random order, as for
# recordings of minutes (benches/long_recordings.py).
# In turn, round by round: diptych on one core, as it is and reading the shards anew in every pass as for sets larger than memory,
# PyTorch on that core with no worker and with one, then both on two cores (PyTorch with one worker and with two). Prints a JSON
# line each. Read the figure per processor second where the machine is shared: it counts all threads and processes, and hardly
# feels the neighbours.
set -euo pipefail
bin=$1 shards=$(realpath "$2") rounds=${3:-4} seconds=${4:-10} hop=${5:-}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

settings=() also=()
if [ -n "$hop" ]; then
  every="SELECT sample_id FROM (SELECT sample_id, unnest(range(0, CAST((steps - 2560) / $hop + 1 AS BIGINT))) FROM shards WHERE split IS DISTINCT FROM 'test')"
  settings=(--set "scan.sql=\"$every\"" --set 'pair.context_future.offsets="successive"' --set "pair.context_future.hop_steps=$hop")
  also=(--hop-steps "$hop")
fi

ours() { # CORES THREADS KEPT_MEGABYTES
  local measured spent
  { TIMEFORMAT='%U %S'; spent=$( { time measured=$(taskset -c "$1" "$bin" bench cpc --json --seconds "$seconds" \
      --set "scan.shards=[\"$shards\"]" --set "augment.decode_threads=$2" --set "scan.kept_megabytes=$3" \
      "${settings[@]}" 2>/dev/null | tail -n 1); \
      printf '%s' "$measured" >&3; } 2>&1 ); } 3>"$scratch"
  "$python" - "$spent" "$2" "$3" "$scratch" <<'P'
import json, sys
spent, threads, kept, path = sys.argv[1:]
found = json.load(open(path))
processor = sum(map(float, spent.split()))
print(json.dumps({"reader": "diptych", "cores": int(threads), "kept_megabytes": int(kept),
                  "windows_per_second": round(found["samples_per_second"], 1),
                  "windows_per_processor_second": round(found["samples"] / processor, 1)}), flush=True)
P
}

theirs() { # CORES COUNT WORKERS
  taskset -c "$1" "$python" "$here/peers/series_windows.py" "$shards" --workers "$3" --seconds "$seconds" "${also[@]}" |
    sed "s/^{/{\"reader\": \"torch\", \"cores\": $2, /"
}

scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
for _ in $(seq "$rounds"); do
  ours 0 1 512
  ours 0 1 0
  theirs 0 1 0
  theirs 0 1 1
  ours 0,1 2 512
  ours 0,1 2 0
  theirs 0,1 2 1
  theirs 0,1 2 2
done
