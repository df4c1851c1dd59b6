#!/usr/bin/env python3
"""Writes mfcc.json: MFCC statistics of three signals, by numpy's FFT and scipy's DCT. Needs numpy and scipy."""
import json

import numpy as np
from scipy.fft import dct


def signal(number, steps, rate):
    step = np.arange(steps, dtype=np.float64)
    t = step / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 100 * number) * t)
    chirp = 0.1 * np.sin(2 * np.pi * 1500 * t * (1 + t))
    return (tone + chirp + 0.05 * np.sin(12.9898 * step)).astype(np.float32).astype(np.float64)


def statistics(x, rate, bands=26, kept=13):
    frame, hop = round(0.025 * rate), round(0.010 * rate)
    size = 1 << (frame - 1).bit_length()
    frames = np.lib.stride_tricks.sliding_window_view(x, frame)[::hop] * np.hamming(frame)
    power = np.abs(np.fft.rfft(frames, size)) ** 2
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (50, rate / 2))
    corners_hz = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    corners = np.floor((size + 1) * corners_hz / rate).astype(int)
    bank = np.zeros((bands, size // 2 + 1))
    for band in range(bands):
        left, top, right = corners[band : band + 3]
        for at in range(left, top):
            bank[band, at] = (at - left) / max(1, top - left)
        for at in range(top, min(right, size // 2 + 1)):
            bank[band, at] = (right - at) / max(1, right - top)
    coefficients = dct(np.log(power @ bank.T + 1e-8), axis=1, norm="ortho")[:, :kept]
    return np.concatenate([coefficients.mean(0), coefficients.std(0)])


cases = []
for number, steps, rate in [(0, 2000, 8000), (1, 3333, 8000), (2, 5000, 16000)]:
    found = [float(f"{x:.9g}") for x in statistics(signal(number, steps, rate), rate)]
    cases.append({"number": number, "steps": steps, "rate_hz": rate, "statistics": found})
with open("mfcc.json", "w") as file:
    json.dump({"cases": cases}, file, indent=1)
    file.write("\n")
