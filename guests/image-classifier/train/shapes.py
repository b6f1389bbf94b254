"""What is drawn: the classes, each as parts made of points, with no word of how they will look.

A shape lives in the square from -1 to 1, y downwards. Every curve is flattened to points, so that any
deformation is a function of points and every renderer draws the same thing.
"""

from dataclasses import dataclass

import numpy as np

TAU = 2 * np.pi


@dataclass
class Part:
    """One outline. `role` is what a palette colours: body, second, third, light, line or detail.

    A `line` stands on the background, a `detail` on another part.
    """

    points: np.ndarray
    role: str
    closed: bool = True


def poly(role, *points):
    return Part(np.array(points, float), role)


def line(role, *points):
    return Part(np.array(points, float), role, closed=False)


def ellipse(role, x, y, rx, ry=None, n=40):
    t = np.linspace(0, TAU, n, endpoint=False)
    return Part(np.stack([x + rx * np.cos(t), y + (ry or rx) * np.sin(t)], 1), role)


def arc_points(x, y, rx, ry, start, end, n=24):
    """Points of an arc; the angles are turns, clockwise from the right."""
    t = np.linspace(start * TAU, end * TAU, n)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


def arc(role, x, y, rx, ry, start, end):
    return Part(arc_points(x, y, rx, ry, start, end), role, closed=False)


def bezier(*control, n=16):
    """Points of a Bézier curve of any degree."""
    t = np.linspace(0, 1, n)[:, None]
    points = [np.tile(np.array(c, float), (n, 1)) for c in control]
    while len(points) > 1:
        points = [a * (1 - t) + b * t for a, b in zip(points, points[1:])]
    return points[0]


def join(role, *pieces, closed=True):
    return Part(np.concatenate([np.atleast_2d(np.array(p, float)) for p in pieces]), role, closed)


def rectangle(role, x0, y0, x1, y1, corner=0.0):
    if corner <= 0:
        return poly(role, (x0, y0), (x1, y0), (x1, y1), (x0, y1))
    c = corner
    return join(
        role,
        arc_points(x1 - c, y0 + c, c, c, -0.25, 0, 7),
        arc_points(x1 - c, y1 - c, c, c, 0, 0.25, 7),
        arc_points(x0 + c, y1 - c, c, c, 0.25, 0.5, 7),
        arc_points(x0 + c, y0 + c, c, c, 0.5, 0.75, 7),
    )


def bumps(role, circles, x, y, n=72):
    """The outline of a union of circles that all hold (x, y) or reach round it."""
    t = np.linspace(0, TAU, n, endpoint=False)
    direction = np.stack([np.cos(t), np.sin(t)], 1)
    reach = np.zeros(n)
    for cx, cy, radius in circles:
        along = direction @ np.array([cx - x, cy - y])
        under = radius**2 - ((cx - x) ** 2 + (cy - y) ** 2 - along**2)
        reach = np.maximum(reach, np.where(under > 0, along + np.sqrt(np.maximum(under, 0)), 0))
    return Part(np.array([x, y]) + direction * reach[:, None], role)


def turn(parts, turns):
    """The parts, turned about the middle."""
    c, s = np.cos(turns * TAU), np.sin(turns * TAU)
    for part in parts:
        part.points = part.points @ np.array([[c, s], [-s, c]])
    return parts


def spokes(count, inner, outer, phase=0.0):
    for i in range(count):
        a = (i / count + phase) * TAU
        yield a, np.array([np.cos(a), np.sin(a)]) * inner, np.array([np.cos(a), np.sin(a)]) * outer


