#!/usr/bin/env python3
"""Emoji in three art styles with their names, as a folder that `diptych import` reads: the data of pipelines/clip.toml.

    scripts/emoji.py data/emoji-pairs
    diptych import data/emoji-pairs data/emoji

Fetches four npm packages by `npm pack` (some 200 MB) and writes 19 MB: PNGs of 64 pixels on white and metadata.jsonl.
Splits, by concept in code point order: every eighth is held out; the others are trained on in two styles (train). In the
third style, which is never trained on, stand the held-out concepts (held_out) and as many known ones (known).
A caption of train holds all names of its picture, with | in between; those of the others are one name. The column
`keywords` has the English words that Unicode's CLDR lists for it, with | in between (pipelines/clip_emoji.toml).
Needs npm and Python with Pillow. Exit code 3 where the packages are out of reach.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

try:
    from PIL import Image
except ModuleNotFoundError:
    sys.exit("this script draws with Pillow, which this Python lacks: pip install pillow")

STYLES = {"google": "emoji-datasource-google@16.0.0", "twitter": "emoji-datasource-twitter@16.0.0"}
THIRD = ("fluent", "@lobehub/fluent-emoji-3d@1.1.0")
WORDS = ("emojibase", "emojibase-data@17.0.0")
SIDE = 64


def fetch(package, folder):
    """Unpacks a package; its content stands in `package/`."""
    done = folder / "package"
    if done.is_dir():
        return done
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        print(f"fetching {package}", file=sys.stderr)
        packed = subprocess.run(["npm", "pack", "--silent", package], cwd=scratch, stdout=subprocess.PIPE, text=True)
        archives = list(pathlib.Path(scratch).glob("*.tgz"))
        if packed.returncode != 0 or not archives:
            sys.exit(3)
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
        shutil.move(pathlib.Path(scratch) / "package", done)
    return done


def on_white(path):
    image = Image.open(path).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return ground.convert("RGB")


def names(emoji):
    """The official name first, then the short ones; one that is both is drawn twice as often."""
    return [emoji["name"].lower()] + [name.replace("_", " ").replace("-", " ") for name in emoji["short_names"]]


def keywords(package):
    """CLDR's name and keywords by code point sequence."""
    found = {}
    for emoji in json.loads((package / "en" / "data.json").read_text(encoding="utf-8")):
        for each in [emoji, *emoji.get("skins", [])]:
            found[plain(each["hexcode"].lower())] = [each["label"].lower(), *emoji.get("tags", [])]
    return found


def plain(code):
    """A code point sequence without the mark that asks for a coloured picture."""
    return code.replace("-fe0f", "")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("to", type=pathlib.Path, help="folder to write")
    arguments.add_argument("--packages", type=pathlib.Path, help="where packages are kept (default: TO-packages)")
    words = arguments.parse_args()
    kept = words.packages or words.to.with_name(words.to.name + "-packages")
    roots = {style: fetch(package, kept / style) for style, package in STYLES.items()}
    third = fetch(THIRD[1], kept / THIRD[0])
    words_of = keywords(fetch(WORDS[1], kept / WORDS[0]))
    drawn = {plain(path.stem): path for path in third.glob("assets/*.webp")}
    concepts = []
    for emoji in sorted(json.loads((roots["google"] / "emoji.json").read_text()), key=lambda emoji: emoji["unified"]):
        code = emoji["image"].removesuffix(".png")
        pictures = {style: root / "img" / style / "64" / emoji["image"] for style, root in roots.items()}
        pictures[THIRD[0]] = drawn.get(plain(code))
        if emoji["name"] and all(path and path.exists() for path in pictures.values()):
            concepts.append((code, names(emoji), emoji["category"], pictures))
    words.to.mkdir(parents=True, exist_ok=True)
    rows = []
    for at, (code, texts, category, pictures) in enumerate(concepts):
        parts = [(style, "train", "|".join(texts)) for style in STYLES] if at % 8 else []
        if at % 8 < 2:
            parts.append((THIRD[0], "known" if at % 8 else "held_out", texts[0]))
        for style, split, caption in parts:
            file = pathlib.Path(split) / style / f"{code}.png"
            (words.to / file.parent).mkdir(parents=True, exist_ok=True)
            on_white(pictures[style]).save(words.to / file)
            rows.append({"file_name": str(file), "caption": caption, "label": category, "split": split,
                         "style": style, "concept": code, "keywords": "|".join(words_of.get(plain(code.lower()), []))})
    with open(words.to / "metadata.jsonl", "w") as table:
        table.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "known", "held_out")}
    print(f"{words.to}: {len(concepts)} concepts, " + ", ".join(f"{n} {split}" for split, n in counts.items()))


if __name__ == "__main__":
    main()
