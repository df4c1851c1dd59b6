#!/usr/bin/env bash
# ms per image of `diptych score` with ViT-B/32 beside PyTorch and onnxruntime, in turn, start-up included and excluded:
#   benches/score.sh DIPTYCH PYTHON FOLDER [ROUNDS]
# PYTHON has torch, transformers, open_clip_torch, onnx and onnxruntime; FOLDER is filled where it is empty.
# Diptych's images alone: the time of MANY images less that of one, over MANY - 1, since it is a program and no server.
set -euo pipefail
diptych=$1 python=$2 folder=$3 rounds=${4:-3} many=33
here=$(cd "$(dirname "$0")" && pwd)
[ -e "$folder/clip.onnx" ] || "$python" "$here/peers/score_weights.py" "$folder"

seconds() {
    local began ended
    began=$(date +%s.%N)
    "$@" > "$folder/last.txt"
    ended=$(date +%s.%N)
    awk -v a="$began" -v b="$ended" 'BEGIN { printf "%.3f", b - a }'
}

# Copies, so that every image is decoded.
mkdir -p "$folder/images"
for ((at = 0; at < many; at++)); do cp -n "$folder/image.png" "$folder/images/$at.png" || true; done
ours() { "$diptych" score --weights "$folder" --image "$@" --text "a diagram" "a dog" "a cat" --json; }

for ((round = 1; round <= rounds; round++)); do
    one=$(seconds ours "$folder/images/0.png")
    all=$(seconds ours "$folder"/images/*.png)
    awk -v r="$round" -v one="$one" -v all="$all" -v n="$many" \
        'BEGIN { printf "round %d diptych: %.1f ms an image, %.2f s for one image from the start, %.2f s for %d\n", r, 1000 * (all - one) / (n - 1), one, all, n }'
    for peer in torch onnx; do
        one=$(seconds "$python" "$here/peers/score_peer.py" "$peer" "$folder" 1)
        all=$(seconds "$python" "$here/peers/score_peer.py" "$peer" "$folder" "$many")
        awk -v r="$round" -v p="$peer" -v one="$one" -v all="$all" -v n="$many" \
            'BEGIN { printf "round %d %s: %.1f ms an image, %.2f s for one image from the start, %.2f s for %d\n", r, p, 1000 * (all - one) / (n - 1), one, all, n }'
        cat "$folder/last.txt"
    done
done