def car(r):
    wheel, floor = r.uniform(0.2, 0.28), 0.4
    kind = r.integers(4)
    if kind == 0:
        top = r.uniform(-0.55, -0.4)
        body = poly("body", (-1, floor), (-1, 0), (-0.65, -0.05), (-0.4, top), (0.3, top), (0.6, -0.05), (1, 0.05), (1, floor))
        windows = [poly("light", (-0.5, -0.04), (-0.34, top + 0.1), (-0.1, top + 0.1), (-0.1, -0.04)),
                   poly("light", (0, -0.04), (0, top + 0.1), (0.24, top + 0.1), (0.45, -0.04))]
    elif kind == 1:
        body = join("body", (-1, floor), bezier((-1, floor), (-1, -0.1), (-0.6, -0.1)),
                    bezier((-0.55, -0.1), (-0.4, -0.75), (0.1, -0.65), (0.45, -0.55), (0.55, -0.05)),
                    bezier((0.6, -0.05), (1, 0), (1, floor)))
        windows = [join("light", (-0.4, -0.1), bezier((-0.38, -0.1), (-0.3, -0.5), (-0.02, -0.47)), (-0.02, -0.1)),
                   join("light", (0.08, -0.1), (0.08, -0.47), bezier((0.08, -0.47), (0.35, -0.45), (0.4, -0.1)))]
    elif kind == 2:
        body = poly("body", (-1, floor), (-1, -0.55), (0.5, -0.55), (0.75, -0.1), (1, 0), (1, floor))
        windows = [rectangle("light", x, -0.42, x + 0.32, -0.1) for x in (-0.85, -0.42)]
        windows.append(poly("light", (0.05, -0.42), (0.42, -0.42), (0.6, -0.1), (0.05, -0.1)))
    else:
        body = poly("body", (-1, floor), (-1, -0.05), (-0.15, -0.05), (-0.05, -0.55), (0.4, -0.55), (0.6, -0.05), (1, 0.02), (1, floor))
        windows = [poly("light", (0.02, -0.06), (0.08, -0.43), (0.34, -0.43), (0.47, -0.06))]
    parts = [body, *windows]
    for x in (-0.55, 0.55):
        parts.append(ellipse("second", x, floor + 0.02, wheel))
        if r.random() < 0.6:
            parts.append(ellipse("light", x, floor + 0.02, wheel * 0.45, n=16))
    if r.random() < 0.4:
        parts.append(ellipse("third", 0.93, 0.15, 0.06, n=10))
    if r.random() < 0.3:
        parts.append(line("detail", (-0.05, 0), (-0.05, floor - 0.03)))
    return mirrored(parts, r)


def mirrored(parts, r):
    if r.random() < 0.5:
        for part in parts:
            part.points[:, 0] *= -1
    return parts


def star(r):
    count = r.choice([5, 5, 5, 5, 4, 6, 7])
    inner = r.uniform(0.32, 0.52) if count > 4 else r.uniform(0.25, 0.4)
    points = []
    for i in range(2 * count):
        a, radius = (i / (2 * count) - 0.25) * TAU, inner if i % 2 else 1
        points.append((radius * np.cos(a), radius * np.sin(a)))
    if count == 5 and r.random() < 0.12:
        return turn([poly("body", *[points[i] for i in (0, 4, 8, 2, 6)])], r.uniform(-0.1, 0.1))
    return turn([poly("body", *points)], r.uniform(-0.1, 0.1))


