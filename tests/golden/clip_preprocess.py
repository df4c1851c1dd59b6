"""What PIL makes of small images, for tests/it/clip_preprocess.rs.

    pip install pillow numpy
    python tests/golden/clip_preprocess.py      (a second; no random numbers; Pillow 12.0 and 13.0 agree on these)

Writes clip_preprocess.safetensors beside this file: per image its bytes, and the 32 x 32 levels after convert("RGB"), a
bicubic resize of the shorter side to 32 and a centre crop, rounded half to even (`even`) and down (`down`) where these
differ; `later`, where that differs from `even`, if convert("RGB") comes after the crop; `bilinear` and `squash` for one
image. Three equal channels are written once. A grey image of 16 bits is converted by its high bytes: PIL's own
conversion cuts it at 255.
"""
import io, json, pathlib, struct, zlib
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
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)).convert("RGB")).transpose(2, 0, 1)


def keep(name, levels):
    """Grey is kept once."""
    out[name] = levels[:1] if (levels == levels[:1]).all() else levels


def add(name, data, rgb=None, mode=None):
    opened = rgb or Image.open(io.BytesIO(data))
    assert mode in (None, opened.mode), (name, opened.mode)
    rgb = opened.convert("RGB")
    out[f"{name}.bytes"] = np.frombuffer(data, np.uint8)
    even = expected(rgb, Image.BICUBIC, lambda room: round(room / 2))
    down = expected(rgb, Image.BICUBIC, lambda room: room // 2)
    keep(f"{name}.even", even)
    if (even != down).any():
        keep(f"{name}.down", down)
    later = expected(opened, Image.BICUBIC, lambda room: round(room / 2))
    assert mode is None or (later != even).any() or rgb.size == (SIDE, SIDE), f"{name}: the orders agree"
    if (later != even).any():
        keep(f"{name}.later", later)
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


def bold(width, height, channels):
    """Runs of nothing and of everything, where the cubic filter overshoots; alpha of its own last."""
    picture = scene(width, height, 4)[..., 4 - channels :].astype(int)
    return ((picture - 128) * 4 + 128).clip(0, 255).astype(np.uint8)


def png(array, depth, kind, *chunks):
    """A PNG that PIL does not write: rows of packed bytes as they are."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    height, width = array.shape[:2]
    if depth < 8:
        bits = array.astype(np.uint8)[..., None] >> np.arange(depth - 1, -1, -1) & 1
        packed = np.packbits(bits.reshape(height, -1), axis=1)
    else:
        packed = array.astype(">u2" if depth == 16 else np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = b"".join(chunk(name, data) for name, data in chunks) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def rgba(width, height):
    return Image.fromarray(bold(width, height, 4), "RGBA")


# What the two orders make different things of.
add("rgba_reduced", encoded(rgba(47, 65), "PNG"), mode="RGBA")
add("rgba_enlarged", encoded(rgba(14, 11), "PNG"), mode="RGBA")
add("rgba_as_it_is", encoded(rgba(32, 32), "PNG"), mode="RGBA")
add("la_reduced", encoded(Image.fromarray(bold(54, 38, 2), "LA"), "PNG"), mode="LA")
add("la_enlarged", encoded(Image.fromarray(bold(12, 17, 2), "LA"), "PNG"), mode="LA")
add("rgba_16", png(bold(24, 20, 4).astype(np.uint16) * 251 + 77, 16, 6), mode="RGBA")
add("la_16", png(bold(26, 20, 2).astype(np.uint16) * 251 + 77, 16, 4), mode="RGBA")
add("webp_alpha", encoded(rgba(20, 16), "WEBP", lossless=True), mode="RGBA")
indexed = Image.fromarray(scene(53, 67)).quantize(32)
add("palette_transparent", encoded(indexed, "PNG", transparency=bytes(range(0, 256, 8))), mode="P")
bits = scene(75, 52, 1)[..., 0] > 127
add("bits", encoded(Image.fromarray(bits), "PNG"), mode="1")
add("bits_enlarged", encoded(Image.fromarray(bits[-13:, -18:]), "PNG"), mode="1")
add("bits_of_a_palette", png(bits[-40:, -50:], 1, 3, (b"PLTE", bytes([250, 10, 40, 0, 90, 200]))), mode="P")
add("gif_transparent", encoded(Image.fromarray(scene(17, 20)).quantize(16), "GIF", transparency=3), mode="P")
add("jpeg_cmyk", encoded(Image.fromarray(bold(44, 36, 4), "CMYK"), "JPEG", quality=60), mode="CMYK")
# What looks like these and is resized as any other.
add("grey_transparent", png(scene(40, 33, 1)[..., 0], 8, 0, (b"tRNS", b"\0\x80")))
add("rgb_transparent", png(scene(14, 12), 8, 2, (b"tRNS", b"\0\x80\0\x80\0\x80")))
four_greys = scene(40, 34, 1)[..., 0] >> 6
add("two_bits", png(four_greys, 2, 0))
add("gif_grey", encoded(Image.fromarray(scene(34, 36, 1)[..., 0]), "GIF", optimize=False))

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
