"""Loads what Diptych wrote with transformers and open_clip, and compares their outputs with the golden ones.

    DIPTYCH_KEEP_CLIP=/tmp/kept cargo test --release --test it -- files_of_both_libraries
    python tests/golden/clip_read_back.py /tmp/kept
"""
import json, pathlib, sys
import torch
from safetensors.torch import load_file
import clip as golden

root = pathlib.Path(sys.argv[1])
expected = load_file(pathlib.Path(__file__).with_name("clip.safetensors"))
for case in sorted(path.name for path in root.iterdir()):
    for folder in sorted((root / case).iterdir()):
        if folder.name == "transformers":
            from transformers import CLIPModel
            model, report = CLIPModel.from_pretrained(folder, output_loading_info=True)
            assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
            model = model.double().eval()
            side = model.config.vision_config.image_size
            logits = model(input_ids=golden.tokens(), pixel_values=golden.pixels(side)).logits_per_image
        else:
            import open_clip
            config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
            model = open_clip.CLIP(**config)
            model.load_state_dict(load_file(folder / "open_clip_model.safetensors"), strict=True)
            model = model.double().eval()
            side = config["vision_cfg"]["image_size"]
            images, texts, scale = model(golden.pixels(side), golden.tokens())
            logits = scale * images @ texts.T
        gap = (logits - expected[f"{case}.logits_per_image"].double()).abs().max().item()
        print(f"{case} by way of {folder.name}: {gap:.2e}")
        assert gap < 1e-4
