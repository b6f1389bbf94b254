"""How parts become operations: fills, outlines, hatching and the rest.

A finish takes (parts in pixels, palette, rng, size) and gives operations; `size` is the shorter side of
the picture in pixels.
"""

import numpy as np


def densify(points, closed, step):
    """The same outline with points at most `step` apart."""
    ends = np.concatenate([points[1:], points[:1]]) if closed else points[1:]
    pieces = []
    for a, b in zip(points, ends):
        n = max(1, int(np.ceil(np.linalg.norm(b - a) / step)))
        pieces.append(a + (b - a) * (np.arange(n) / n)[:, None])
    if not closed:
        pieces.append(points[-1:])
    return np.concatenate(pieces)


def shade(colour, by):
    """Lighter (by > 0) or darker."""
    colour = np.array(colour, float)
    return tuple(colour + (255 - colour) * by if by > 0 else colour * (1 + by))


def hatch(points, angle, spacing, r, jitter=0.0):
    """Segments that fill a polygon, parallel, even-odd."""
    c, s = np.cos(angle), np.sin(angle)
    p = points @ np.array([[c, -s], [s, c]])
    q = np.roll(p, -1, 0)
    back = np.array([[c, s], [-s, c]])
    segments = []
    for y in np.arange(p[:, 1].min() + spacing * 0.5, p[:, 1].max(), spacing):
        over = (p[:, 1] <= y) != (q[:, 1] <= y)
        a, b = p[over], q[over]
        xs = np.sort(a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0]))
        for x0, x1 in zip(xs[::2], xs[1::2]):
            ends = np.array([[x0, y], [x1, y]])
            segments.append((ends + r.normal(0, jitter, (2, 2)) if jitter else ends) @ back)
    return segments


def inside(points, polygon):
    """Which points lie in the polygon, even-odd."""
    p, q = polygon, np.roll(polygon, -1, 0)
    x, y = points[:, :1], points[:, 1:]
    over = (p[:, 1] <= y) != (q[:, 1] <= y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = p[:, 0] + (y - p[:, 1]) / (q[:, 1] - p[:, 1]) * (q[:, 0] - p[:, 0])
    return (over & (at > x)).sum(1) % 2 == 1


def thickness(r, size, low=0.015, high=0.055):
    return size * np.exp(r.uniform(np.log(low), np.log(high)))


def stroke(part, colour, width):
    return ("stroke", [(part.points, part.closed)], colour, width)


def flat(parts, pal, r, size):
    width = thickness(r, size, 0.02)
    return [("fill", [p.points], pal[p.role]) if p.closed else stroke(p, pal["ink" if p.role == "line" else "mark"], width) for p in parts]


def flat_outlined(parts, pal, r, size):
    width, ops = thickness(r, size), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal[p.role]))
        ops.append(stroke(p, pal["ink"], width))
    return ops


def outline(parts, pal, r, size):
    width, ops, covered, coloured = thickness(r, size), [], r.random() < 0.7, r.random() < 0.2
    for p in parts:
        if p.closed and covered:
            ops.append(("fill", [p.points], pal["paper"]))
        ops.append(stroke(p, pal[p.role] if coloured and p.role in ("body", "second", "third") else pal["ink"], width))
    return ops


def gradient(parts, pal, r, size):
    width, ops, edged = thickness(r, size), [], r.random() < 0.4
    a = r.uniform(0, 2 * np.pi)
    for p in parts:
        if p.closed:
            low, high = p.points.min(0), p.points.max(0)
            middle, reach = (low + high) / 2, (high - low).max() / 2 * np.array([np.cos(a), np.sin(a)])
            by = r.uniform(0.25, 0.6)
            paint = ("linear", middle - reach, middle + reach, shade(pal[p.role], by), shade(pal[p.role], -by))
            ops.append(("fill", [p.points], paint))
        if edged or not p.closed:
            ops.append(stroke(p, pal["ink" if edged or p.role == "line" else "mark"], width))
    return ops


def hatched(parts, pal, r, size):
    width, ops = thickness(r, size, 0.012, 0.03), []
    spacing, angle, twice = size * r.uniform(0.03, 0.07), r.uniform(0, np.pi), r.random() < 0.3
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal["paper"]))
            if p.role != "light":
                turn = {"body": 0, "second": 1.2, "third": 2.1}[p.role]
                lines = hatch(p.points, angle + turn, spacing, r, spacing * 0.1)
                if twice:
                    lines += hatch(p.points, angle + turn + 1.57, spacing, r)
                ops.append(("stroke", [(line, False) for line in lines], pal[p.role], width * 0.7))
        ops.append(stroke(p, pal["ink"], width))
    return ops


def silhouette(parts, pal, r, size):
    gap, ops = thickness(r, size, 0.015, 0.035), []
    split = r.random() < 0.75
    for i, p in enumerate(parts):
        if not p.closed:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "paper"], gap * (2 if p.role == "line" else 1)))
            continue
        if split and i:
            ops.append(stroke(p, pal["paper"], gap))
        ops.append(("fill", [p.points], pal["paper" if p.role == "light" else "ink"]))
    return ops


def shaken(points, r, amount):
    """A second try at the same line: shifted and bent."""
    t = np.linspace(0, 2 * np.pi, len(points))[:, None]
    bend = sum(r.normal(0, amount, 2) * np.sin(k * t + r.uniform(0, 6)) for k in (1, 2, 3))
    return points + bend + r.normal(0, amount, 2)


def sketch(parts, pal, r, size):
    width, ops = thickness(r, size, 0.008, 0.02), []
    amount = size * r.uniform(0.003, 0.01)
    filled = r.random() < 0.5
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal[p.role] if filled else pal["paper"]))
        for _ in range(r.integers(2, 4)):
            ops.append(("stroke", [(shaken(p.points, r, amount), p.closed)], pal["ink"], width))
    return ops


