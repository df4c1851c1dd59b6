"""Reads two run folders and prints how far losses and gradients differ, or one and prints its throughput. Python's library only.

  gpu_agreement.py NAME CPU_RUN CUDA_RUN     runs of one step of SGD with rate 1: new weights = weights - gradient
  gpu_agreement.py --rate NAME RUN
"""
import array
import json
import math
import pathlib
import statistics
import struct
import sys


def metrics(run):
    return [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    """Name -> floats, of the newest checkpoint."""
    newest = max((pathlib.Path(run) / "checkpoints").glob("step-*"), key=lambda p: int(p.name.split("-")[1]))
    raw = (newest / "weights.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    tensors = {}
    for name, info in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__" and info["dtype"] == "F32":
            begin, end = info["data_offsets"]
            tensors[name] = array.array("f", raw[8 + size + begin : 8 + size + end])
    return tensors


if sys.argv[1] == "--rate":
    lines = [m for m in metrics(sys.argv[3]) if "samples_per_second" in m]
    tail = lines[len(lines) // 2 :]
    rates = sorted(m["samples_per_second"] for m in tail)
    print(json.dumps({
        "run": sys.argv[2], "samples_per_second_median": round(statistics.median(rates), 1), "lowest": round(rates[0], 1), "highest": round(rates[-1], 1),
        "data_wait_share_median": round(statistics.median(m["data_wait_share"] for m in tail), 4), "reports": len(tail)}))
else:
    name, cpu, cuda = sys.argv[1:]
    a, b = weights(cpu), weights(cuda)
    assert a.keys() == b.keys(), "the two checkpoints hold different tensors"
    norm = {k: math.sqrt(sum(x * x for x in v)) for k, v in a.items()}
    apart = {k: math.sqrt(sum((x - y) ** 2 for x, y in zip(a[k], b[k]))) for k in a}
    worst = max(a, key=lambda k: apart[k] / max(norm[k], 1e-12))
    first = [metrics(run)[0] for run in (cpu, cuda)]
    print(json.dumps({
        "agreement": name, "loss_cpu": first[0]["loss"], "loss_cuda": first[1]["loss"],
        "gradient_norm_cpu": first[0]["gradient_norm"], "gradient_norm_cuda": first[1]["gradient_norm"],
        "batches_equal": first[0]["batch_digest"] == first[1]["batch_digest"],
        "worst_tensor_after_one_step": worst, "relative_difference": apart[worst] / max(norm[worst], 1e-12)}))
