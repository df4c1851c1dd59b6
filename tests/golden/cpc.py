"""A GRU, and gradients and ten losses of two small CPC models, from PyTorch in double precision, for tests/it/cpc.rs.

    python tests/golden/cpc.py        (PyTorch 2, no other package; a few seconds; no random numbers)

Writes cpc.safetensors beside this file. Weights and inputs are not stored: both sides compute them from a name with the
integer formula `uniform` of named_tensors.py. Parameters have the names of Diptych's checkpoints. Cases: `waveform` (the encoder for audio,
ChannelNorm, zeros on both sides, negatives of the same time) and `series` (three channels, no normalisation, causal zeros,
negatives of all times).
"""
import pathlib
import torch, torch.nn as nn, torch.nn.functional as F
from named_tensors import uniform, write

RATE, STEPS = 0.05, 10


def start(module):
    for name, p in module.named_parameters():
        u = 2 * uniform(name, *p.shape) - 1
        if p.dim() == 1:
            value = (1.0 if name.endswith("weight") else 0.0) + 0.2 * u
        else:
            value = (6.0 / (p.numel() / p.shape[0])) ** 0.5 * u
        p.data = value.float().double()  # what f32 holds
    return module


class ChannelNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):  # [sequences, channels, frames]
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=True) + 1e-5).sqrt()
        return x * self.weight[:, None] + self.bias[:, None]


class Layer(nn.Module):
    def __init__(self, channels, width, kernel, stride, padding, norm):
        super().__init__()
        self.conv, self.padding = nn.Conv1d(channels, width, kernel, stride), padding
        if norm:
            self.channel_norm = ChannelNorm(width)

    def forward(self, x):
        x = self.conv(F.pad(x, self.padding))
        return F.relu(self.channel_norm(x) if hasattr(self, "channel_norm") else x)


class Encoder(nn.Module):
    def __init__(self, channels, layers, norm):
        super().__init__()
        widths = [channels] + [layer[0] for layer in layers]
        self.layers = nn.Sequential(*[Layer(c, *layer, norm) for c, layer in zip(widths, layers)])

    def forward(self, x):
        return self.layers(x).transpose(1, 2)


class Predictor(nn.Module):
    def __init__(self, context, width, steps):
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(context, width, bias=False) for _ in range(steps))


class CPC(nn.Module):
    def __init__(self, channels, layers, norm, context, steps):
        super().__init__()
        width = layers[-1][0]
        self.g_enc = Encoder(channels, layers, norm)
        self.g_ar = nn.GRU(width, context, batch_first=True)
        self.predictor = Predictor(context, width, steps)

    def forward(self, x, all_time):
        z = self.g_enc(x)
        c, _ = self.g_ar(z)
        count, frames, width = z.shape
        total = 0.0
        for index, linear in enumerate(self.predictor.steps):
            left = frames - index - 1
            p, future = linear(c[:, :left]), z[:, index + 1:]
            if all_time:
                scores, rows = p.reshape(-1, width) @ future.reshape(-1, width).T, count * left
                loss = F.cross_entropy(scores, torch.arange(rows))
            else:
                scores = torch.einsum("btd,atd->tba", p, future)
                labels = torch.arange(count).expand(left, count)
                loss = F.cross_entropy(scores.reshape(-1, count), labels.reshape(-1))
            total = total + loss / len(self.predictor.steps)
        return total


out = {}
gru = start(nn.GRU(5, 6, batch_first=True).double())
x = (2 * uniform("gru.inputs", 3, 7, 5) - 1).requires_grad_()
states, _ = gru(x)
(states * (2 * uniform("gru.coefficients", 3, 7, 6) - 1)).sum().backward()
out["gru.states"], out["gru.gradient.inputs"] = states.detach(), x.grad
out.update({f"gru.gradient.{name}": p.grad for name, p in gru.named_parameters()})

waveform = [(8, 10, 5, (3, 3)), (8, 8, 4, (2, 2))] + [(8, 4, 2, (1, 1))] * 3
series = [(6, 4, 2, (2, 0)), (5, 3, 1, (2, 0))]
cases = {
    "waveform": (lambda: CPC(1, waveform, True, 6, 3), (4, 1, 1280), False),
    "series": (lambda: CPC(3, series, False, 7, 2), (3, 3, 20), True),
}
for case, (make, shape, all_time) in cases.items():
    model, x, losses = start(make().double()), 2 * uniform(f"{case}.windows", *shape) - 1, []
    for step in range(STEPS):
        loss = model(x, all_time)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        for name, p in model.named_parameters():
            if step == 0:
                out[f"{case}.gradient.{name}"] = p.grad.clone()
            p.data -= RATE * p.grad
    out[f"{case}.losses"] = torch.tensor(losses)
    print(case, [round(l, 6) for l in losses])

write(pathlib.Path(__file__).with_suffix(".safetensors"), out)