def scribble(parts, pal, r, size):
    width, ops = thickness(r, size, 0.012, 0.03), []
    spacing, angle = size * r.uniform(0.025, 0.05), r.uniform(0, np.pi)
    outlined = r.random() < 0.6
    for p in parts:
        if p.closed and p.role != "light":
            lines = hatch(p.points, angle + r.uniform(-0.2, 0.2), spacing, r, spacing * 0.3)
            zigzag = [line if i % 2 else line[::-1] for i, line in enumerate(lines)]
            if len(zigzag) > 1:
                ops.append(("stroke", [(np.concatenate(zigzag), False)] if len(zigzag) < 12 else [(np.concatenate(zigzag[i : i + 6]), False) for i in range(0, len(zigzag), 5)], pal[p.role], width))
        elif p.closed:
            ops.append(("fill", [p.points], pal["paper"]))
        if outlined or not p.closed or p.role == "light":
            ops.append(stroke(p, pal["ink"], width))
    return ops


def brush(parts, pal, r, size):
    width, ops, filled = thickness(r, size, 0.02, 0.055), [], r.random() < 0.4
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal[p.role] if filled else pal["paper"]))
        points = densify(p.points, p.closed, size * 0.04)
        if p.closed:
            points = np.concatenate([points, points[:1]])
        phase, k = r.uniform(0, 6), r.uniform(0.5, 2)
        for i in range(0, len(points) - 1, 2):
            swell = 1 + 0.6 * np.sin(phase + k * i / len(points) * 2 * np.pi)
            ops.append(("stroke", [(points[i : i + 3], False)], pal["ink"], width * max(swell, 0.35)))
    return ops


# Of the validation styles.


def dashed(parts, pal, r, size):
    width, step, ops = thickness(r, size, 0.018, 0.035), size * r.uniform(0.02, 0.035), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal["paper"]))
        points = densify(p.points, p.closed, step)
        ops.append(("stroke", [(points[i : i + 3], False) for i in range(0, len(points) - 1, 4)], pal["ink"], width))
    return ops


def cross_stitch(parts, pal, r, size):
    grid, ops = size * r.uniform(0.03, 0.045), []
    low, high = np.concatenate([p.points for p in parts]).min(0), np.concatenate([p.points for p in parts]).max(0)
    ys, xs = np.mgrid[low[1] : high[1] : grid, low[0] : high[0] : grid]
    spots = np.stack([xs.ravel(), ys.ravel()], 1)
    colour = np.full(len(spots), "", dtype="<U8")
    for p in parts:
        if p.closed:
            colour[inside(spots, p.points)] = p.role
        else:
            near = np.linalg.norm(spots[:, None] - densify(p.points, False, grid / 2)[None], axis=2).min(1) < grid * 0.6
            colour[near] = "ink"
    h = grid * 0.45
    for role in sorted(set(colour) - {""}):
        lines = []
        for x, y in spots[colour == role]:
            lines += [(np.array([[x - h, y - h], [x + h, y + h]]), False), (np.array([[x - h, y + h], [x + h, y - h]]), False)]
        ops.append(("stroke", lines, pal[role], grid * 0.33))
    return ops


# Of the held-out styles.


def stippled(parts, pal, r, size):
    dot, ops = size * r.uniform(0.007, 0.011), []

    def dots(points, scale):
        ring = np.stack([np.cos(np.arange(6) * 1.05), np.sin(np.arange(6) * 1.05)], 1)
        return [point + ring * dot * scale * r.uniform(0.7, 1.3) for point in points]

    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal["paper"]))
            low, high = p.points.min(0), p.points.max(0)
            dense = {"body": 0.09, "second": 0.2, "third": 0.3, "light": 0.01}[p.role]
            count = int(np.prod(high - low) * dense / dot**2 / 3)
            spots = r.uniform(low, high, (min(count, 1500), 2))
            ops.append(("fill", dots(spots[inside(spots, p.points)], 1), pal["ink"]))
        edge = densify(p.points, p.closed, dot * 2.1)
        ops.append(("fill", dots(edge + r.normal(0, dot * 0.5, edge.shape), 1.4), pal["ink"]))
    return ops


def radial(parts, pal, r, size):
    width, ops = thickness(r, size, 0.02, 0.04), []
    for p in parts:
        if p.closed:
            low, high = p.points.min(0), p.points.max(0)
            at = low + (high - low) * r.uniform(0.25, 0.5, 2)
            ops.append(("fill", [p.points], ("radial", at, (high - low).max() * 0.8, shade(pal[p.role], 0.6), shade(pal[p.role], -0.35))))
        else:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], width))
    return ops


def neon(parts, pal, r, size):
    width, ops = thickness(r, size, 0.022, 0.04), []
    for p in parts:
        colour = pal.get(p.role, pal["ink"]) if p.closed else pal["ink"]
        ops += [stroke(p, colour, width), stroke(p, shade(colour, 0.75), width * 0.4)]
    return ops


def two_tone(parts, pal, r, size):
    """A fill printed beside its outline."""
    width, shift, ops = thickness(r, size, 0.015, 0.03), r.normal(0, size * 0.015, 2), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points + shift], pal[p.role]))
    for p in parts:
        ops.append(stroke(p, pal["ink"], width))
    return ops


FINISHES = {f.__name__: f for f in (
    flat, flat_outlined, outline, gradient, hatched, silhouette, sketch, scribble, brush,
    dashed, cross_stitch, stippled, radial, neon, two_tone,
)}
