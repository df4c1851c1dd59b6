#!/usr/bin/env python3
"""Spoken digits, DIGIT_SPEAKER_INDEX.wav, as a folder that `diptych import` reads: the data of pipelines/cpc_digits.toml.

    scripts/digits.py free-spoken-digit-dataset/recordings data/recordings
    diptych import data/recordings data/digits

Writes metadata.csv (digit as `label`, speaker as `group`, `split`): recordings 0 to 4 of each digit and speaker are the
test, as the data set's authors have it. Copies of the training recordings, joined end to end in a drawn order, --joined of
one speaker in each file, have the split `joined`: to train on, since most recordings are shorter than half a second.
--validation leaves the test out and tests on recordings 5 to 9 instead: for choosing among recipes.
"""
import argparse
import array
import csv
import pathlib
import random
import shutil
import wave


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("recordings", type=pathlib.Path)
    arguments.add_argument("to", type=pathlib.Path, help="folder to write")
    arguments.add_argument("--joined", type=int, default=8, help="recordings in a joined one (default 8; 0: none)")
    arguments.add_argument("--copies", type=int, default=6, help="times that every recording is joined to others (default 6)")
    arguments.add_argument("--validation", action="store_true", help="without recordings 0 to 4, tested on 5 to 9")
    words = arguments.parse_args()
    first_tested = 5 if words.validation else 0
    rows, of_speakers = [], {}
    (words.to / "recordings").mkdir(parents=True, exist_ok=True)
    for path in sorted(words.recordings.glob("*_*_*.wav")):
        digit, speaker, index = path.stem.split("_")
        if int(index) < first_tested:
            continue
        split = "test" if int(index) < first_tested + 5 else "train"
        shutil.copyfile(path, words.to / "recordings" / path.name)
        rows.append({"file_name": f"recordings/{path.name}", "label": digit, "group": speaker, "split": split})
        if split == "train":
            of_speakers.setdefault(speaker, []).append(path)
    draws, levelled = random.Random(0), {}
    for speaker, paths in of_speakers.items():
        for copy in range(words.copies if words.joined else 0):
            draws.shuffle(paths)
            for first in range(0, len(paths) - words.joined + 1, words.joined):
                name = f"joined/{speaker}/{copy}_{first // words.joined:03}.wav"
                (words.to / name).parent.mkdir(parents=True, exist_ok=True)
                join(paths[first:first + words.joined], words.to / name, levelled)
                rows.append({"file_name": name, "label": "", "group": speaker, "split": "joined"})
    with open(words.to / "metadata.csv", "w", newline="") as table:
        writer = csv.DictWriter(table, ["file_name", "label", "group", "split"])
        writer.writeheader()
        writer.writerows(rows)
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "joined", "test")}
    print(f"{words.to}: {len(of_speakers)} speakers, " + ", ".join(f"{count} {split}" for split, count in counts.items()))


def join(paths, to, levelled):
    """Recordings end to end, each as loud as the others; `levelled` keeps them."""
    for path in paths:
        if path not in levelled:
            with wave.open(str(path)) as recording:
                levelled[path] = recording.getparams(), level(recording.readframes(recording.getnframes()))
    with wave.open(str(to), "wb") as joined:
        joined.setparams(levelled[paths[0]][0])
        joined.writeframes(b"".join(levelled[path][1] for path in paths))


def level(frames):
    """16-bit samples scaled to a root mean square of 2,000, or as near as their peak allows."""
    samples = array.array("h", frames)
    square = sum(sample * sample for sample in samples) / max(1, len(samples))
    peak = max(map(abs, samples), default=0)
    factor = min(2_000 / max(square ** 0.5, 1), 32_767 / max(peak, 1))
    return array.array("h", (round(sample * factor) for sample in samples)).tobytes()


if __name__ == "__main__":
    main()
