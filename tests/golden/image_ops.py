"""Expected pixels of the image ops on one small image, from their formulas in numpy, written to image_ops.json.

    python tests/golden/image_ops.py            # writes image_ops.json beside this file
    python tests/golden/image_ops.py --check    # also compares the formulas with Pillow and torchvision where installed

Nothing here is shared with the Rust code: plain float64 loops, rounding written out.
"""
import json
import math
import pathlib
import sys

import numpy as np

WIDTH, HEIGHT = 17, 13
OUT = pathlib.Path(__file__).with_suffix(".json")


def image():
    """Gradients, an edge, grey, black and white pixels, and noise of a linear congruential generator."""
    state, pixels = 1, np.zeros((HEIGHT, WIDTH, 3), np.int64)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            for c in range(3):
                state = (1103515245 * state + 12345) % 2**31
                base = [12 * x, 14 * y, 255 - 6 * (x + y)][c]
                pixels[y, x, c] = base + (state >> 16) % 40 - 20 + (60 if x > 10 and c == 0 else 0)
    pixels[0, :4] = [[0, 0, 0], [255, 255, 255], [77, 77, 77], [255, 0, 0]]
    pixels[5, 5:8] = [[200, 200, 10], [10, 200, 200], [200, 10, 200]]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def luma(a):
    a = a.astype(np.int64)
    return (19595 * a[..., 0] + 38470 * a[..., 1] + 7471 * a[..., 2] + 32768) >> 16


def blend(other, a, factor):
    """PIL's blend: float32, clamped, cut."""
    other, a, factor = np.float32(other), a.astype(np.float32), np.float32(factor)
    return np.clip(other + factor * (a - other), 0, 255).astype(np.uint8)


def brightness(a, factor):
    return blend(0, a, factor)


def contrast(a, factor):
    return blend(int(luma(a).mean() + 0.5), a, factor)


def saturation(a, factor):
    return blend(luma(a)[..., None].repeat(3, 2), a, factor)


def grayscale(a):
    return luma(a)[..., None].repeat(3, 2).astype(np.uint8)


def hue(a, turns):
    """Through HSV by sectors, scaled back by 255.999 and cut, as torchvision does for u8 tensors."""
    out = np.zeros_like(a)
    for index in np.ndindex(a.shape[:2]):
        r, g, b = (float(v) / 255 for v in a[index])
        v, low = max(r, g, b), min(r, g, b)
        chroma = v - low
        s = chroma / v if v else 0.0
        if chroma == 0:
            h = 0.0
        elif v == r:
            h = (g - b) / chroma
        elif v == g:
            h = 2 + (b - r) / chroma
        else:
            h = 4 + (r - g) / chroma
        h = (h / 6 + turns) % 1.0
        sector, f = int(h * 6) % 6, h * 6 - math.floor(h * 6)
        p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
        rgb = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][sector]
        out[index] = [int(min(max(c, 0.0), 1.0) * 255.999 + 1e-9) for c in rgb]
    return out


def solarize(a, threshold):
    return np.where(a >= threshold, 255 - a, a).astype(np.uint8)


def reflect(i, n):
    while i < 0 or i >= n:
        i = -i if i < 0 else 2 * (n - 1) - i
    return i


def gaussian_blur(a, radius, sigma):
    w = np.array([math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)])
    w /= w.sum()
    h, width = a.shape[:2]
    out = np.zeros(a.shape)
    for y in range(h):
        for x in range(width):
            for j in range(-radius, radius + 1):
                for i in range(-radius, radius + 1):
                    out[y, x] += w[j + radius] * w[i + radius] * a[reflect(y + j, h), reflect(x + i, width)]
    return np.rint(out).astype(np.uint8)


def axis_weights(samples, start, length, outputs, low, high):
    """Triangle filter whose support grows with the reduction; rows of weights over all samples."""
    scale = length / outputs
    support = max(scale, 1.0)
    w = np.zeros((outputs, samples))
    for o in range(outputs):
        centre = start + (o + 0.5) * scale
        for s in range(low, high):
            w[o, s] = max(0.0, 1 - abs(s + 0.5 - centre) / support)
        w[o] /= w[o].sum()
    return w


def resample(a, box, out_width, out_height, closed):
    left, top, width, height = box
    h, w = a.shape[:2]
    xs = (int(left), math.ceil(left + width)) if closed else (0, w)
    ys = (int(top), math.ceil(top + height)) if closed else (0, h)
    wx = axis_weights(w, left, width, out_width, *xs)
    wy = axis_weights(h, top, height, out_height, *ys)
    return np.rint(np.einsum("ys,sxc,ox->yoc", wy, a.astype(float), wx)).astype(np.uint8)