def heart(r):
    if r.random() < 0.5:
        t = np.linspace(0, TAU, 60, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        points = np.stack([x / 17, -y / 17], 1)
    else:
        dip, wide = r.uniform(-0.55, -0.25), r.uniform(1.1, 1.5)
        right = bezier((0, dip), (0.2, -1.2), (wide, -1.1), (1.1, 0.1), (0, 1), n=28)
        points = np.concatenate([right, (right * [-1, 1])[::-1]])
    return turn([Part(points, "body")], r.uniform(-0.06, 0.06))


def cross(r):
    kind = r.integers(3)
    if kind == 0:
        w = r.uniform(0.15, 0.36)
        parts = [poly("body", (-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w),
                      (-1, w), (-1, -w), (-w, -w))]
    elif kind == 1:
        parts = [line("line", (0, -1), (0, 1)), line("line", (-1, 0), (1, 0))]
    else:
        w, y = r.uniform(0.1, 0.2), r.uniform(-0.5, -0.2)
        return [poly("body", (-w, -1), (w, -1), (w, y - w), (0.65, y - w), (0.65, y + w), (w, y + w), (w, 1),
                     (-w, 1), (-w, y + w), (-0.65, y + w), (-0.65, y - w), (-w, y - w))]
    return turn(parts, r.choice([0, 0.125]) + r.uniform(-0.02, 0.02))


def house(r):
    eaves, wide = r.uniform(-0.25, 0.05), r.uniform(0.65, 0.85)
    parts = []
    if r.random() < 0.5:
        x = r.choice([-0.5, 0.35])
        parts.append(rectangle("third", x, -0.85, x + 0.2, eaves))
    parts.append(rectangle("body", -wide, eaves, wide, 0.95))
    over = wide + r.uniform(0, 0.2)
    if r.random() < 0.75:
        parts.append(poly("second", (-over, eaves), (0, -1), (over, eaves)))
    else:
        parts.append(poly("second", (-over, eaves), (-over * 0.6, -0.8), (over * 0.6, -0.8), (over, eaves)))
    door = r.choice([-0.15, -0.5, 0.2])
    parts.append(rectangle("third", door, 0.4, door + 0.32, 0.95))
    places = [x for x in (-0.52, 0.24) if abs(x - door) > 0.3] if r.random() < 0.85 else []
    for x in places:
        y = eaves + 0.18
        parts.append(rectangle("light", x, y, x + 0.28, y + 0.28))
        if r.random() < 0.5:
            parts.append(line("detail", (x + 0.14, y), (x + 0.14, y + 0.28)))
            parts.append(line("detail", (x, y + 0.14), (x + 0.28, y + 0.14)))
    return parts


def tree(r):
    kind, w = r.integers(3), r.uniform(0.08, 0.17)
    trunk = poly("second", (-w, 0.1), (w, 0.1), (w * r.uniform(1, 1.7), 1), (-w * r.uniform(1, 1.7), 1))
    if kind == 0:
        crown = [ellipse("body", 0, -0.35, r.uniform(0.5, 0.75), r.uniform(0.5, 0.65))]
    elif kind == 1:
        count = r.integers(5, 9)
        around = [(a * 0.42, b * 0.38 - 0.35, r.uniform(0.26, 0.36)) for a, b in
                  ((np.cos(i / count * TAU), np.sin(i / count * TAU)) for i in range(count))]
        crown = [bumps("body", [(0, -0.35, 0.4), *around], 0, -0.35)]
    else:
        layers = r.integers(1, 4)
        crown = []
        for i in reversed(range(layers)):
            top, bottom = -1 + i * 0.4, -1 + (i + 1) * 1.6 / layers if layers < 3 else -0.3 + i * 0.45
            half = 0.4 + 0.3 * (i + 1) / layers
            crown.append(poly("body", (0, top), (half, bottom), (-half, bottom)))
        trunk.points[:2, 1] = 0.4
    parts = [trunk, *crown]
    if kind != 2 and r.random() < 0.3:
        parts += [ellipse("third", r.uniform(-0.35, 0.35), r.uniform(-0.65, -0.05), 0.07, n=10) for _ in range(4)]
    return parts


def flower(r):
    if r.random() < 0.2:
        parts = [line("line", (0, 0), (0, 1)), join("second", bezier((0, 0.8), (0.6, 0.6), (0.55, 0.1)), bezier((0.55, 0.1), (0.2, 0.3), (0, 0.8)))]
        parts.append(join("body", (-0.45, -0.9), (-0.2, -0.5), (0, -1), (0.2, -0.5), (0.45, -0.9),
                          bezier((0.45, -0.9), (0.6, 0.1), (0, 0.1)), bezier((0, 0.1), (-0.6, 0.1), (-0.45, -0.9))))
        return parts
    stem = r.random() < 0.65
    y, size = (-0.4, 0.58) if stem else (0, 1.0)
    parts = []
    if stem:
        bend = r.uniform(-0.2, 0.2)
        parts.append(join("line", bezier((0, y), (bend, 0.3), (0, 1)), closed=False))
        for side in (-1, 1)[: r.integers(0, 3)]:
            parts.append(join("second", bezier((0, 0.8), (side * 0.25, 0.3), (side * 0.6, 0.35)),
                              bezier((side * 0.6, 0.35), (side * 0.5, 0.8), (0, 0.8))))
    count, phase = r.integers(5, 10), r.random()
    reach, half = 0.58 * size, size * r.uniform(0.75, 1.15) * 1.7 / count
    for a, _, middle in spokes(count, 0, reach, phase):
        petal = ellipse("body", 0, 0, 0.42 * size, half, n=20).points
        c, s = np.cos(a), np.sin(a)
        parts.append(Part(petal @ np.array([[c, s], [-s, c]]) + middle + [0, y], "body"))
    parts.append(ellipse("third", 0, y, size * r.uniform(0.22, 0.34)))
    return parts


def fish(r):
    tall, kind = r.uniform(0.35, 0.55), r.integers(2)
    tail = [poly("second", (0.45, 0), (1, -0.5), (r.uniform(0.75, 1), 0), (1, 0.5)),
            join("second", (0.45, 0), bezier((0.45, 0), (0.7, -0.6), (1, -0.5)), (0.8, 0), bezier((1, 0.5), (0.7, 0.6), (0.45, 0)))][kind]
    parts = [tail]
    if r.random() < 0.6:
        parts.append(poly("second", (-0.35, -tall * 0.8), (0.05, -tall - 0.3), (0.25, -tall * 0.6)))
    if r.random() < 0.4:
        parts.append(poly("second", (-0.2, tall * 0.8), (0.15, tall + 0.25), (0.2, tall * 0.6)))
    if r.random() < 0.5:
        parts.append(ellipse("body", -0.2, 0, 0.8, tall))
    else:
        parts.append(join("body", bezier((-1, 0), (-0.5, -tall * 2), (0.6, 0)), bezier((0.6, 0), (-0.5, tall * 2), (-1, 0))))
    parts.append(ellipse("light", -0.65, -0.1, 0.09, n=14))
    if r.random() < 0.5:
        parts.append(arc("detail", -0.6, 0, 0.2, tall * 0.6, -0.17, 0.17))
    for i in range(r.integers(0, 4)):
        parts.append(arc("detail", -0.25 + i * 0.2, 0, 0.12, tall * 0.45, -0.2, 0.2))
    if r.random() < 0.3:
        parts.append(line("detail", (-0.95, 0.08), (-0.75, 0.12)))
    return mirrored(parts, r)


def sun(r):
    core, count, phase = r.uniform(0.4, 0.58), r.integers(7, 17), r.random()
    parts, kind, gap = [], r.integers(4), r.choice([0, 0.1])
    for i, (a, inner, outer) in enumerate(spokes(count, core + gap, 1, phase)):
        side = np.array([-np.sin(a), np.cos(a)]) * min(0.16, 1.4 / count)
        if kind < 2:
            parts.append(line("line", inner, outer * (0.85 if kind and i % 2 else 1)))
        elif kind == 2:
            parts.append(poly("second", inner - side, outer, inner + side))
        else:
            parts.append(join("line", bezier(inner, inner * 0.6 + outer * 0.4 + side * 1.5, inner * 0.4 + outer * 0.6 - side * 1.5, outer), closed=False))
    parts.append(ellipse("body", 0, 0, core))
    if r.random() < 0.25:
        parts += [ellipse("third", x, -0.1, 0.05, n=10) for x in (-0.16, 0.16)]
        parts.append(arc("detail", 0, 0.03, 0.22, 0.2, 0.05, 0.45))
    return parts


def moon(r):
    horn, deep = r.uniform(0.17, 0.24), r.uniform(0.3, 0.62)
    outer = arc_points(0, 0, 1, 1, horn, 1 - horn, 44)
    tip = outer[0]
    inner = bezier(outer[-1], (deep * -1.6 + 0.3, -tip[1] * 0.6), (deep * -1.6 + 0.3, tip[1] * 0.6), tip, n=30)
    parts = [join("body", outer, inner[1:-1])]
    if r.random() < 0.2:
        parts += [ellipse("second", -0.75, y, 0.09, n=12) for y in (-0.15, 0.2)]
    for part in parts:
        part.points[:, 0] += 0.25
    return mirrored(turn(parts, r.uniform(-0.1, 0.1)), r)


def cloud(r):
    flat = r.random() < 0.5
    circles = [(0, 0, 0.5)]
    for x in (-0.6, -0.25, 0.2, 0.62):
        circles.append((x + r.uniform(-0.08, 0.08), r.uniform(-0.3, 0) if abs(x) < 0.5 else 0.12, r.uniform(0.27, 0.42)))
    if not flat:
        circles += [(x, 0.25, r.uniform(0.25, 0.34)) for x in (-0.35, 0.1, 0.4)]
    part = bumps("body", circles, 0, 0.05)
    if flat:
        part.points[:, 1] = np.minimum(part.points[:, 1], 0.35)
    parts = [part]
    if r.random() < 0.2:
        parts += [line("line", (x, 0.65), (x - 0.12, 0.95)) for x in (-0.45, 0, 0.45)]
    return mirrored(parts, r)


def cup(r):
    top, bottom, low = r.uniform(0.5, 0.75), r.uniform(0.35, 0.7), r.uniform(0.6, 0.85)
    bottom = min(bottom, top)
    parts = []
    size = r.uniform(0.25, 0.36)
    parts.append(ellipse("body", top - 0.02, 0.1, size, size * 1.05))
    parts.append(ellipse("light", top - 0.02, 0.1, size * 0.6, size * 0.65))
    if r.random() < 0.35:
        parts.append(ellipse("second", 0, low + 0.08, 0.95, 0.13))
    if r.random() < 0.5:
        parts.append(poly("body", (-top, -0.4), (top, -0.4), (bottom, low), (-bottom, low)))
    else:
        parts.append(join("body", (-top, -0.4), (top, -0.4), bezier((top, -0.4), (top, low), (bottom * 0.6, low)),
                          bezier((-bottom * 0.6, low), (-top, low), (-top, -0.4))))
    if r.random() < 0.5:
        parts.append(ellipse("third", 0, -0.4, top, 0.13))
    if r.random() < 0.5:
        for x in (-0.3, 0.05, 0.4)[: r.integers(2, 4)]:
            parts.append(join("line", bezier((x, -0.6), (x + 0.2, -0.72), (x - 0.2, -0.85), (x, -1)), closed=False))
    return mirrored(parts, r)


def key(r):
    thick, kind, size = r.uniform(0.06, 0.13), r.integers(4), r.uniform(0.32, 0.42)
    parts = [rectangle("body", -0.4, -thick, 1, thick)]
    teeth, x, long = r.integers(1, 4), 0.9, r.uniform(0.2, 0.34)
    for i in range(teeth):
        parts.append(rectangle("body", x - 0.14, thick * 0.5, x, thick + long * (1 if i % 2 == 0 else 0.65)))
        x -= 0.22
    parts.insert(0, parts.pop()) if teeth > 2 else None
    if kind < 2:
        parts += [ellipse("body", -0.6, 0, size), ellipse("light", -0.6, 0, size * r.uniform(0.35, 0.65))]
    elif kind == 2:
        parts += [rectangle("body", -0.98, -size, -0.3, size, 0.12), ellipse("light", -0.72, 0, size * 0.4)]
    else:
        lobes = [(-0.75, 0, 0.24), (-0.52, -0.24, 0.24), (-0.52, 0.24, 0.24), (-0.55, 0, 0.2)]
        parts.append(bumps("body", lobes, -0.55, 0))
        parts += [ellipse("light", x, y, 0.1, n=14) for x, y, _ in lobes[:3]]
    return turn(mirrored(parts, r), r.random())


def light_bulb(r):
    radius, neck = r.uniform(0.5, 0.62), r.uniform(0.18, 0.25)
    y = -0.95 + radius
    left = arc_points(0, y, radius, radius, 0.375, 1.125, 40)
    glass = join("body", left, bezier(left[-1], (neck, 0.2), (neck, 0.4), n=8), bezier((-neck, 0.4), (-neck, 0.2), left[0], n=8))
    parts = [glass, rectangle("second", -neck, 0.4, neck, 0.8, 0.04)]
    parts += [line("detail", (-neck, h), (neck, h - 0.05)) for h in (0.55, 0.68)[: r.integers(0, 3)]]
    parts.append(join("second", arc_points(0, 0.8, neck * 0.6, 0.13, 0, 0.5, 12)))
    kind = r.integers(3)
    if kind == 0:
        parts.append(line("detail", (-0.1, 0.4), (-0.2, y), (-0.07, y + 0.12), (0, y), (0.07, y + 0.12), (0.2, y), (0.1, 0.4)))
    elif kind == 1:
        parts.append(arc("detail", 0, y, radius * 0.7, radius * 0.7, 0.55, 0.7))
    if r.random() < 0.3:
        for a, inner, outer in spokes(8, radius * 1.2, radius * 1.55, 0):
            if np.sin(a) < 0.5:
                parts.append(Part(np.array([inner, outer]) + [0, y], "line", False))
    return turn(parts, 0.5) if r.random() < 0.12 else parts


def clock(r):
    parts, small = [], 1.0
    if r.random() < 0.3:
        small = 0.8
        parts += [ellipse("second", x, -0.72, 0.27, 0.2) for x in (-0.55, 0.55)]
        parts += [poly("second", (x, 0.6), (x * 1.5, 1), (x * 1.25, 1), (x * 0.7, 0.7)) for x in (-0.5, 0.5)]
    if r.random() < 0.85:
        parts.append(ellipse("body", 0, 0, small))
        if r.random() < 0.6:
            parts.append(ellipse("light", 0, 0, small * r.uniform(0.78, 0.9)))
    else:
        parts.append(rectangle("body", -small, -small, small, small, 0.1))
    count = r.choice([12, 12, 4, 0])
    for i, (_, inner, outer) in enumerate(spokes(count, small * 0.66, small * 0.77, 0)):
        if i % 3 == 0 or r.random() < 0.9:
            parts.append(line("detail", inner, outer))
    hour, minute = r.random(), r.random()
    if abs((hour - minute + 0.5) % 1 - 0.5) < 0.1:
        minute += 0.3
    for at, long in ((hour, r.uniform(0.34, 0.45)), (minute, r.uniform(0.5, 0.65))):
        parts.append(line("detail", (0, 0), (small * long * np.cos(at * TAU), small * long * np.sin(at * TAU))))
    parts.append(ellipse("third", 0, 0, 0.06, n=10))
    return parts


def envelope(r):
    tall = r.uniform(0.55, 0.72)
    parts, dip = [], r.uniform(0, 0.25)
    if r.random() < 0.25:
        parts.append(poly("second", (-1, -tall * 0.6), (0, -tall - 0.35), (1, -tall * 0.6)))
        parts.append(rectangle("light", -0.75, -tall - 0.05, 0.75, 0.3))
        parts.append(poly("body", (-1, -tall * 0.6), (0, 0.2), (1, -tall * 0.6), (1, tall), (-1, tall)))
        parts.append(line("detail", (-1, tall), (0, 0.1), (1, tall)))
        return parts
    parts.append(rectangle("body", -1, -tall, 1, tall, r.choice([0, 0, 0.08])))
    if r.random() < 0.5:
        parts.append(poly("second", (-1, -tall), (0, dip), (1, -tall)))
    else:
        parts.append(line("detail", (-1, -tall), (0, dip), (1, -tall)))
    if r.random() < 0.5:
        parts.append(line("detail", (-1, tall), (-0.3, dip - 0.15)))
        parts.append(line("detail", (1, tall), (0.3, dip - 0.15)))
    if r.random() < 0.2:
        parts.append(ellipse("third", 0, dip, 0.14, n=16))
    return turn(parts, r.uniform(-0.04, 0.04))


def umbrella(r):
    scallops, drop = r.integers(3, 7), r.uniform(0.05, 0.16)
    hook = r.choice([-1, 1]) * 0.16
    parts = [join("line", (0, -0.1), (0, 0.78), arc_points(hook, 0.78, abs(hook), 0.18, *((0.5, 0.0) if hook > 0 else (0, 0.5)), 12), closed=False)]
    edge = []
    width = 2.0 / scallops
    for i in range(scallops):
        x = 1 - (i + 0.5) * width
        edge.append(arc_points(x, 0, width / 2, drop, 1, 0.5, 9))
    parts.append(join("body", arc_points(0, 0, 1, r.uniform(0.75, 0.95), 0.5, 1, 30), *edge))
    top = parts[-1].points[:, 1].min()
    if r.random() < 0.6:
        for i in range(1, scallops):
            x = 1 - i * width
            parts.append(join("detail", bezier((0, top), (x * 0.9, top * 0.7), (x, 0)), closed=False))
    if r.random() < 0.6:
        parts.append(line("line", (0, top), (0, top - 0.14)))
    return turn(parts, r.uniform(-0.1, 0.1))


def ladder(r):
    wide, narrow, count = r.uniform(0.32, 0.5), r.uniform(0.75, 1), r.integers(4, 8)
    top, parts = wide * narrow, []
    thick = r.uniform(0.05, 0.09) if r.random() < 0.5 else 0
    for i in range(count):
        y = -0.78 + 1.56 * i / (count - 1)
        half = wide + (top - wide) * (1 - y) / 2
        if thick:
            parts.append(rectangle("second", -half, y - thick * 0.8, half, y + thick * 0.8))
        else:
            parts.append(line("line", (-half, y), (half, y)))
    for side in (-1, 1):
        if thick:
            parts.append(poly("body", (side * top - thick, -1), (side * top + thick, -1), (side * wide + thick, 1), (side * wide - thick, 1)))
        else:
            parts.append(line("line", (side * top, -1), (side * wide, 1)))
    return turn(parts, r.uniform(-0.1, 0.1))


def sailboat(r):
    mast, deck = r.uniform(-0.15, 0.2), 0.4
    parts = [line("line", (mast, deck), (mast, -1))]
    boom = deck - r.uniform(0.08, 0.2)
    if r.random() < 0.5:
        parts.append(poly("second", (mast + 0.06, -0.9), (mast + 0.06, boom), (min(0.85, mast + 0.8), boom)))
    else:
        parts.append(join("second", bezier((mast + 0.06, -0.9), (mast + 0.8, -0.3), (0.8, boom)), (mast + 0.06, boom)))
    if r.random() < 0.7:
        parts.append(poly("third", (mast - 0.06, r.uniform(-0.8, -0.5)), (mast - 0.06, boom), (-0.75, boom)))
    if r.random() < 0.5:
        parts.append(poly("body", (-0.95, deck), (0.95, deck), (0.65, 0.8), (-0.6, 0.8)))
    else:
        parts.append(join("body", (-0.95, deck), (0.95, deck), bezier((0.95, deck), (0.7, 0.95), (0, 0.85)), bezier((0, 0.85), (-0.7, 0.95), (-0.95, deck))))
    if r.random() < 0.4:
        waves = np.stack([np.linspace(-1, 1, 40), 0.93 + 0.05 * np.sin(np.linspace(0, 8 * np.pi, 40))], 1)
        parts.append(Part(waves, "line", False))
    return mirrored(parts, r)


def mushroom(r):
    w, rim = r.uniform(0.2, 0.32), r.uniform(-0.05, 0.2)
    wide = w * r.uniform(1, 1.5)
    stem = join("second", (-w, rim - 0.05), bezier((-w, rim), (-w, 0.6), (-wide, 0.85)), bezier((-wide, 0.9), (0, 1.05), (wide, 0.9)), bezier((wide, 0.85), (w, 0.6), (w, rim)), (w, rim - 0.05))
    tall, low = r.uniform(0.8, 1.0) + rim, r.uniform(0, 0.22)
    cap = join("body", arc_points(0, rim, 1, tall, 0.5, 1, 30), bezier((1, rim), (0.6, rim + low), (0, rim + low)), bezier((0, rim + low), (-0.6, rim + low), (-1, rim)))
    parts = [stem, cap]
    if r.random() < 0.65:
        for x, y, size in ((-0.5, 0.35, 0.15), (0.05, 0.6, 0.17), (0.5, 0.3, 0.13), (-0.1, 0.2, 0.09))[: r.integers(2, 5)]:
            parts.append(ellipse("light", x + r.uniform(-0.06, 0.06), rim - y * tall, size, n=18))
    return parts


CLASSES = {
    "car": car, "clock": clock, "cloud": cloud, "cross": cross, "cup": cup, "envelope": envelope, "fish": fish,
    "flower": flower, "heart": heart, "house": house, "key": key, "ladder": ladder, "light bulb": light_bulb,
    "moon": moon, "mushroom": mushroom, "sailboat": sailboat, "star": star, "sun": sun, "tree": tree,
    "umbrella": umbrella,
}
LABELS = list(CLASSES)
