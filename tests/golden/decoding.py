"""Writes decoding.json: encoded images and their pixels by the rules that src/augment/image/source.rs states.

Needs Pillow and NumPy. Pixels of JPEGs are Pillow's (libjpeg-turbo, full decode); those of PNG and GIF are computed here from what
was drawn, so that no decoder is asked.
"""
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

W, H = 20, 14
y, x = np.mgrid[0:H, 0:W]
RGB = np.stack([40 + 9 * x + 2 * y, 230 - 6 * x - 3 * y, 30 + 14 * y], axis=2).clip(0, 255).astype(np.uint8)
CASES = []


def case(name, encoded, pixels, tolerance=0, exif=False):
    pixels = np.ascontiguousarray(pixels.astype(np.uint8))
    height, width, _ = pixels.shape
    CASES.append(dict(name=name, encoded=encoded.hex(), exif_orientation=exif, width=width, height=height,
                      pixels=pixels.tobytes().hex(), tolerance=tolerance))


def saved(image, **options):
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


def png(colour, depth, rows, extra=b"", interlace=0):
    """A PNG written by hand: what is expected of it does not come from a library."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, interlace)
    raw = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(values, depth):
    rows = []
    for row in values:
        bits = "".join(format(int(v), f"0{depth}b") for v in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    return rows


grey = (12 * x + y).clip(0, 255).astype(np.uint8)
three = lambda plane: np.repeat(plane[:, :, None], 3, axis=2)

# PNG: depths, grey, alpha, palettes.
for depth in (1, 2, 4):
    levels = (grey // 16) % (1 << depth)
    case(f"grey PNG of {depth} bits", png(0, depth, packed(levels, depth)), three(levels.astype(int) * 255 // ((1 << depth) - 1)))
case("grey PNG of 8 bits", png(0, 8, [row.tobytes() for row in grey]), three(grey))
wide = (grey.astype(np.uint16) << 8) | 0xC3
case("grey PNG of 16 bits", png(0, 16, [row.astype(">u2").tobytes() for row in wide]), three(grey))
case("RGB PNG of 16 bits", png(2, 16, [((row.astype(np.uint16) << 8) | 0xF1).astype(">u2").tobytes() for row in RGB]), RGB)
alpha = (255 - 12 * x).clip(0, 255).astype(np.uint8)
case("grey PNG with alpha", png(4, 8, [np.stack([g, a], 1).tobytes() for g, a in zip(grey, alpha)]), three(grey))
case("grey PNG with alpha of 16 bits",
     png(4, 16, [np.stack([g, a], 1).astype(">u2").tobytes() for g, a in zip(wide, alpha.astype(np.uint16) << 8)]), three(grey))
case("RGB PNG with alpha", png(6, 8, [np.concatenate([p, a[:, None]], 1).tobytes() for p, a in zip(RGB, alpha)]), RGB)
case("RGB PNG with a transparent colour", png(2, 8, [row.tobytes() for row in RGB], chunk(b"tRNS", struct.pack(">HHH", *map(int, RGB[3, 4])))), RGB)
for depth in (1, 2, 4, 8):
    count = min(1 << depth, 16)
    palette = np.stack([15 * np.arange(count), 255 - 9 * np.arange(count), 7 * np.arange(count) + 3], 1).astype(np.uint8)
    index = (x + 2 * y) % count
    rows = packed(index, depth)
    case(f"palette PNG of {depth} bits", png(3, depth, rows, chunk(b"PLTE", palette.tobytes())), palette[index])
    clear = chunk(b"tRNS", bytes((0, 128, 255)[:count]))
    case(f"palette PNG of {depth} bits, transparent", png(3, depth, rows, chunk(b"PLTE", palette.tobytes()) + clear), palette[index])

# JPEG as Pillow decodes it.
smooth = Image.fromarray(RGB)
for subsampling, name in ((0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")):
    for progressive in (False, True):
        encoded = saved(smooth, format="JPEG", quality=92, subsampling=subsampling, progressive=progressive)
        decoded = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        kind = "progressive" if progressive else "baseline"
        # Same transform and same rounding without subsampling; else chroma is enlarged by another filter.
        case(f"{kind} {name} JPEG", encoded, decoded, 1 if subsampling == 0 else 8)
encoded = saved(Image.fromarray(grey), format="JPEG", quality=92)
case("grey JPEG", encoded, np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), 1)
inks = Image.fromarray(np.dstack([RGB, (40 + 6 * y).astype(np.uint8)]), mode="CMYK")
encoded = saved(inks, format="JPEG", quality=95, subsampling=0)
case("CMYK JPEG", encoded, np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), 2)

# EXIF orientation, heeded and ignored.
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form, options, tolerance in (("JPEG", dict(quality=95, subsampling=0), 2), ("PNG", {}, 0), ("WEBP", dict(lossless=True), 0)):
        encoded = saved(smooth, format=form, exif=exif.tobytes(), **options)
        stored = Image.open(io.BytesIO(encoded))
        case(f"{form} of orientation {orientation}, ignored", encoded, np.asarray(stored.convert("RGB")), tolerance)
        turned = ImageOps.exif_transpose(stored).convert("RGB")
        case(f"{form} of orientation {orientation}, heeded", encoded, np.asarray(turned), tolerance, exif=True)

# GIF: transparency keeps its colour; lossy WebP as Pillow (libwebp, fancy upsampling) has it.
levels = Image.fromarray(((x + 2 * y) % 16).astype(np.uint8), mode="P")
levels.putpalette([v for i in range(16) for v in (15 * i, 255 - 9 * i, 7 * i + 3)])
colours = np.array([[15 * i, 255 - 9 * i, 7 * i + 3] for i in range(16)])[(x + 2 * y) % 16]
case("GIF", saved(levels, format="GIF"), colours)
encoded = saved(smooth, format="WEBP", quality=92)
case("lossy WebP", encoded, np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), 2)
rgba = Image.fromarray(np.dstack([RGB, alpha]), mode="RGBA")
case("WebP with alpha", saved(rgba, format="WEBP", lossless=True, exact=True), RGB)

Path(__file__).with_name("decoding.json").write_text(json.dumps(CASES, indent=0) + "\n")
print(len(CASES), "cases")
