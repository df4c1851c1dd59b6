"""What `diptych score` does, by PyTorch or onnxruntime: score_peer.py torch|onnx FOLDER IMAGES [THREADS]

FOLDER is that of score_weights.py; its image is scored IMAGES times with three texts, in batches of 16 as Diptych has them.
Prints JSON: seconds from the first import to the end, and of the images alone (decoded, resized and embedded).
"""
import json
import pathlib
import sys
import time

began = time.perf_counter()
kind, folder, images = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
threads = int(sys.argv[4]) if len(sys.argv) > 4 else 2
BATCH, TEXTS = 16, ["a diagram", "a dog", "a cat"]

import numpy as np
from PIL import Image

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def prepared(path):
    image = Image.open(path).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((224 * width // short, 224 * height // short), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    values = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return ((values - MEAN) / DEVIATION).transpose(2, 0, 1)


from open_clip import get_tokenizer

ids = get_tokenizer("ViT-B-32")(TEXTS).numpy()
if kind == "torch":
    import torch
    from transformers import CLIPModel

    torch.set_num_threads(threads)
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = torch.from_numpy(ids)

    def score(pixels):
        with torch.inference_mode():
            return model(input_ids=tokens, pixel_values=torch.from_numpy(pixels)).logits_per_image.numpy()
else:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "clip.onnx"), options, providers=["CPUExecutionProvider"])

    def score(pixels):
        return session.run(None, {"pixel_values": pixels, "input_ids": ids})[0]


score(np.zeros((1, 3, 224, 224), np.float32))
ready = time.perf_counter()
logits = []
for first in range(0, images, BATCH):
    pixels = np.stack([prepared(folder / "image.png") for _ in range(first, min(first + BATCH, images))])
    logits.append(score(pixels))
done = time.perf_counter()
print(json.dumps({"total_seconds": done - began, "image_ms": 1000 * (done - ready) / images,
                  "logits": [round(float(x), 4) for x in np.concatenate(logits)[0]]}))
