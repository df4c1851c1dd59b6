#!/usr/bin/env bash
# What a GPU machine with nothing else on it should show, in one call:
#   1. loss and gradients on CPU and CUDA agree, from the same weights on the same batch;
#   2. SimCLR images/s with data_wait_share: ResNet-18 at 32 px, ResNet-50 at 224 px;
#   3. the same forward, backward and step in the PyTorch that is installed here.
#
#   benches/gpu.sh BIN SMALL_SHARDS PHOTO_SHARDS [OUT]
#
# BIN           the binary built with `make cuda`
# SMALL_SHARDS  a folder of shards of small images (32 px), PHOTO_SHARDS one of photographs
# OUT           folder for metrics and the summary; default ./gpu-results
set -euo pipefail

bin=$(realpath "${1:?path of the cuda binary}")
small=$(realpath "${2:?folder of small-image shards}")
photos=$(realpath "${3:?folder of photo shards}")
out=${4:-gpu-results}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
nproc

# 1. One SGD step of rate 1 without momentum or decay: what the weights moved by is the gradient.
agreement() { # name, pipeline, shards, further settings
  local name=$1 pipeline=$2 shards=$3; shift 3
  for device in cpu cuda:0; do
    rm -rf "$out/agree-$name-${device%:*}"
    "$bin" train "$pipeline" --run "$out/agree-$name-${device%:*}" --set "scan.shards=[\"$shards\"]" --set "device=$device" \
      --set 'train.optimizer={sgd={rate=1.0,momentum=0.0}}' --set 'train.schedule={constant={}}' --set train.rate_scaling=none \
      --set train.max_steps=1 --set prefetch.batch_rows=64 --set train.checkpoint_every_steps=1 "$@" >/dev/null
  done
  python3 "$here/gpu_agreement.py" "$name" "$out/agree-$name-cpu" "$out/agree-$name-cuda"
}
agreement convnet simclr_small "$small"
agreement resnet18 simclr_small "$small" --set 'method.simclr.encoder={resnet18={stem="cifar",base_width=16}}'

# 2. Throughput after a warm-up: the median of the reports of the second half.
throughput() { # name, pipeline, shards, batch, steps, further settings
  local name=$1 pipeline=$2 shards=$3 batch=$4 steps=$5; shift 5
  rm -rf "$out/rate-$name"
  "$bin" train "$pipeline" --run "$out/rate-$name" --set "scan.shards=[\"$shards\"]" --set device=cuda:0 --set train.epochs=1000 \
    --set "train.max_steps=$steps" --set "prefetch.batch_rows=$batch" --set train.report_every_steps=10 "$@" >/dev/null
  python3 "$here/gpu_agreement.py" --rate "$name" "$out/rate-$name"
}
throughput resnet18-32px simclr_small "$small" 512 200 --set 'method.simclr.encoder={resnet18={stem="cifar"}}' \
  --set 'augment.image=[{random_resized_crop={side_pixels=32,area=[0.2,1.0]}},{horizontal_flip={probability=0.5}},{color_jitter={probability=0.8,brightness=0.4,contrast=0.4,saturation=0.4,hue=0.1}},{grayscale={probability=0.2}}]' \
  --set 'augment.evaluation=[{resize={side_pixels=32}},{center_crop={side_pixels=32}}]'
throughput resnet50-224px simclr "$photos" 128 60

# 3. PyTorch: the same models, batches and loss on tensors that already lie on the GPU, so its figure has no loader in it.
if python3 -c 'import torch, torchvision' 2>/dev/null; then
  python3 "$here/gpu_torch.py"
else
  echo '{"torch": "not installed here"}'
fi
