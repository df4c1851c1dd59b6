#!/usr/bin/env python3
"""Joins the spoken digits of each speaker into one recording of minutes, for the second part of benches/series_windows.sh.

Usage: long_recordings.py RECORDINGS TO, where RECORDINGS holds DIGIT_SPEAKER_INDEX.wav. Takes 0 to 4 of each digit and speaker, the
customary test set, stay out. Writes SPEAKER.wav and metadata.csv; `diptych import TO SHARDS` reads them.
"""
import csv
import sys
import wave
from collections import defaultdict
from pathlib import Path

recordings, to = map(Path, sys.argv[1:])
to.mkdir(parents=True, exist_ok=True)
takes = defaultdict(list)
for path in recordings.glob("*_*_*.wav"):
    digit, speaker, index = path.stem.split("_")
    if int(index) >= 5:
        takes[speaker].append((int(index), digit, path))
with open(to / "metadata.csv", "w", newline="") as table:
    rows = csv.writer(table)
    rows.writerow(["file_name", "group", "split"])
    for speaker, of_speaker in sorted(takes.items()):
        with wave.open(str(to / f"{speaker}.wav"), "wb") as joined:
            for number, (_, _, path) in enumerate(sorted(of_speaker)):
                with wave.open(str(path)) as take:
                    if number == 0:
                        joined.setparams(take.getparams())
                    joined.writeframes(take.readframes(take.getnframes()))
        rows.writerow([f"{speaker}.wav", speaker, "train"])
