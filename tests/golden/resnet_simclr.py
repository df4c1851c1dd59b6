"""Gradients and ten losses of SimCLR with a narrow ResNet-18, from PyTorch in double precision, for tests/it/gradients.rs.

    python tests/golden/resnet_simclr.py        (PyTorch 2, no other package; a few seconds; no random numbers)

Writes resnet_simclr.safetensors beside this file. Weights and pixels are not stored: both sides compute them from the
parameter's name with the integer formula `uniform` of named_tensors.py. Two cases: `separate` (a forward per view) and `joint` (both views
in one forward, unbiased running variance: what a plain PyTorch script does).
"""
import pathlib
import torch, torch.nn as nn, torch.nn.functional as F
from named_tensors import uniform, write

WIDTH, HEAD, SIDE, ITEMS, TEMPERATURE, RATE, STEPS = 4, 16, 16, 8, 0.5, 0.05, 10


class Block(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH)
        channels = WIDTH
        for index in range(4):
            width, stride = WIDTH << index, 1 if index == 0 else 2
            setattr(self, f"layer{index + 1}", nn.Sequential(Block(channels, width, stride), Block(width, width, 1)))
            channels = width

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        layer = lambda a, b: nn.ModuleDict({"linear": nn.Linear(a, b)})
        self.layers = nn.ModuleList([layer(8 * WIDTH, 8 * WIDTH), layer(8 * WIDTH, HEAD)])

    def forward(self, x):
        return self.layers[1]["linear"](F.relu(self.layers[0]["linear"](x)))


class SimCLR(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = Encoder(), Head()

    def forward(self, x):
        return self.head(self.encoder(x))


def nt_xent(a, b):
    z = F.normalize(torch.cat([a, b]))
    s = (z @ z.T / TEMPERATURE).masked_fill(torch.eye(len(z), dtype=torch.bool), float("-inf"))
    return F.cross_entropy(s, torch.arange(len(z)).roll(len(a)))


def build():
    model = SimCLR().double().train()
    for name, p in model.named_parameters():
        u = 2 * uniform(name, p.numel()) - 1
        if p.dim() == 1:
            value = (1.0 if name.endswith("weight") else 0.0) + 0.2 * u
        else:
            value = (6.0 / (p.numel() / p.shape[0])) ** 0.5 * u
        p.data.copy_(value.float().double().view_as(p))  # what f32 holds
    return model


out = {}
views = [uniform(f"view.{v}", ITEMS * 3 * SIDE * SIDE).view(ITEMS, 3, SIDE, SIDE) for v in range(2)]
for case in ("separate", "joint"):
    model, losses = build(), []
    for step in range(STEPS):
        if case == "joint":
            a, b = model(torch.cat(views)).chunk(2)
        else:
            a, b = model(views[0]), model(views[1])
        loss = nt_xent(a, b)
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        for name, p in model.named_parameters():
            if step == 0:
                out[f"{case}.gradient.{name}"] = p.grad.clone()
            p.data -= RATE * p.grad
    out[f"{case}.losses"] = torch.tensor(losses)
    if case == "joint":
        for name, buffer in model.named_buffers():
            if not name.endswith("num_batches_tracked"):
                out[f"{case}.buffer.{name}"] = buffer
    print(case, [round(l, 6) for l in losses])

write(pathlib.Path(__file__).with_suffix(".safetensors"), out)
