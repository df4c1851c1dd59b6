"""Writes tone.ogg and tone.mp3: half a second of 440 Hz at half of the full scale, one channel at 16 kHz.

Needs soundfile (libsndfile 1.1 or newer): python tests/golden/tones.py
"""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
FOLDER = Path(__file__).parent

seconds = np.arange(RATE // 2) / RATE
tone = 0.5 * np.sin(2 * np.pi * 440 * seconds)
soundfile.write(FOLDER / "tone.ogg", tone, RATE, format="OGG", subtype="VORBIS")
soundfile.write(FOLDER / "tone.mp3", tone, RATE, format="MP3", subtype="MPEG_LAYER_III")
