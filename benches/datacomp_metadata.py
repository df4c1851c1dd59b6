"""Writes the metadata of a web-scale image set without its images: what the DataComp "basic filter" works on.

  datacomp_metadata.py FOLDER [ROWS]        ROWS: 12,800,000 unless said otherwise, as DataComp's "small" pool

Shards of 256,000 rows in row groups of 64,000, zstd, as Parquet writers make them: uid, caption (1 to 24 words), language, width,
height, score. The schema image_text wants an image in every row: here it is the same single byte everywhere, which a dictionary
reduces to nothing and no query below reads. Needs NumPy and PyArrow.
"""
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHARD, GROUP = 256_000, 64_000
WORDS = pa.array([
    "a", "the", "red", "dog", "on", "beach", "photo", "of", "vintage", "car", "with", "new", "and", "for", "sale", "in", "house", "garden",
    "best", "summer", "dress", "woman", "black", "white", "wedding", "cake", "ideas", "by", "free", "vector", "background", "mountain",
    "lake", "sunset", "portrait", "stock", "image", "kitchen", "design", "modern", "wood", "table", "handmade", "gift", "2019", "print",
    "poster", "art", "street", "city", "night", "old", "map", "cat", "bird", "flower", "green", "tea", "cup", "coffee", "phone", "case"])
LANGUAGES = pa.array(["en", "de", "fr", "es", "ru", "zh", "ja", "pt", "it", "nl", "unknown"])
SHARES = np.array([0.42, 0.08, 0.07, 0.08, 0.09, 0.06, 0.06, 0.05, 0.03, 0.02, 0.04])


def captions(rng, rows):
    counts = np.minimum(rng.geometric(0.14, rows), 24)
    longest = int(counts.max())
    columns = []
    for at in range(longest):
        words = pc.take(WORDS, pa.array(rng.integers(0, len(WORDS), rows)))
        columns.append(pc.if_else(pa.array(counts > at), words, pa.scalar(None, pa.string())))
    return pc.binary_join_element_wise(*columns, " ", null_handling="skip")


def shard(number, rows, path):
    rng = np.random.default_rng(1000 + number)
    first = number * SHARD
    width = np.clip(np.exp(rng.normal(6.2, 0.8, rows)), 16, 12_000).astype(np.uint32)
    height = np.clip(width * np.exp(rng.normal(-0.1, 0.5, rows)), 16, 12_000).astype(np.uint32)
    language = pc.take(LANGUAGES, pa.array(rng.choice(len(SHARES), rows, p=SHARES)))
    ids = np.arange(first, first + rows, dtype=np.uint64)
    uid = pa.array([f"{int(n) * 0x9E3779B97F4A7C15 % (1 << 64):016x}{int(n):016x}" for n in ids])
    same = lambda value, kind: pa.array([value], kind).take(pa.array(np.zeros(rows, np.int8)))
    columns = [
        ("image", same(b"\0", pa.binary()), False), ("width", pa.array(width), False), ("height", pa.array(height), False),
        ("format", same("jpeg", pa.string()), False), ("caption", captions(rng, rows), True), ("label", pa.nulls(rows, pa.string()), True),
        ("split", pa.nulls(rows, pa.string()), True), ("source", same("web", pa.string()), False),
        ("image_bytes", same(1, pa.uint64()), False), ("image_xxh3", pa.array(ids), False), ("uid", uid, False),
        ("language", language, False), ("score", pa.array(rng.normal(0.22, 0.06, rows)), False)]
    schema = pa.schema([pa.field(name, column.type, nullable) for name, column, nullable in columns])
    table = pa.Table.from_arrays([column for _, column, _ in columns], schema=schema)
    pq.write_table(table, path, row_group_size=GROUP, compression="zstd", write_page_index=True, store_schema=False)


def main():
    folder, total = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12_800_000
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(-(-total // SHARD)):
        path = folder / f"{number:05}.parquet"
        if not path.exists():
            temporary = folder / f".{number:05}"
            shard(number, min(SHARD, total - number * SHARD), temporary)
            temporary.rename(path)


main()
