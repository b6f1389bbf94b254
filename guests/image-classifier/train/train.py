"""Trains on drawn pictures: `python train.py --train train.npz --validation validation.npz --to network.pt`.

Every process takes its share of each batch, on one thread; gradients are averaged. One seed and as many
processes: the same pictures give the same network on the same version of PyTorch and the same kind of processor.
"""

import argparse
import os
import tempfile
import time

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F

from network import SIDE, Network
from shapes import LABELS


def side_of(text):
    share, side = text.split(":")
    return float(share), int(side)


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
    some = lambda share: uniform(0, 1, 1, 1, 1) < share
    if side < SIDE:
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # What is bright grown, what is dark grown; another picture shining through, the same one beside itself.
    x = torch.where(some(0.08), F.max_pool2d(x, 3, 1, 1), x)
    x = torch.where(some(0.08), -F.max_pool2d(-x, 3, 1, 1), x)
    x = x + (x.roll(1, 0) - x) * uniform(0, 0.35, 1, 1, 1) * some(0.25)
    by = torch.randint(-side // 10, side // 10 + 1, (2,), generator=random).tolist()
    x = x + (x.roll(by, (2, 3)) - x) * uniform(0, 0.45, 1, 1, 1) * some(0.15)
    x = torch.where(some(0.35), convolved(x, random), x)
    order = torch.rand(n, 3, generator=random).argsort(1)
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    x = torch.where(some(0.2), 255 - x, x)
    x = torch.where(some(0.15), x.mean(1, keepdim=True).expand_as(x), x)
    x = torch.where(covered(uniform, x.shape[-1]) & some(0.2), uniform(0, 255, 3, 1, 1), x)
    x = (x - 128) * uniform(0.6, 1.3, 1, 1, 1) + 128 + uniform(-30, 30, 3, 1, 1)
    x = x + gratings(uniform, x.shape[-1])
    x = x + torch.randn(x.shape, generator=random) * uniform(-12, 10, 1, 1, 1).clamp(min=0)
    return x.clamp(0, 255).contiguous(memory_format=torch.channels_last)


def convolved(x, random):
    """Through a random convolution, in part: other colours and textures, the same outlines (RandConv, Xu et al. 2021)."""
    kernel = (1, 3, 5)[torch.randint(3, (1,), generator=random).item()]
    weight = torch.randn(3, 3, kernel, kernel, generator=random) / (3 * kernel * kernel) ** 0.5
    other = F.conv2d(x - 128, weight, padding=kernel // 2) + 128
    share = torch.rand(len(x), 1, 1, 1, generator=random)
    return (x * share + other * (1 - share)).clamp(0, 255)


def covered(uniform, side):
    """A rectangle of each picture, up to four tenths as wide and as tall."""
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    within = lambda at: (at - uniform(0, 1, 1, 1)).abs() < uniform(0.03, 0.2, 1, 1)
    return (within(x) & within(y))[:, None]


def gratings(uniform, side):
    """Faint parallel bands over a third of the pictures, soft or hard: the network shall look past them."""
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    a, cycles = uniform(0, 3.14159, 1, 1), uniform(3, 16, 1, 1)
    wave = (6.28319 * cycles * (x * a.cos() + y * a.sin()) + uniform(0, 6.28319, 1, 1)).sin()
    wave = (wave * uniform(1, 6, 1, 1)).clamp(-1, 1)[:, None]
    return wave * uniform(-24, 24, 3, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.33)


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


def load(*paths):
    files = [np.load(path) for path in paths]
    images, labels, styles = (np.concatenate([file[what] for file in files]) for what in ("images", "labels", "styles"))
    return torch.from_numpy(images), torch.from_numpy(labels), styles


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--train", required=True, nargs="+")
    options.add_argument("--validation", required=True)
    options.add_argument("--to", required=True)
    options.add_argument("--drawings", type=int, default=400_000, help="how many are looked at, repetitions counted")
    options.add_argument("--rate", type=float, default=6e-3)
    options.add_argument("--batch", type=int, default=126)
    options.add_argument("--resume", help="a network to start from")
    options.add_argument("--sides", type=side_of, nargs="+", default=[(0.5, 32), (1.0, 48)], help="until which share of the work pictures are how wide: 0.5:32 1:48")
    options.add_argument("--seed", type=int, default=6)
    options.add_argument("--processes", type=int, default=1)
    options = options.parse_args()
    images, labels, _ = load(*options.train)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (options, f"file://{os.path.join(folder, 'meeting')}", images.share_memory_(), labels), options.processes)


def work(rank, options, meeting, images, labels):
    """One process's share; the first one also keeps the mean, reports and saves."""
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.processes)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(options.seed)
    order_random = torch.Generator().manual_seed(options.seed)
    random = torch.Generator().manual_seed(options.seed * 1000 + rank)
    validation = load(options.validation)

    network = Network(len(LABELS)).to(memory_format=torch.channels_last)
    if options.resume:
        network.load_state_dict(torch.load(options.resume, weights_only=True))
    say = print if rank == 0 else lambda *_, **__: None
    say(sum(p.numel() for p in network.parameters()), "parameters in training", flush=True)
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
            order = torch.cat([order, torch.randperm(len(images), generator=order_random)])
        chosen, order = order[: options.batch][rank :: options.processes], order[options.batch :]
        side = next(side for share, side in options.sides if step <= share * steps)
        network.train()
        loss = F.cross_entropy(network(augmented(images[chosen], random, side)), labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        average([p.grad for p in network.parameters()], options.processes)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if rank == 0:
            mean.update_parameters(network)
        if step % 100 == 0:
            say(f"step {step} of {steps}: loss {total / 100:.4f}, {time.monotonic() - start:.0f} s, of this processor {time.process_time():.0f} s", flush=True)
            total = 0.0
        if rank == 0 and (step % 1000 == 0 or step == steps):
            report(mean.module, *validation)
            torch.save(mean.module.state_dict(), options.to)
    torch.distributed.destroy_process_group()


def average(gradients, processes):
    """Every process's gradients become the mean of all."""
    together = torch.cat([g.reshape(-1) for g in gradients])
    torch.distributed.all_reduce(together)
    together /= processes
    at = 0
    for g in gradients:
        g.copy_(together[at : at + g.numel()].view_as(g))
        at += g.numel()


if __name__ == "__main__":
    main()
