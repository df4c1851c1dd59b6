"""A CLIPModel of ViT-B/32's shape with random weights, as transformers writes it, and the same as ONNX: score_weights.py TO

Needs torch, transformers, onnx. TO gets model.safetensors, config.json, preprocessor_config.json, clip.onnx, image.png.
"""
import json
import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel


class Logits(torch.nn.Module):
    """Inputs in, logits of images and texts out: what a file for onnxruntime computes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, input_ids):
        return self.model(input_ids=input_ids, pixel_values=pixel_values).logits_per_image


to = pathlib.Path(sys.argv[1])
to.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
config = CLIPConfig()
# CLIP's own marks: the old default of 2 means the same to the tower, the largest id.
config.text_config.eos_token_id = 49407
config._attn_implementation = "eager"
model = CLIPModel(config).eval()
model.save_pretrained(to)
CLIPImageProcessor().save_pretrained(to)
image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
Image.fromarray(image).resize((640, 480), Image.Resampling.BICUBIC).save(to / "image.png")
ids = torch.full((3, 77), 49407, dtype=torch.int64)
ids[:, 0], ids[:, 1:4] = 49406, 320
pixels = torch.zeros(2, 3, 224, 224)
axes = {"pixel_values": {0: "images"}, "input_ids": {0: "texts"}, "logits": {0: "images", 1: "texts"}}
with torch.no_grad():
    torch.onnx.export(Logits(model), (pixels, ids), str(to / "clip.onnx"), input_names=["pixel_values", "input_ids"],
                      output_names=["logits"], dynamic_axes=axes, opset_version=17, dynamo=False)
print(json.dumps({"to": str(to)}))
