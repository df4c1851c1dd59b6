#!/usr/bin/env python3
"""Windows of series per second from a plain PyTorch Dataset and DataLoader over arrays that are decoded already.

What `diptych bench` is compared with (benches/series_windows.sh): the same recordings as int16 arrays in memory, a random
window of each per epoch, scaled by the root mean square of its series, batches of 64 in shuffled order; with --hop-steps
every window at that hop once per epoch, scaled by what was worked out of its series beforehand. Nothing is read
from disk and nothing is decoded in the measured time. Usage: series_windows.py SHARDS --workers N [--seconds S]
[--window-steps 2560] [--hop-steps N] [--scale series_rms|none]. Needs torch, numpy, pyarrow. Prints one JSON line.
"""
import argparse
import glob
import json
import os
import resource
import time

import numpy as np
import pyarrow.parquet as parquet
import torch
from torch.utils.data import DataLoader, Dataset

arguments = argparse.ArgumentParser()
arguments.add_argument("shards")
arguments.add_argument("--workers", type=int, default=0)
arguments.add_argument("--seconds", type=float, default=10.0)
arguments.add_argument("--window-steps", type=int, default=2560)
arguments.add_argument("--hop-steps", type=int)
arguments.add_argument("--batch-rows", type=int, default=64)
arguments.add_argument("--scale", choices=["series_rms", "none"], default="series_rms")
arguments = arguments.parse_args()
torch.set_num_threads(1)


def recordings():
    for path in sorted(glob.glob(os.path.join(arguments.shards, "*.parquet"))):
        table = parquet.read_table(path, columns=["samples", "split", "channels"])
        for samples, split, channels in zip(*(table[name] for name in ("samples", "split", "channels"))):
            values = np.asarray(samples.values).reshape(-1, channels.as_py())
            if split.as_py() != "test" and len(values) >= arguments.window_steps:
                yield values


class Windows(Dataset):
    def __init__(self, series):
        self.series = series

    def __len__(self):
        return len(self.series)

    def __getitem__(self, index):
        series = self.series[index]
        start = np.random.randint(0, len(series) - arguments.window_steps + 1)
        if series.dtype == np.int16:
            series = series.astype(np.float32) / 32768
        window = series[start : start + arguments.window_steps]
        if arguments.scale == "series_rms":
            window = window * (0.1 / (np.sqrt((series**2).mean()) + 1e-4))
        return torch.from_numpy(np.ascontiguousarray(window.T))


class EveryWindow(Dataset):
    def __init__(self, series):
        self.series = series
        rms = lambda values: np.sqrt(np.mean((values.astype(np.float64) / 32768) ** 2))
        self.factors = [np.float32(0.1 / (rms(values) + 1e-4)) for values in series]
        last = lambda values: len(values) - arguments.window_steps
        starts = ((at, start) for at, values in enumerate(series) for start in range(0, last(values) + 1, arguments.hop_steps))
        self.windows = list(starts)

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, index):
        at, start = self.windows[index]
        window = self.series[at][start : start + arguments.window_steps]
        window = window.astype(np.float32) / 32768
        if arguments.scale == "series_rms":
            window = window * self.factors[at]
        return torch.from_numpy(np.ascontiguousarray(window.T))


def processor_seconds():
    of = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in of)


dataset = (Windows if arguments.hop_steps is None else EveryWindow)(list(recordings()))
loader = DataLoader(
    dataset,
    batch_size=arguments.batch_rows,
    shuffle=True,
    drop_last=True,
    num_workers=arguments.workers,
    persistent_workers=arguments.workers > 0,
)
for batch in loader:  # workers are up before the clock starts
    pass
windows, before, start = 0, processor_seconds(), time.perf_counter()
while time.perf_counter() - start < arguments.seconds:
    for batch in loader:
        windows += len(batch)
seconds = time.perf_counter() - start
del loader  # ends the workers, whose time is known only then
print(
    json.dumps(
        {
            "workers": arguments.workers,
            "items": len(dataset),
            "windows_per_second": round(windows / seconds, 1),
            "windows_per_processor_second": round(windows / (processor_seconds() - before), 1),
            "seconds": round(seconds, 2),
        }
    )
)
