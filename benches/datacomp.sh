#!/usr/bin/env bash
# The DataComp "basic filter" (English, more than 2 words, more than 5 characters, shorter side at least 200, aspect at most 3) and the
# top 30 % of a score by its exact threshold, over 12.8 M rows of metadata: `diptych select` against DuckDB and polars on the same
# files with the same number of threads, in turn, several rounds. Take the least of each: other work only ever adds.
#
#   benches/datacomp.sh BIN FOLDER [ROUNDS] [THREADS]
#
# FOLDER   is filled by datacomp_metadata.py where it is empty
# Needs python3 (or PYTHON=…) with numpy, pyarrow, duckdb and polars.
set -euo pipefail
bin=$(realpath "${1:?path of the binary}")
folder=${2:?folder of metadata shards}
rounds=${3:-3}
threads=${4:-2}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
[ -e "$folder/00000.parquet" ] || "$python" "$here/datacomp_metadata.py" "$folder"

# Words are what spaces separate; the generator writes single ones, and all three engines split the same way.
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
words=${WORDS_SQL:-"cardinality(string_to_array(caption, ' '))"}
sql="SELECT sample_id FROM shards WHERE language = 'en' AND $words > 2 AND character_length(caption) > 5
  AND least(width, height) >= 200 AND greatest(width, height) <= 3 * least(width, height)
  AND score >= (SELECT percentile_cont(0.7) WITHIN GROUP (ORDER BY score) FROM shards)"
sql=$(tr '\n' ' ' <<<"$sql")

ours() {
  local out
  out=$(taskset -c "0-$((threads - 1))" /usr/bin/env time -f '%e %M' "$bin" select simclr --set "scan.shards=[\"$folder\"]" \
    --set "scan.sql=\"$sql\"" --json 2>&1 >"$scratch" | tail -1)
  awk -v rows="$(tail -1 "$scratch" | grep -o '"items":[0-9]*' | head -1 | cut -d: -f2)" \
    '{ printf "diptych %.2f s %.0f MB %s rows\n", $1, $2 / 1024, rows }' <<<"$out"
}

for round in $(seq "$rounds"); do
  echo "round $round, load $(cut -d' ' -f1 /proc/loadavg)"
  ours
  for engine in duckdb polars; do
    taskset -c "0-$((threads - 1))" "$python" "$here/datacomp_others.py" "$engine" "$folder" "$threads"
  done
done
