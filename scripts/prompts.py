#!/usr/bin/env python3
"""Telephone prompts in five voices and languages, as a folder that `diptych import` reads: data for pipelines/cpc.toml.

    scripts/prompts.py data/voices
    diptych import data/voices data/prompts

Fetches five Debian packages by `apt-get download` (no root; `apt-get update` once) and writes 2,644 WAV at 8 kHz, two hours, 121 MB:
metadata.csv with the voice as `group`, the kind of prompt as `label` (digits, letters, phonetic, sentences), the prompt's own
name as `prompt`, which is the same in all voices, and `split`: every fifth prompt, in every voice, is the test.
Needs apt-get and dpkg-deb. Exit code 3 where the packages are out of reach.
"""
import argparse
import csv
import pathlib
import shutil
import subprocess
import sys
import tempfile

PACKAGES = [f"asterisk-core-sounds-{language}-wav" for language in ("en", "es", "fr", "it", "ru")]
KINDS = ("digits", "letters", "phonetic")
# Half a second: the shortest prompts are a click long.
LEAST_BYTES = 8_000


def fetch(package, folder):
    """Unpacks a package and gives the folders of its voices."""
    if not (folder / "usr").is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            print(f"fetching {package}", file=sys.stderr)
            got = subprocess.run(["apt-get", "-qq", "download", package], cwd=scratch, stderr=subprocess.DEVNULL)
            archives = list(pathlib.Path(scratch).glob("*.deb"))
            if got.returncode != 0 or not archives:
                print(f"{package} is out of reach; `apt-get update` may help", file=sys.stderr)
                sys.exit(3)
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg-deb", "-x", archives[0], folder], check=True)
    return [voice for voice in (folder / "usr/share/asterisk/sounds").iterdir() if voice.is_dir()]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("to", type=pathlib.Path, help="folder to write")
    arguments.add_argument("--packages", type=pathlib.Path, help="where packages are kept (default: TO-packages)")
    words = arguments.parse_args()
    kept = words.packages or words.to.with_name(words.to.name + "-packages")
    voices = sorted(voice for package in PACKAGES for voice in fetch(package, kept / package))
    files = [(voice, path) for voice in voices for path in sorted(voice.rglob("*.wav"))
             if path.relative_to(voice).parts[0] != "silence" and path.stat().st_size >= LEAST_BYTES]
    prompts = sorted({str(path.relative_to(voice).with_suffix("")) for voice, path in files})
    tested = set(prompts[::5])
    words.to.mkdir(parents=True, exist_ok=True)
    rows = []
    for voice, path in files:
        within = path.relative_to(voice)
        prompt, file = str(within.with_suffix("")), pathlib.Path(voice.name) / within
        (words.to / file.parent).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, words.to / file)
        kind = within.parts[0] if within.parts[0] in KINDS else "sentences"
        rows.append({"file_name": str(file), "label": kind, "group": voice.name, "prompt": prompt,
                     "split": "test" if prompt in tested else "train"})
    with open(words.to / "metadata.csv", "w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    held_out = sum(row["split"] == "test" for row in rows)
    print(f"{words.to}: {len(rows)} recordings of {len(prompts)} prompts in {len(voices)} voices, {held_out} of them to test")


if __name__ == "__main__":
    main()
