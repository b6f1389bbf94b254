"""Accuracy by style, and what is taken for what: `python evaluate.py network.pt held-out.npz`."""

import argparse

import numpy as np
import torch

from network import Network
from shapes import LABELS
from train import load, logits, report


def main():
    options = argparse.ArgumentParser()
    options.add_argument("network")
    options.add_argument("pictures")
    options = options.parse_args()
    torch.set_num_threads(1)
    network = Network(len(LABELS))
    network.load_state_dict(torch.load(options.network, weights_only=True))
    images, labels, styles = load(options.pictures)
    report(network, images, labels, styles)

    said = logits(network, images).argmax(1).numpy()
    labels = labels.numpy()
    print("by class:", ", ".join(f"{LABELS[i]} {(said[labels == i] == i).mean():.3f}" for i in range(len(LABELS))))
    table = np.zeros((len(LABELS), len(LABELS)), int)
    np.add.at(table, (labels, said), 1)
    np.fill_diagonal(table, 0)
    for spot in np.argsort(-table, axis=None)[:12]:
        truth, taken = divmod(int(spot), len(LABELS))
        print(f"{LABELS[truth]} taken for {LABELS[taken]}: {table[truth, taken]} of {(labels == truth).sum()}")


if __name__ == "__main__":
    main()