def center_crop(a, side):
    h, w = a.shape[:2]
    left, right = max(0, (side - w) // 2), max(0, (side - w + 1) // 2)
    top, bottom = max(0, (side - h) // 2), max(0, (side - h + 1) // 2)
    a = np.pad(a, ((top, bottom), (left, right), (0, 0)))
    h, w = a.shape[:2]
    y, x = round((h - side) / 2), round((w - side) / 2)
    return a[y : y + side, x : x + side]


def random_affine(a, degrees, scale, right, down):
    """Bilinear; clockwise about the centre; outside the edge is repeated."""
    h, w = a.shape[:2]
    angle, out = math.radians(degrees), np.zeros_like(a)
    for y in range(h):
        for x in range(w):
            u, v = x - (w - 1) / 2 - right * w, y - (h - 1) / 2 - down * h
            sx = (u * math.cos(angle) + v * math.sin(angle)) / scale + (w - 1) / 2
            sy = (v * math.cos(angle) - u * math.sin(angle)) / scale + (h - 1) / 2
            x0, y0 = math.floor(sx), math.floor(sy)
            fx, fy = sx - x0, sy - y0
            at = lambda i, j: a[min(max(j, 0), h - 1), min(max(i, 0), w - 1)].astype(float)
            upper = at(x0, y0) * (1 - fx) + at(x0 + 1, y0) * fx
            lower = at(x0, y0 + 1) * (1 - fx) + at(x0 + 1, y0 + 1) * fx
            out[y, x] = np.floor(upper * (1 - fy) + lower * fy + 0.5)
    return out


def text(a):
    """[3, height, width] as hexadecimal."""
    return np.ascontiguousarray(a.transpose(2, 0, 1)).tobytes().hex()


BOXES = [
    # left, top, width, height, out width, out height, closed
    (0, 0, 17, 13, 9, 9, True),
    (3, 2, 11, 9, 16, 16, True),
    (2, 1, 13, 9, 6, 24, True),
    (2.5, 3.25, 12.5, 7.75, 7, 5, False),
    (0, 0, 17, 13, 2, 3, False),
    (16, 12, 1, 1, 3, 3, True),
]


def cases(a):
    yield "brightness", [0.3], brightness(a, 0.3)
    yield "brightness", [1.7], brightness(a, 1.7)
    yield "contrast", [0.25], contrast(a, 0.25)
    yield "contrast", [1.8], contrast(a, 1.8)
    yield "saturation", [0.4], saturation(a, 0.4)
    yield "saturation", [1.6], saturation(a, 1.6)
    for turns in (-0.2, 0.07, 0.5):
        yield "hue", [turns], hue(a, turns)
    yield "grayscale", [], grayscale(a)
    yield "solarize", [128], solarize(a, 128)
    yield "horizontal_flip", [], a[:, ::-1]
    for kernel, sigma in ((3, 0.5), (7, 1.3), (23, 2.0)):
        yield "gaussian_blur", [kernel, sigma], gaussian_blur(a, kernel // 2, sigma)
    for settings in ([30, 1, 0, 0], [-75, 0.7, 0.1, -0.2], [10, 1.6, -0.25, 0.05]):
        yield "random_affine", settings, random_affine(a, *settings)
    for side in (6, 9, 15, 20):
        yield "center_crop", [side], center_crop(a, side)
    yield "resize_center_crop", [12, 10], center_crop(resample(a, (0, 0, WIDTH, HEIGHT), 15, 12, True), 10)
    for left, top, width, height, out_width, out_height, closed in BOXES:
        box = (left, top, width, height)
        yield "resample", [*box, out_width, out_height, int(closed)], resample(a, box, out_width, out_height, closed)


def check(a):
    """The formulas against the libraries whose semantics they state."""
    import torch
    from PIL import Image, ImageOps
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F

    pil, tensor = Image.fromarray(a), torch.from_numpy(a.transpose(2, 0, 1).copy())

    def report(name, ours, theirs):
        theirs = theirs.numpy().transpose(1, 2, 0) if torch.is_tensor(theirs) else np.asarray(theirs)
        print(f"{name:32} largest difference {np.abs(ours.astype(int) - theirs.astype(int)).max()}")

    for f in (0.3, 1.7):
        report(f"PIL brightness {f}", brightness(a, f), F.adjust_brightness(pil, f))
        report(f"PIL contrast {f}", contrast(a, f), F.adjust_contrast(pil, f))
        report(f"PIL saturation {f}", saturation(a, f), F.adjust_saturation(pil, f))
        report(f"tensor saturation {f}", saturation(a, f), F.adjust_saturation(tensor, f))
    for turns in (-0.2, 0.07, 0.5):
        report(f"tensor hue {turns}", hue(a, turns), F.adjust_hue(tensor, turns))
    report("PIL grayscale", grayscale(a), F.rgb_to_grayscale(pil, 3))
    report("tensor grayscale", grayscale(a), F.rgb_to_grayscale(tensor, 3))
    report("PIL solarize", solarize(a, 128), ImageOps.solarize(pil, 128))
    for kernel, sigma in ((3, 0.5), (7, 1.3), (23, 2.0)):
        if kernel // 2 < min(a.shape[:2]):
            report(f"tensor blur {kernel} {sigma}", gaussian_blur(a, kernel // 2, sigma), F.gaussian_blur(tensor, [kernel] * 2, [sigma] * 2))
    for left, top, width, height, out_width, out_height, closed in BOXES:
        ours = resample(a, (left, top, width, height), out_width, out_height, closed)
        if closed:
            theirs = F.resized_crop(pil, top, left, height, width, [out_height, out_width])
        else:
            theirs = pil.resize((out_width, out_height), Image.BILINEAR, box=(left, top, left + width, top + height))
        report(f"PIL resample {left},{top},{width},{height}", ours, theirs)
    for side in (6, 9, 15, 20):
        report(f"PIL center_crop {side}", center_crop(a, side), F.center_crop(pil, [side, side]))
    theirs = v2.Compose([v2.Resize(12), v2.CenterCrop(10)])(pil)
    report("PIL resize + center_crop", center_crop(resample(a, (0, 0, WIDTH, HEIGHT), 15, 12, True), 10), theirs)


if __name__ == "__main__":
    a = image()
    listed = [{"op": op, "settings": settings, "pixels": text(out)} for op, settings, out in cases(a)]
    lines = ",\n".join(json.dumps(case) for case in listed)
    head = f'{{"width": {WIDTH}, "height": {HEIGHT}, "image": "{text(a)}", "cases": [\n'
    OUT.write_text(f"{head}{lines}\n]}}\n")
    if "--check" in sys.argv:
        check(a)
