"""Features, logits, gradients and ten losses of small CLIPs by transformers and open_clip, for tests/it/clip.rs.

    pip install torch transformers open_clip_torch
    python tests/golden/clip.py                 (a minute on a CPU; no random numbers, no downloads)

Writes clip.safetensors beside this file. Weights, pixels and tokens are not stored: both sides compute them from names with
the integer formula in `uniform`. Its header has, per case, every entry of the state dict with its shape, and the
configuration as the library writes it. Cases: `transformers` (QuickGELU; gradients and ten steps of SGD as well),
`transformers_gelu`, `open_clip` (a vision transformer, GELU), `open_clip_resnet` (the paper's ResNet, QuickGELU).
"""
import json, math, pathlib, struct
import torch, torch.nn.functional as F

MASK = (1 << 64) - 1
ROWS, CONTEXT, VOCABULARY, RATE, STEPS = 3, 9, 50, 0.05, 10
WORDS = [4, 7, 1]  # words of each text, between start and end


def uniform(name, count):
    """`count` numbers in [0, 1), multiples of 2^-24: FNV-1a of the name, then SplitMix64's finaliser per index."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    out = []
    for index in range(count):
        h = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & MASK
        h = (h ^ h >> 27) * 0x94D049BB133111EB & MASK
        out.append(((h ^ h >> 31) >> 40) / (1 << 24))
    return torch.tensor(out, dtype=torch.float64)


def value(name, shape):
    count = math.prod(shape)
    if name == "logit_scale":
        return torch.tensor(2.0, dtype=torch.float64)
    if len(shape) == 1:
        base = 1.0 if name.endswith(("weight", "running_var")) else 0.0
        spread = 0.2
    else:
        base, spread = 0.0, math.sqrt(6 / (count // shape[0]))
    return (base + spread * (2 * uniform(name, count) - 1)).reshape(shape)


def fill(model):
    state = model.state_dict()
    entries = {name: list(t.shape) for name, t in state.items() if t.dtype.is_floating_point}
    model.load_state_dict({name: value(name, tuple(shape)) for name, shape in entries.items()}, strict=False)
    return entries


def pixels(side):
    return (4 * uniform("pixels", ROWS * 3 * side * side) - 2).reshape(ROWS, 3, side, side)


def tokens():
    rows = []
    for row, words in enumerate(WORDS):
        ids = [int(u * (VOCABULARY - 2)) for u in uniform(f"tokens.{row}", words)]
        ids = [VOCABULARY - 2] + ids + [VOCABULARY - 1]
        rows.append(ids + [0] * (CONTEXT - len(ids)))
    return torch.tensor(rows)


def loss(images, texts, scale):
    logits = scale.exp() * F.normalize(images) @ F.normalize(texts).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


out, cases = {}, {}


def note(case, side, entries, config, images, texts, scale):
    cases[case] = {"side": side, "entries": entries, "config": config}
    out[f"{case}.image_features"], out[f"{case}.text_features"] = images, texts
    out[f"{case}.logits_per_image"] = scale.exp() * F.normalize(images) @ F.normalize(texts).T


def transformers_case(case, act):
    from transformers import CLIPConfig, CLIPModel
    text = dict(vocab_size=VOCABULARY, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=CONTEXT, hidden_act=act, bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1,
                pad_token_id=0)
    vision = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, image_size=8,
                  patch_size=4, hidden_act=act)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    model = CLIPModel(config).double().eval()
    entries = fill(model)
    ids, x = tokens(), pixels(8)

    def features():
        output = model(input_ids=ids, pixel_values=x)
        # Those in the output are normalised.
        images = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
        texts = model.text_projection(model.text_model(input_ids=ids).pooler_output)
        return output, images, texts

    output, images, texts = features()
    note(case, 8, entries, json.loads(config.to_json_string(use_diff=False)), images, texts, model.logit_scale)
    assert torch.allclose(out[f"{case}.logits_per_image"], output.logits_per_image)
    if act != "quick_gelu":
        return
    losses = []
    for step in range(STEPS):
        model.zero_grad()
        _, images, texts = features()
        error = loss(images, texts, model.logit_scale)
        error.backward()
        losses.append(error.detach())
        for name, parameter in model.named_parameters():
            if step == 0:
                out[f"{case}.gradient.{name}"] = parameter.grad.clone()
            parameter.data -= RATE * parameter.grad
    out[f"{case}.losses"] = torch.stack(losses)


def open_clip_case(case, side, vision, quick):
    import open_clip
    text = dict(context_length=CONTEXT, vocab_size=VOCABULARY, width=12, heads=2, layers=2)
    config = dict(embed_dim=12, vision_cfg=dict(image_size=side, **vision), text_cfg=text, quick_gelu=quick)
    model = open_clip.CLIP(**config).double().eval()
    entries = fill(model)
    note(case, side, entries, {"model_cfg": config}, model.encode_image(pixels(side)), model.encode_text(tokens()),
         model.logit_scale)


def write(path):
    header, body = {"__metadata__": {"cases": json.dumps(cases)}}, b""
    for name in sorted(out):
        data = out[name].detach().to(torch.float32).contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(out[name].shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    transformers_case("transformers", "quick_gelu")
    transformers_case("transformers_gelu", "gelu")
    open_clip_case("open_clip", 8, dict(layers=2, width=16, head_width=4, mlp_ratio=1.5, patch_size=4), False)
    open_clip_case("open_clip_resnet", 64, dict(layers=[1, 2, 1, 1], width=8, head_width=64, patch_size=None), True)
    write(pathlib.Path(__file__).with_suffix(".safetensors"))
