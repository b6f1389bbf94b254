"""How parts become operations: fills, outlines, hatching and the rest.

A finish takes (parts in pixels, palette, rng, size) and gives operations; `size` is the shorter side of
the picture in pixels.
"""

import numpy as np

from named import named


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


def patterned(parts, pal, r, size):
    """Fills with dots or bars of another colour in them."""
    width, ops, edged = thickness(r, size, 0.012, 0.035), [], r.random() < 0.7
    spacing, angle, dotted_ = size * r.uniform(0.04, 0.09), r.uniform(0, np.pi), r.random() < 0.5
    for p in parts:
        if p.closed:
            other = shade(pal[p.role], r.uniform(-0.5, 0.6)) if r.random() < 0.6 else pal["third" if p.role == "body" else "body"]
            ops.append(("fill", [p.points], pal[p.role]))
            lines = hatch(p.points, angle, spacing, r)
            if dotted_ and p.role != "light":
                ring = np.stack([np.cos(np.arange(8) * 0.785), np.sin(np.arange(8) * 0.785)], 1) * spacing * r.uniform(0.15, 0.3)
                ops.append(("fill", [a + ring for line in lines for a in densify(line, False, spacing)[1:-1]], other))
            elif p.role != "light":
                ops.append(("stroke", [(line, False) for line in lines], other, spacing * r.uniform(0.2, 0.6)))
        if edged or not p.closed:
            ops.append(stroke(p, pal["ink" if edged or p.role == "line" else "mark"], width))
    return ops


def shadowed(parts, pal, r, size):
    """Flat, over a hard shadow or a second, shifted print."""
    shift, colour = r.normal(0, size * 0.03, 2), shade(pal["ground"], r.uniform(-0.6, -0.2)) if r.random() < 0.6 else pal["third"]
    ops = [("fill", [p.points + shift], colour) if p.closed else ("stroke", [(p.points + shift, False)], colour, size * 0.03) for p in parts]
    return ops + (flat if r.random() < 0.5 else flat_outlined)(parts, pal, r, size)


def broken(parts, pal, r, size):
    """A line with gaps, now thick, now thin."""
    width, ops, filled = thickness(r, size, 0.015, 0.045), [], r.random() < 0.4
    for p in parts:
        if p.closed and (filled or r.random() < 0.5):
            ops.append(("fill", [p.points], pal[p.role] if filled else pal["paper"]))
        points = densify(p.points, p.closed, size * 0.03)
        at = 0
        while at < len(points) - 1:
            n = r.integers(3, 14)
            ops.append(("stroke", [(points[at : at + n], False)], pal["ink"], width * r.uniform(0.6, 1.4)))
            at += n - (r.random() < 0.6)
    return ops


def streaky(parts, pal, r, size):
    """Fills of strokes that differ in lightness."""
    spacing, angle, ops, edged = size * r.uniform(0.02, 0.06), r.uniform(0, np.pi), [], r.random() < 0.4
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal[p.role]))
            lines, strong = hatch(p.points, angle + r.normal(0, 0.3), spacing, r, spacing * 0.2), r.uniform(0.1, 0.35)
            for i in range(4):
                ops.append(("stroke", [(line, False) for line in lines[i::4]], shade(pal[p.role], r.uniform(-strong, strong)), spacing * 0.8))
        if edged or not p.closed:
            ops.append(stroke(p, pal["ink" if edged or p.role == "line" else "mark"], thickness(r, size, 0.012, 0.03)))
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


def doubled(parts, pal, r, size):
    """Two contours, one within the other."""
    width, ops = thickness(r, size, 0.012, 0.025), []
    for p in parts:
        ops += [stroke(p, pal["ink"], width * 3), stroke(p, pal["paper"], width * 1.3)]
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


# Of the second held-out styles.


def construction(parts, pal, r, size):
    """Thin lines that run on beyond the corners."""
    width, beyond, ops = thickness(r, size, 0.011, 0.02), r.uniform(0.06, 0.15), []
    for p in parts:
        ops.append(stroke(p, pal["ink"], width))
        if p.closed and len(p.points) <= 14:
            ends = np.roll(p.points, -1, 0)
            ops.append(("stroke", [(np.array([a - (b - a) * beyond, b + (b - a) * beyond]), False) for a, b in zip(p.points, ends)], pal["ink"], width * 0.6))
    return ops


def leaded(parts, pal, r, size):
    width, ops = size * r.uniform(0.03, 0.05), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], shade(pal[p.role], r.uniform(-0.25, 0.25))))
    return ops + [stroke(p, pal["ink"], width) for p in parts]


def linocut(parts, pal, r, size):
    """Black, with light cut into it."""
    spacing, angle, ops = size * r.uniform(0.04, 0.07), r.uniform(0, np.pi), []
    for p in parts:
        if not p.closed:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "paper"], size * 0.025))
            continue
        ops += [stroke(p, pal["paper"], size * 0.045), ("fill", [p.points], pal["paper" if p.role == "light" else "ink"])]
        cuts = [line[0] + (line[1] - line[0]) * np.array([[r.uniform(0.08, 0.2)], [r.uniform(0.35, 0.75)]]) for line in hatch(p.points, angle, spacing, r)]
        if p.role != "light":
            ops.append(("stroke", [(cut, False) for cut in cuts], pal["paper"], spacing * 0.28))
    return ops


