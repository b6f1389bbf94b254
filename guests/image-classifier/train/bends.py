"""Deformations: functions of a part's points in the unit square, the same for all parts of a drawing."""

import numpy as np

from finishes import densify
from named import named


def still(r):
    return lambda points, closed: points


def wobbly(r):
    """An unsteady hand: every line bends on its own."""
    amount = r.uniform(0.01, 0.035)

    def bend(points, closed):
        points = densify(points, closed, 0.12)
        t = np.linspace(0, 2 * np.pi, len(points), endpoint=not closed)[:, None]
        return points + sum(r.normal(0, amount, 2) * np.sin(k * t + r.uniform(0, 6.28, 2)) / np.sqrt(k) for k in (1, 2, 3, 5)) + r.normal(0, amount * 0.25, points.shape)

    return bend


def warped(r):
    """The whole drawing on a sheet of rubber."""
    waves = [(r.normal(0, 0.06, 2), r.uniform(-3, 3, 2), r.uniform(0, 6.28)) for _ in range(3)]

    def bend(points, closed):
        points = densify(points, closed, 0.15)
        return points + sum(a * np.sin(points @ k + phase)[:, None] for a, k, phase in waves)

    return bend


def tilted(r):
    """Seen from the side."""
    slope = r.uniform(-0.3, 0.3, 2)

    def bend(points, closed):
        points = densify(points, closed, 0.25)
        return points / (1 + points @ slope)[:, None]

    return bend


def both(r):
    first, then = warped(r), wobbly(r)
    return lambda points, closed: then(first(points, closed), closed)


# Of the validation styles.


def zigzag(r):
    def bend(points, closed):
        points = densify(points, closed, 0.1)
        return points + r.uniform(-0.035, 0.035, points.shape)

    return bend


# Of the held-out styles.


def barrel(r):
    k = r.uniform(-0.16, 0.2)

    def bend(points, closed):
        points = densify(points, closed, 0.12)
        return points * (1 + k * (points**2).sum(1, keepdims=True)) / (1 + k)

    return bend


def swirled(r):
    k = r.uniform(0.25, 0.5) * r.choice([-1, 1])

    def bend(points, closed):
        points = densify(points, closed, 0.12)
        a = k * np.clip(1.3 - np.linalg.norm(points, axis=1), 0, None)
        return np.stack([points[:, 0] * np.cos(a) - points[:, 1] * np.sin(a), points[:, 0] * np.sin(a) + points[:, 1] * np.cos(a)], 1)

    return bend


def scissored(r):
    """Cut with few straight cuts: curves lose most of their points."""
    def bend(points, closed):
        if not closed or len(points) <= 13:
            return points
        kept = [0]
        for i in range(1, len(points)):
            if np.linalg.norm(points[i] - points[kept[-1]]) > 0.2:
                kept.append(i)
        return points[kept] if len(kept) > 4 else points[:: max(1, len(points) // 6)]

    return bend


BENDS = named(still, wobbly, warped, tilted, both, zigzag, barrel, swirled, scissored)
