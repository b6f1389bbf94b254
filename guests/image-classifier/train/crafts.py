"""Kinds of seven more styles that training sees."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from finishes import densify, hatch, inside, shade, stroke, thickness
from grounds import cloudy, plain
from named import named
from palettes import complete, hsv

SQUARE = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])

# Finishes.


def tesserae(parts, pal, r, size):
    """Small stones: in rows inside, and a dark row along every edge."""
    step, ops = size * r.uniform(0.034, 0.045), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], shade(pal["ground"], -0.35)))
            low, high = p.points.min(0), p.points.max(0)
            at = np.stack(np.meshgrid(*(np.arange(a, b, step) for a, b in zip(low, high))), -1).reshape(-1, 2)
            at = at[inside(at, p.points)] if len(at) else at
            ops += [("fill", [a + SQUARE * step * r.uniform(0.72, 0.9)], shade(pal[p.role], r.uniform(-0.2, 0.2))) for a in at]
        for a in densify(p.points, p.closed, step):
            ops.append(("fill", [a + SQUARE * step * r.uniform(0.7, 0.9)], shade(pal["ink"], r.uniform(-0.1, 0.15))))
    return ops


def scratched(parts, pal, r, size):
    """Many fine scratches along every line, and scraped fills."""
    fine, ops = size * r.uniform(0.008, 0.013), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal["ground"]))
            if p.role != "body" or r.random() < 0.5:
                lines = hatch(p.points, r.uniform(0, np.pi), size * r.uniform(0.025, 0.04), r, size * 0.006)
                ops += [("stroke", [(line, False)], shade(pal[p.role], r.uniform(-0.2, 0.2)), fine) for line in lines]
        for _ in range(r.integers(2, 5)):
            points = densify(p.points, p.closed, size * 0.06)
            ops.append(("stroke", [(points + r.normal(0, size * 0.005, points.shape), p.closed)], shade(pal["mark"], r.uniform(-0.1, 0.3)), fine))
    return ops


def glossy(parts, pal, r, size):
    """Light above, dark below, and a thin bright rim."""
    width, ops = thickness(r, size, 0.012, 0.025), []
    low = min(p.points[:, 1].min() for p in parts)
    high = max(p.points[:, 1].max() for p in parts)
    for p in parts:
        if p.closed:
            ops += [("fill", [p.points], ("linear", (0, low), (0, high), shade(pal[p.role], 0.55), shade(pal[p.role], -0.3))), stroke(p, shade(pal[p.role], -0.5), width)]
        else:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], width * 2))
    return ops


def cobalt(parts, pal, r, size):
    """A thin wash, a deeper wash to one side, a brush's outline over both."""
    width, ops = thickness(r, size, 0.014, 0.026), []
    for p in parts:
        if p.closed:
            low, high = p.points[:, 0].min(), p.points[:, 0].max()
            ops.append(("fill", [p.points], ("linear", (low, 0), (high, 0), shade(pal[p.role], r.uniform(0.45, 0.8)), shade(pal[p.role], r.uniform(0, 0.3)))))
        ops += [("stroke", [(p.points + r.normal(0, width * 0.2, 2), p.closed)], pal["ink"], width * by) for by in (0.7, 1.0)]
    return ops


def fingered(parts, pal, r, size):
    """Lines wiped with a finger; some faces are wiped clean."""
    wide, ops = size * r.uniform(0.03, 0.05), []
    for p in parts:
        if p.closed and p.role == "second" and r.random() < 0.4:
            ops.append(("fill", [p.points], pal["ink"]))
        ops.append(stroke(p, pal["ink"], wide))
    return ops