def satin(parts, pal, r, size):
    """Thread beside thread."""
    spacing, angle, ops = size * r.uniform(0.018, 0.028), r.uniform(0, np.pi), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], shade(pal[p.role], -0.15)))
            lines = hatch(p.points, angle + r.uniform(-0.6, 0.6), spacing, r, spacing * 0.25)
            for i, by in enumerate((-0.15, 0.12, 0.3)):
                ops.append(("stroke", [(line, False) for line in lines[i::3]], shade(pal[p.role], by), spacing * 0.75))
        else:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], size * 0.025))
    return ops


def slatted(parts, pal, r, size):
    """Broad slats, each in another light."""
    spacing, angle, ops = size * r.uniform(0.05, 0.09), r.uniform(0, np.pi), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal[p.role]))
            ops += [("stroke", [(line, False)], shade(pal[p.role], r.uniform(-0.3, 0.3)), spacing * 0.9) for line in hatch(p.points, angle, spacing, r) if np.linalg.norm(line[1] - line[0]) > spacing * 1.5]
        else:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], size * 0.03))
    return ops


def bubbled(parts, pal, r, size):
    """A wide dark contour round a white one, bright inside."""
    wide, ops = size * r.uniform(0.06, 0.085), []
    ops += [stroke(p, pal["ink"], wide) for p in parts if p.role != "detail"]
    ops += [stroke(p, (250, 250, 250), wide * 0.5) for p in parts if p.role != "detail"]
    for p in parts:
        if p.closed:
            low, high = p.points.min(0), p.points.max(0)
            ops.append(("fill", [p.points], ("linear", low, np.array([low[0], high[1]]), shade(pal[p.role], 0.5), pal[p.role])))
        ops.append(stroke(p, pal["ink"], wide * (0.25 if p.closed or p.role == "line" else 0.35)))
    return ops


def plotted(parts, pal, r, size):
    """A beam's line, with a bright spot where it turns."""
    width, spots, ops = thickness(r, size, 0.012, 0.022), [], []
    ring = np.stack([np.cos(np.arange(8) * 0.785), np.sin(np.arange(8) * 0.785)], 1) * width
    for p in parts:
        ops.append(stroke(p, pal["ink"], width))
        spots += [point + ring for point in p.points[:: 1 if len(p.points) < 14 else 8]]
    return [*ops, ("fill", spots, shade(pal["ink"], 0.6))]


def piped(parts, pal, r, size):
    """Drop beside drop from a piping bag, each with a glint."""
    drop, ops = size * r.uniform(0.018, 0.028), []
    ring = np.stack([np.cos(np.arange(10) * 0.628), np.sin(np.arange(10) * 0.628)], 1)
    flooded = r.random() < 0.5
    for p in parts:
        if p.closed and flooded:
            ops.append(("fill", [p.points], shade(pal[p.role], -0.08)))
        at = densify(p.points, p.closed, drop * 1.4)
        ops.append(("fill", [a + ring * drop * r.uniform(0.9, 1.2) for a in at], pal["ink"]))
        ops.append(("fill", [a + ring * drop * 0.35 - drop * 0.35 for a in at], shade(pal["ink"], 0.7)))
    return ops


def stitched_on(parts, pal, r, size):
    """Cloth sewn on: a row of stitches inside the edge."""
    width, step, ops = size * r.uniform(0.012, 0.02), size * 0.022, []
    for p in parts:
        if not p.closed:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], width * 2))
            continue
        ops += [("fill", [p.points], pal[p.role]), stroke(p, shade(pal[p.role], -0.35), width * 0.8)]
        middle = p.points.mean(0)
        seam = densify(middle + (p.points - middle) * 0.88, True, step)
        ops.append(("stroke", [(seam[i : i + 3], False) for i in range(0, len(seam) - 2, 4)], pal["mark"], width))
    return ops


def daubed(parts, pal, r, size):
    """A fill of many short strokes, lighter on one side."""
    long, angle, ops = size * r.uniform(0.03, 0.06), r.uniform(0, np.pi), []
    for p in parts:
        if not p.closed:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], size * 0.03))
            continue
        ops.append(("fill", [p.points], pal[p.role]))
        low, high = p.points.min(0), p.points.max(0)
        spots = r.uniform(low, high, (int(np.prod(high - low) / long**2 * 1.2) + 4, 2))
        for x, y in spots[inside(spots, p.points)][:150]:
            a, by = angle + r.normal(0, 0.4), 0.5 * (0.5 - (y - low[1]) / max(high[1] - low[1], 1)) + r.normal(0, 0.15)
            way = np.array([np.cos(a), np.sin(a)]) * long * 0.5
            ops.append(("stroke", [(np.array([[x, y] - way, [x, y] + way]), False)], shade(pal[p.role], np.clip(by, -0.6, 0.6)), long * 0.4))
    return ops


FINISHES = named(
    flat, flat_outlined, outline, gradient, hatched, silhouette, sketch, scribble, brush,
    patterned, shadowed, broken, streaky, doubled, dashed, cross_stitch, stippled, radial, neon, two_tone,
    construction, leaded, linocut, satin, slatted, bubbled, plotted, piped, stitched_on, daubed,
)
