"""Draws the sample images that a demonstration classifies, in held-out styles: `python samples.py samples`."""

import sys
from pathlib import Path

from styles import HELD_OUT, draw, seeded

SEED = 7
SAMPLES = [
    ("house.png", "sticker", "house", {}),
    ("sailboat.png", "sticker", "sailboat", {}),
    ("umbrella.jpg", "ballpoint on squared paper", "umbrella", {"quality": 85}),
    ("mushroom.webp", "watercolour", "mushroom", {"quality": 85}),
]


def main():
    folder = Path(sys.argv[1])
    for name, style, label, how in SAMPLES:
        draw(HELD_OUT[style], label, seeded(SEED, "held-out", style, label, 0), shape=(320, 240)).save(folder / name, **how)


if __name__ == "__main__":
    main()
