"""Writes optimizers.json: five steps of SGD, AdamW and LARS on a matrix and a vector, in float64, from the formulas.

SGD and AdamW are PyTorch's; where PyTorch is installed, every step is also compared with it (1e-12 relative).
LARS is google-research/simclr's: rate inside of the momentum, vectors without decay and without adaptation.

  python3 optimizers.py > optimizers.json
"""
import json
import math
import sys

ROWS, COLUMNS, STEPS = 3, 4, 5
RATES = [0.0, 0.05, 0.1, 0.1, 0.025]  # a warm-up from 0, a plateau, a decay
START = {
    "weight": [math.sin(1.0 + 0.7 * i) for i in range(ROWS * COLUMNS)],
    "bias": [0.1 * math.cos(2.0 * i) for i in range(COLUMNS)],
}
GRADIENTS = [
    {
        "weight": [math.cos(0.3 + 1.1 * i + 0.9 * t) for i in range(ROWS * COLUMNS)],
        "bias": [0.5 * math.sin(0.2 + 1.7 * i + 0.4 * t) for i in range(COLUMNS)],
    }
    for t in range(STEPS)
]


def decays(name, case):
    return case["compat_torch"] or name == "weight"


def sgd(case, name, w, g, state, rate, step):
    s = case["optimizer"]["sgd"]
    wd = s["weight_decay"] if decays(name, case) else 0.0
    g = [x + wd * y for x, y in zip(g, w)]
    if s["momentum"] == 0.0:
        return [y - rate * x for x, y in zip(g, w)]
    v = [s["momentum"] * a + x for a, x in zip(state.get("v", [0.0] * len(w)), g)]
    state["v"] = v
    d = [x + s["momentum"] * a for x, a in zip(g, v)] if s["nesterov"] else v
    return [y - rate * x for x, y in zip(d, w)]


def adamw(case, name, w, g, state, rate, step):
    s = case["optimizer"]["adamw"]
    b1, b2 = s["betas"]
    wd = s["weight_decay"] if decays(name, case) else 0.0
    w = [y * (1.0 - rate * wd) for y in w]
    m = [b1 * a + (1.0 - b1) * x for a, x in zip(state.get("m", [0.0] * len(w)), g)]
    v = [b2 * a + (1.0 - b2) * x * x for a, x in zip(state.get("v", [0.0] * len(w)), g)]
    state["m"], state["v"] = m, v
    c1, c2 = 1.0 - b1**step, 1.0 - b2**step
    return [y - rate * (a / c1) / (math.sqrt(b / c2) + s["epsilon"]) for y, a, b in zip(w, m, v)]


def lars(case, name, w, g, state, rate, step):
    s = case["optimizer"]["lars"]
    wd = s["weight_decay"] if decays(name, case) else 0.0
    g = [x + wd * y for x, y in zip(g, w)]
    ratio = 1.0
    if name == "weight":
        length, slope = math.sqrt(sum(y * y for y in w)), math.sqrt(sum(x * x for x in g))
        if length > 0.0 and slope > 0.0:
            ratio = s["trust_coefficient"] * length / slope
    v = [s["momentum"] * a + rate * ratio * x for a, x in zip(state.get("v", [0.0] * len(w)), g)]
    state["v"] = v
    return [y - a for y, a in zip(w, v)]


RULES = {"sgd": sgd, "adamw": adamw, "lars": lars}


def case(name, compat_torch=False, start=START, **optimizer):
    return {"name": name, "compat_torch": compat_torch, "start": start, "optimizer": optimizer}


def settings(**changes):
    return {"rate": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, **changes}


ADAMW = {"rate": 0.1, "betas": [0.9, 0.95], "epsilon": 1e-6, "weight_decay": 0.2}
LARS = {"rate": 1.0, "momentum": 0.9, "weight_decay": 0.05, "trust_coefficient": 0.02}
ZEROS = {"weight": [0.0] * (ROWS * COLUMNS), "bias": START["bias"]}
CASES = [
    case("plain sgd", sgd=settings(momentum=0.0)),
    case("sgd with momentum and decay", sgd=settings(weight_decay=0.01)),
    case("nesterov with decay on everything", compat_torch=True, sgd=settings(nesterov=True, weight_decay=0.01)),
    case("adamw", adamw=ADAMW),
    case("adamw with decay on everything", compat_torch=True, adamw=ADAMW),
    case("lars", lars=LARS),
    case("lars from zero weights", start=ZEROS, lars={**LARS, "weight_decay": 0.0}),
]


def against_torch(case):
    """The same steps by PyTorch, or None where it is not installed or has no such optimizer."""
    try:
        import torch
    except ImportError:
        return None
    (kind, s), tensors = *case["optimizer"].items(), {}
    if kind == "lars":
        return None
    groups = []
    for name, values in case["start"].items():
        shape = (ROWS, COLUMNS) if name == "weight" else (COLUMNS,)
        tensors[name] = torch.tensor(values, dtype=torch.float64).reshape(shape).requires_grad_()
        groups.append({"params": [tensors[name]], "weight_decay": s["weight_decay"] if decays(name, case) else 0.0})
    if kind == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=s["momentum"], nesterov=s["nesterov"])
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.1, betas=tuple(s["betas"]), eps=s["epsilon"])
    steps = []
    for rate, gradients in zip(RATES, GRADIENTS):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name], dtype=torch.float64).reshape(tensor.shape)
        optimizer.step()
        steps.append({name: tensor.detach().flatten().tolist() for name, tensor in tensors.items()})
    return steps


for c in CASES:
    (kind,) = c["optimizer"]
    weights, states, c["steps"] = dict(c["start"]), {"weight": {}, "bias": {}}, []
    for t in range(STEPS):
        for name in weights:
            weights[name] = RULES[kind](c, name, weights[name], GRADIENTS[t][name], states[name], RATES[t], t + 1)
        c["steps"].append(dict(weights))
    reference = against_torch(c)
    for ours, theirs in zip(c["steps"], reference or []):
        for name in ours:
            for a, b in zip(ours[name], theirs[name]):
                assert abs(a - b) <= 1e-12 * max(1.0, abs(b)), (c["name"], name, a, b)
    if reference:
        print(f"{c['name']}: equals PyTorch", file=sys.stderr)


def rounded(x):
    if isinstance(x, float):
        return float(f"{x:.12g}")
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    return [rounded(v) for v in x] if isinstance(x, list) else x


document = {"rows": ROWS, "columns": COLUMNS, "rates": RATES, "gradients": GRADIENTS, "cases": CASES}
json.dump(rounded(document), sys.stdout, separators=(",", ":"))
print()
