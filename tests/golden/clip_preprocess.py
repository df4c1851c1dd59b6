"""What PIL makes of small images, for tests/it/clip_preprocess.rs.

    pip install pillow numpy
    python tests/golden/clip_preprocess.py      (a second; no random numbers)

Writes clip_preprocess.safetensors beside this file: per image its bytes, and the 32 x 32 levels after convert("RGB"), a
bicubic resize of the shorter side to 32 and a centre crop, rounded half to even (`even`) and down (`down`) where these
differ; `bilinear` and `squash` for one image. A grey image of 16 bits is converted by its high bytes: PIL's own conversion cuts
it at 255.
"""
import io, json, pathlib, struct
import numpy as np
from PIL import Image

SIDE = 32
out = {}


def scene(width, height, channels=3):
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x * (0.21 + 0.05 * c) + c) + np.cos(y * (0.17 + 0.04 * c) - c) + np.sign(np.sin(x * y * 0.013 + c)) for c in range(channels)]
    return np.stack([(127.5 + 42 * w).clip(0, 255) for w in waves], -1).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def expected(image, filter, rounding, squash=False):
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = SIDE * long // short
    size = (SIDE, SIDE) if squash else (SIDE, longer) if width <= height else (longer, SIDE)
    image = image.resize(size, filter)
    left, top = (rounding(side - SIDE) for side in image.size)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE))).transpose(2, 0, 1)


def add(name, data, rgb=None):
    rgb = rgb or Image.open(io.BytesIO(data)).convert("RGB")
    out[f"{name}.bytes"] = np.frombuffer(data, np.uint8)
    even = expected(rgb, Image.BICUBIC, lambda room: round(room / 2))
    down = expected(rgb, Image.BICUBIC, lambda room: room // 2)
    out[f"{name}.even"] = even
    if (even != down).any():
        out[f"{name}.down"] = down
    return rgb


rgb = add("reduced", encoded(Image.fromarray(scene(71, 50)), "PNG"))
out["reduced.bilinear"] = expected(rgb, Image.BILINEAR, lambda room: round(room / 2))
out["reduced.squash"] = expected(rgb, Image.BICUBIC, round, squash=True)
add("enlarged", encoded(Image.fromarray(scene(13, 9)), "PNG"))
add("tall", encoded(Image.fromarray(scene(5, 90)), "PNG"))
add("as_it_is", encoded(Image.fromarray(scene(39, 32)), "PNG"))  # 7 pixels of room: the roundings differ
add("grey", encoded(Image.fromarray(scene(50, 41, 1)[..., 0]), "PNG"))
add("palette", encoded(Image.fromarray(scene(60, 44)).quantize(32), "PNG"))
add("alpha", encoded(Image.fromarray(scene(40, 36, 4), "RGBA"), "PNG"))
add("jpeg_444", encoded(Image.fromarray(scene(64, 80)), "JPEG", quality=90, subsampling=0))
add("jpeg_420", encoded(Image.fromarray(scene(91, 64)), "JPEG", quality=90, subsampling=2))
add("jpeg_grey", encoded(Image.fromarray(scene(64, 64, 1)[..., 0]), "JPEG", quality=90))
add("gif", encoded(Image.fromarray(scene(40, 50)).quantize(16), "GIF"))
add("webp", encoded(Image.fromarray(scene(48, 60)), "WEBP", lossless=True))
deep = scene(44, 40, 1)[..., 0].astype(np.uint16) * 257 - 100
high = Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
add("grey_16", encoded(Image.fromarray(deep), "PNG"), high)

if __name__ == "__main__":
    header, body = {}, b""
    for name in sorted(out):
        data = np.ascontiguousarray(out[name]).tobytes()
        header[name] = {"dtype": "U8", "shape": list(out[name].shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = pathlib.Path(__file__).with_suffix(".safetensors")
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    print(path, path.stat().st_size, "bytes")