def faceted(parts, pal, r, size):
    """Triangles from the middle of every part, each in another light."""
    ops = []
    for p in parts:
        if not p.closed:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], size * 0.03))
            continue
        middle = p.points.mean(0) + r.normal(0, size * 0.03, 2)
        ops.append(("fill", [p.points], pal[p.role]))
        points = densify(p.points, True, size * 0.12)
        if not inside(middle[None], p.points)[0]:
            continue
        every = max(1, len(points) // int(r.integers(7, 13)))
        cuts = list(range(0, len(points), every)) + [len(points)]
        for a, b in zip(cuts, cuts[1:]):
            edge = points[np.arange(a, b + 1) % len(points)]
            ops.append(("fill", [np.concatenate([edge, middle[None]])], shade(pal[p.role], r.uniform(-0.35, 0.35))))
    return ops


def extruded(parts, pal, r, size):
    """Blocks: every part drawn out to one side in a darker shade."""
    by, steps, ops = np.array([r.choice([-1, 1]), 1]) * size * r.uniform(0.05, 0.09), 8, []
    for i in range(steps, 0, -1):
        for p in parts:
            dark, points = shade(pal[p.role if p.closed else "ink"], -0.5), p.points + by * i / steps
            ops.append(("fill", [points], dark) if p.closed else ("stroke", [(points, False)], dark, size * 0.03))
    for p in parts:
        ops.append(("fill", [p.points], pal[p.role]) if p.closed else stroke(p, pal["ink" if p.role == "line" else "mark"], size * 0.03))
        if p.closed:
            ops.append(stroke(p, shade(pal[p.role], 0.4), size * 0.01))
    return ops


# Palettes.


def marble(r, label):
    box = [(152, 60, 44), (214, 178, 112), (60, 92, 110), (96, 118, 80), (236, 228, 210), (70, 52, 46)]
    ground = [(226, 216, 194), (186, 176, 160), (120, 132, 134)][r.integers(3)]
    return complete(r, lambda: box[r.integers(6)], ground, (44, 36, 36))


def rainbow(r, label):
    make = lambda: hsv(r.random(), r.uniform(0.6, 1), r.uniform(0.8, 1))
    pal = complete(r, make, (r.uniform(8, 30),) * 3, make())
    pal["mark"] = make()
    return pal


def candy(r, label):
    ground = hsv(r.random(), r.uniform(0.5, 0.9), r.uniform(0.4, 0.85))
    return complete(r, lambda: hsv(r.random(), r.uniform(0, 0.6), r.uniform(0.8, 1)), ground, (245, 245, 248))


def delft(r, label):
    ink = hsv(r.uniform(0.6, 0.66), r.uniform(0.65, 0.9), r.uniform(0.3, 0.6))
    make = lambda: hsv(r.uniform(0.58, 0.67), r.uniform(0.4, 0.8), r.uniform(0.5, 0.85))
    return complete(r, make, (r.uniform(222, 240), r.uniform(228, 242), r.uniform(232, 246)), ink)


def mist(r, label):
    ground = hsv(r.uniform(0.5, 0.65), r.uniform(0.04, 0.2), r.uniform(0.66, 0.86))
    ink = hsv(r.random(), r.uniform(0.1, 0.4), r.uniform(0.12, 0.34))
    return complete(r, lambda: ink, ground, ink)


def gems(r, label):
    h = r.random()
    make = lambda: hsv(h + r.choice([0, 0.12, 0.5]) + r.normal(0, 0.04), r.uniform(0.4, 0.85), r.uniform(0.5, 0.95))
    return complete(r, make, hsv(h + r.uniform(0.2, 0.8), r.uniform(0.2, 0.6), r.choice([0.2, 0.85])))


def toy_blocks(r, label):
    box = [(226, 60, 54), (250, 196, 44), (52, 132, 214), (80, 176, 96), (246, 240, 230), (150, 90, 190)]
    ground = hsv(r.random(), r.uniform(0.08, 0.35), r.uniform(0.7, 0.95))
    return complete(r, lambda: box[r.integers(6)], ground)


# Grounds.


def opus(r, pal, h, w):
    """Stones of one colour, in bent rows."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    cell, bend = r.uniform(0.034, 0.046), r.uniform(0, 0.06)
    u, v = x / cell, (y + bend * np.sin(x * r.uniform(3, 8))) / cell
    u = u + 0.5 * (np.floor(v) % 2)
    tone = r.normal(0, 14, (97, 89))[np.floor(u).astype(int) % 97, np.floor(v).astype(int) % 89]
    joint = (u % 1 < 0.14) | (v % 1 < 0.14)
    return np.where(joint[..., None], plain(r, pal, h, w) * 0.65, plain(r, pal, h, w) + tone[..., None])


def waxed_black(r, pal, h, w):
    """Black wax over bands of colour that shine through where it is thin."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    a, first = r.uniform(0, 6.28), r.random()
    hue = (x * np.cos(a) + y * np.sin(a)) * r.uniform(0.4, 1) + first
    under = 127 + 127 * np.cos(6.2832 * (hue[..., None] + np.array([0, 0.33, 0.67])))
    thin = np.clip(0.1 + 0.12 * cloudy(r, h, w, 24) + 0.06 * r.normal(0, 1, (h, w, 1)), 0, 0.5)
    return plain(r, pal, h, w) * (1 - thin) + under * thin


def plate(r, pal, h, w, corner, rim, around):
    """A rounded plate with a rim, on what lies about it: (pixels, whether it is plate)."""
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    edge = (np.abs(x) ** corner + np.abs(y) ** corner) ** (1 / corner)
    out = np.where((edge < 0.97)[..., None], plain(r, pal, h, w), around)
    return np.where(((edge < 0.93) & (edge > 0.93 - rim))[..., None], np.array(pal["ink"]), out), y


def button(r, pal, h, w):
    """A button of glass: brighter in its upper half."""
    out, y = plate(r, pal, h, w, r.uniform(5, 12), r.uniform(0, 0.03), np.ones((h, w, 3)) * r.uniform(200, 250))
    y = y[..., None]
    return np.clip(out + np.where(y < r.uniform(-0.1, 0.15), 45 - 25 * (y + 1), 18 * y - 12), 0, 255)


def wall_tile(r, pal, h, w):
    """A glazed tile with an ornament in each corner, and the joints about it."""
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    u, v, k = 1 - np.abs(x), 1 - np.abs(y), r.uniform(4, 9)
    far, a = np.hypot(u, v), np.arctan2(v, u)
    figure = (far < r.uniform(0.28, 0.4) * (0.75 + 0.25 * np.cos(a * 2 * np.round(k)))) & (far > 0.12)
    out = plain(r, pal, h, w) + cloudy(r, h, w, 6) * 5
    out = np.where(figure[..., None], out * 0.35 + np.array(pal["second"]) * 0.65, out)
    joint = np.minimum(u, v) < r.uniform(0.02, 0.05)
    return np.where(joint[..., None], r.uniform(120, 190), out)


def fogged(r, pal, h, w):
    """Breath on a pane: what is behind shows as blurs; drops run."""
    out = plain(r, pal, h, w) + cloudy(r, h, w, 4) * 16 * r.uniform(0.5, 1.4, 3) + cloudy(r, h, w, 40) * 4
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    for _ in range(r.integers(2, 8)):
        at, top, end = r.uniform(0, w / min(h, w)), r.uniform(0, 0.7), r.uniform(0.1, 0.5)
        run = (np.abs(x - at - 0.008 * np.sin(y * 20)) < r.uniform(0.005, 0.011)) & (y > top) & (y < top + end)
        out = np.where(run[..., None], out * 0.75, out)
    return out


def low_poly(r, pal, h, w):
    """Triangles of a bent grid, each in another light."""
    image = Image.new("RGB", (w, h))
    draw, n = ImageDraw.Draw(image), int(r.integers(4, 8))
    at = np.stack(np.meshgrid(np.linspace(-0.1, 1.1, n + 1), np.linspace(-0.1, 1.1, n + 1)), -1) + r.normal(0, 0.25 / n, (n + 1, n + 1, 2))
    at = at * [w, h]
    for i in range(n):
        for j in range(n):
            a, b, c, d = at[i, j], at[i, j + 1], at[i + 1, j + 1], at[i + 1, j]
            for corners in ((a, b, c), (a, c, d)):
                colour = shade(pal["ground"], r.uniform(-0.22, 0.22))
                draw.polygon([tuple(map(float, p)) for p in corners], fill=tuple(int(v) for v in colour))
    return np.asarray(image, np.float32)


def studded(r, pal, h, w):
    """A building plate: rows of studs, each with its light and shadow."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    cell = r.uniform(0.09, 0.15)
    u, v = x / cell % 1 - 0.5, y / cell % 1 - 0.5
    far = np.hypot(u, v)
    light = np.where(abs(far - 0.32) < 0.07, -(u + v) * 80, 0)
    return plain(r, pal, h, w) + light[..., None]


# Effects.


def wiped(r, layer, ground, pal):
    """Where the finger went one sees out, and the drops run down from there."""
    w, h = layer.size
    alpha = np.asarray(layer.getchannel("A").filter(ImageFilter.GaussianBlur(min(w, h) * 0.006)), np.float32) / 255
    runs = alpha * 0
    for x in r.integers(0, w, r.integers(2, 7)):
        on = np.nonzero(alpha[:, x] > 0.6)[0]
        if len(on):
            runs[on[-1] : on[-1] + int(h * r.uniform(0.05, 0.2)), x : x + 2] = 0.7
    outside = np.array(pal["ink"]) + cloudy(r, h, w, 4) * 22 * r.uniform(0.5, 1.5, 3)
    t = (np.maximum(alpha, runs) * r.uniform(0.75, 0.95))[..., None]
    return Image.fromarray(np.clip(np.asarray(ground, np.float32) * (1 - t) + outside * t, 0, 255).astype(np.uint8))


def glazed(r, layer, ground, pal):
    """Colour that sank into the glaze, and a window's light on it."""
    w, h = layer.size
    soft = layer.filter(ImageFilter.GaussianBlur(min(w, h) * 0.006))
    ground.paste(soft, mask=soft.getchannel("A"))
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    far = np.maximum(abs(x - r.uniform(0.1, 0.9)) * r.uniform(1, 2), abs(y - r.uniform(0.05, 0.4)))
    shine = np.clip(1 - far / r.uniform(0.08, 0.16), 0, 0.4)[..., None]
    pixels = np.asarray(ground, np.float32)
    return Image.fromarray(np.clip(pixels + (255 - pixels) * shine, 0, 255).astype(np.uint8))


FINISHES = named(tesserae, scratched, glossy, cobalt, fingered, faceted, extruded)
PALETTES = named(marble, rainbow, candy, delft, mist, gems, toy_blocks)
GROUNDS = named(opus, waxed_black, button, wall_tile, fogged, low_poly, studded)
EFFECTS = named(wiped, glazed)
