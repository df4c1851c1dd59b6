"""What the golden scripts of models share: numbers that follow from names, and the file they are compared with."""
import json, struct
import torch

MASK = (1 << 64) - 1


def uniform(name, *shape):
    """Numbers in [0, 1), multiples of 2^-24: FNV-1a of the name, then SplitMix64's finaliser per index."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    out = []
    for index in range(torch.Size(shape).numel()):
        h = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & MASK
        h = (h ^ h >> 27) * 0x94D049BB133111EB & MASK
        out.append(((h ^ h >> 31) >> 40) / (1 << 24))
    return torch.tensor(out, dtype=torch.float64).view(shape)


def write(path, tensors):
    """Writes tensors as f32 into a safetensors file."""
    header, blobs, offset = {}, [], 0
    for name, tensor in sorted(tensors.items()):
        blob = struct.pack(f"<{tensor.numel()}f", *tensor.flatten().tolist())
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    print(path.name, path.stat().st_size, "bytes")
