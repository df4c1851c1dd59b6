"""SimCLR steps in PyTorch on random pixels that already lie on the GPU: what its kernels alone reach, without a loader.

ResNet-18 with CIFAR stem at 32 px (batch 512) and ResNet-50 at 224 px (batch 128), projection 128, NT-Xent, SGD with momentum,
f32 with and without TF32, and bf16 autocast; two views in two forwards. Prints JSON lines; one image = two views.
"""
import json
import time

import torch
import torch.nn.functional as F
import torchvision


def build(depth):
    net = getattr(torchvision.models, f"resnet{depth}")()
    if depth == 18:
        net.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = torch.nn.Identity()
    width = net.fc.in_features
    net.fc = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 128))
    return net.cuda().to(memory_format=torch.channels_last)


def nt_xent(first, second, temperature=0.1):
    z = F.normalize(torch.cat([first, second]).float())
    scores = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return F.cross_entropy(scores, torch.arange(len(z), device=z.device).roll(len(first)))


def measure(depth, side, batch, tf32, bf16, steps=30):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    net = build(depth)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    pixels = torch.randint(0, 256, (batch, 2, 3, side, side), dtype=torch.uint8, device="cuda")

    def step():
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            views = [net((pixels[:, v].float() / 255).to(memory_format=torch.channels_last)) for v in (0, 1)]
        loss = nt_xent(*views)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for _ in range(8):
        step()
    torch.cuda.synchronize()
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(steps // 3):
            step()
        torch.cuda.synchronize()
        rates.append(batch * (steps // 3) / (time.perf_counter() - start))
    kind = "bf16" if bf16 else "tf32" if tf32 else "f32"
    print(json.dumps({"torch": torch.__version__, "model": f"resnet{depth}-{side}px", "kind": kind, "samples_per_second": [round(r, 1) for r in sorted(rates)]}), flush=True)


for depth, side, batch in ((18, 32, 512), (50, 224, 128)):
    for tf32, bf16 in ((False, False), (True, False), (True, True)):
        measure(depth, side, batch, tf32, bf16)
