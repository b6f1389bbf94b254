"""Trains on drawn pictures: `python train.py --train train.npz --validation validation.npz --to network.pt`.

One thread and one seed: the same pictures give the same network on the same version of PyTorch and the
same kind of processor.
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F

from network import SIDE, Network
from shapes import LABELS


# Small pictures first: a quarter of the work for the most of the learning. Until which share, and how wide.
PHASES = [(0.45, 32), (0.75, 48), (1.0, SIDE)]
# The same for a network that has learnt before.
LATER = [(0.65, 48), (1.0, SIDE)]


def augmented(images, random, side):
    """Float pixels of a batch, `side` wide, each moved and recoloured anew."""
    n = len(images)
    uniform = lambda low, high, *shape: torch.rand(n, *shape, generator=random) * (high - low) + low
    x = images.permute(0, 3, 1, 2).float()
    a, scale = uniform(-0.12, 0.12), uniform(0.88, 1.15)
    stretch, flip = uniform(0.92, 1.08), (uniform(0, 1) < 0.5).float() * 2 - 1
    turn = torch.stack([
        torch.stack([a.cos() * scale * flip, -a.sin() * scale * stretch, uniform(-0.08, 0.08)], 1),
        torch.stack([a.sin() * scale * flip, a.cos() * scale * stretch, uniform(-0.08, 0.08)], 1),
    ], 1)
    if side < SIDE:
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    order = torch.rand(n, 3, generator=random).argsort(1)
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    x = torch.where(uniform(0, 1, 1, 1, 1) < 0.15, 255 - x, x)
    x = torch.where(uniform(0, 1, 1, 1, 1) < 0.15, x.mean(1, keepdim=True).expand_as(x), x)
    x = (x - 128) * uniform(0.6, 1.3, 1, 1, 1) + 128 + uniform(-30, 30, 3, 1, 1)
    x = x + torch.randn(x.shape, generator=random) * uniform(-12, 10, 1, 1, 1).clamp(min=0)
    return x.clamp(0, 255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def logits(network, images):
    network.eval()
    batches = [network(images[i : i + 250].permute(0, 3, 1, 2).float()) for i in range(0, len(images), 250)]
    return torch.cat(batches)


def report(network, images, labels, styles):
    """The share that is right, by style and overall."""
    right = (logits(network, images).argmax(1) == labels).numpy()
    for style in dict.fromkeys(styles):
        print(f"  {style}: {right[styles == style].mean():.4f} of {(styles == style).sum()}")
    print(f"  overall: {right.mean():.4f} of {len(right)}", flush=True)


def load(path):
    file = np.load(path)
    return torch.from_numpy(file["images"]), torch.from_numpy(file["labels"]), file["styles"]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--train", required=True)
    options.add_argument("--validation", required=True)
    options.add_argument("--to", required=True)
    options.add_argument("--drawings", type=int, default=135_000, help="how many are looked at, repetitions counted")
    options.add_argument("--rate", type=float, default=4e-3)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--resume", help="a network to start from")
    options.add_argument("--seed", type=int, default=6)
    options = options.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    random = torch.Generator().manual_seed(options.seed)
    images, labels, _ = load(options.train)
    validation = load(options.validation)

    network = Network(len(LABELS)).to(memory_format=torch.channels_last)
    if options.resume:
        network.load_state_dict(torch.load(options.resume, weights_only=True))
    phases = LATER if options.resume else PHASES
    print(sum(p.numel() for p in network.parameters()), "parameters in training", flush=True)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0}], options.rate)
    steps = options.drawings // options.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, steps, pct_start=0.1, div_factor=5)
    # The mean of the last weights judges better than the last ones.
    mean = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True)

    start, total, order = time.monotonic(), 0.0, torch.empty(0, dtype=torch.long)
    for step in range(1, steps + 1):
        if len(order) < options.batch:
            order = torch.cat([order, torch.randperm(len(images), generator=random)])
        chosen, order = order[: options.batch], order[options.batch :]
        side = next(side for share, side in phases if step <= share * steps)
        network.train()
        loss = F.cross_entropy(network(augmented(images[chosen], random, side)), labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        mean.update_parameters(network)
        total += loss.item()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {total / 100:.4f}, {time.monotonic() - start:.0f} s, of the processor {time.process_time():.0f} s", flush=True)
            total = 0.0
        if step % 500 == 0 or step == steps:
            report(mean.module, *validation)
            torch.save(mean.module.state_dict(), options.to)


if __name__ == "__main__":
    main()
