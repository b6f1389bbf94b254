"""Draws a split's pictures into one .npz: `python draw.py train --each 2000 --to train.npz`."""

import argparse
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from shapes import LABELS
from styles import SPLITS, check_split, draw, seeded

SIDE = 64


def fitted(image):
    """As the classifier sees it: the whole picture, triangle filter."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def batch(job):
    seed, split, style, label, first, last = job
    drawn = [draw(SPLITS[split][style], label, seeded(seed, split, style, label, i)) for i in range(first, last)]
    return np.stack([fitted(image) for image in drawn])


def main():
    options = argparse.ArgumentParser()
    options.add_argument("split", choices=list(SPLITS))
    options.add_argument("--each", type=int, required=True, help="pictures of a class in a style")
    options.add_argument("--to", required=True)
    options.add_argument("--seed", type=int, default=6)
    options.add_argument("--processes", type=int, default=1)
    options = options.parse_args()
    check_split()
    jobs = [
        (options.seed, options.split, style, label, first, min(first + 50, options.each))
        for style in SPLITS[options.split]
        for label in LABELS
        for first in range(0, options.each, 50)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        images = list(pool.map(batch, jobs))
    counts = [len(i) for i in images]
    np.savez(
        options.to,
        images=np.concatenate(images),
        labels=np.repeat([LABELS.index(job[3]) for job in jobs], counts),
        styles=np.repeat([job[2] for job in jobs], counts),
    )


if __name__ == "__main__":
    main()
