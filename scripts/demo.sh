#!/usr/bin/env bash
# The first journey: Fashion-MNIST becomes shards, SimCLR trains on two views per image, frozen embeddings are scored beside
# their floors. Called by `make demo`; BIN names the binary, $1 the folder that everything goes into.
set -euo pipefail

bin=${BIN:?path of the diptych binary}
dest=${1:-demo-run}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dest"
start=$SECONDS

if [ ! -e "$dest/shards/diptych.json" ]; then
  if idx=$("$here/fashion_mnist.sh" "$dest/fashion-mnist"); then
    echo "== import Fashion-MNIST: $idx" >&2
    "$bin" import "$idx" "$dest/shards" --overwrite
  else
    echo "== Fashion-MNIST's package is out of reach: a SYNTHETIC set of coloured shapes stands in, its scores mean little" >&2
    "$bin" import synthetic:shapes "$dest/shards" --overwrite
  fi
fi

run="$dest/run-$(date -u +%Y%m%d-%H%M%S)"
shards="scan.shards=[\"$dest/shards\"]"
echo "== what the pipeline selects" >&2
"$bin" select simclr_small --set "$shards"
echo "== train" >&2
"$bin" train simclr_small --run "$run" --set "$shards"
echo "== evaluate" >&2
"$bin" evaluate "$run"
echo
echo "took $((SECONDS - start)) s after the build"
echo "run folder: $run"
echo "report:     $run/report.html"
