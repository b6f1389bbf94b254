"""Backgrounds: each gives float pixels, height x width x 3, from a palette."""

import numpy as np
from PIL import Image, ImageDraw

from named import named


def cloudy(r, height, width, cells):
    """Smooth noise about 0, some 1 high."""
    coarse = Image.fromarray(r.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))[..., None]


def plain(r, pal, h, w):
    return np.ones((h, w, 3), np.float32) * np.array(pal["ground"], np.float32)


def linear(r, pal, h, w):
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    a = r.uniform(0, 6.28)
    t = (x * np.cos(a) + y * np.sin(a))[..., None]
    t = (t - t.min()) / (t.max() - t.min())
    other = np.clip(np.array(pal["ground"]) + r.normal(0, 35, 3), 0, 255)
    return np.array(pal["ground"]) * (1 - t) + other * t


def vignette(r, pal, h, w):
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    return plain(r, pal, h, w) * (1 - r.uniform(0.1, 0.4) * np.clip(x**2 + y**2, 0, 1.5)[..., None])


def noisy(r, pal, h, w):
    grain = r.normal(0, r.uniform(5, 28), (h, w, 1 if r.random() < 0.5 else 3))
    return plain(r, pal, h, w) + grain


def blotchy(r, pal, h, w):
    out = plain(r, pal, h, w)
    for cells in (3, 6, 14):
        out = out + cloudy(r, h, w, cells) * r.uniform(0, 16) * r.normal(1, 0.3, 3)
    return out


def drawn(r, pal, h, w, mark):
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(r.integers(4, 16)):
        colour = tuple(int(c) for c in np.clip(np.array(pal["ground"]) + r.normal(0, 28, 3), 0, 255))
        mark(draw, colour)
    return np.asarray(image, np.float32)


def lines(r, pal, h, w):
    def mark(draw, colour):
        draw.line(tuple(r.uniform(-0.1, 1.1, 4) * [w, h, w, h]), fill=colour, width=int(r.integers(1, 5)))
    return drawn(r, pal, h, w, mark)


def shapes(r, pal, h, w):
    def mark(draw, colour):
        x, y, size = r.uniform(0, w), r.uniform(0, h), r.uniform(0.05, 0.3) * min(h, w)
        if r.random() < 0.5:
            draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        else:
            draw.polygon([(x + d[0], y + d[1]) for d in r.normal(0, size, (4, 2))], fill=colour)
    return drawn(r, pal, h, w, mark)


def strong_clutter(r, pal, h, w):
    """Small marks as strong as the drawing, at the rim."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(r.integers(2, 8)):
        a, far = r.uniform(0, 6.28), r.uniform(0.42, 0.6)
        x, y, size = w * (0.5 + far * np.cos(a)), h * (0.5 + far * np.sin(a)), r.uniform(0.01, 0.06) * min(h, w)
        colour = tuple(int(c) for c in pal[["ink", "body", "third"][r.integers(3)]])
        if r.random() < 0.5:
            draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        else:
            draw.line((x, y, x + r.normal(0, size * 2), y + r.normal(0, size * 2)), fill=colour, width=int(r.integers(1, 4)))
    return np.asarray(image, np.float32)


# Regular patterns. Each is a field from -1 to 1 of turned coordinates in cells, painted with two colours.


def turned(r, h, w, low=0.05, high=0.2):
    """Coordinates in cells of a lattice that lies any way."""
    y, x = np.mgrid[0:h, 0:w] / (min(h, w) * np.exp(r.uniform(np.log(low), np.log(high))))
    a = r.uniform(0, 6.28)
    return x * np.cos(a) + y * np.sin(a) + r.random(), y * np.cos(a) - x * np.sin(a) + r.random()


def two_coloured(r, pal, field):
    """Soft or hard, faint or as strong as the drawing."""
    t = np.clip(field * np.exp(r.uniform(-0.3, 3)), -1, 1)[..., None] / 2 + 0.5
    other = np.array(pal["ground"]) + r.choice([-1, 1]) * r.uniform(12, 75) * np.clip(r.normal(1, 0.4, 3), 0, None)
    if r.random() < 0.3:
        other = np.array(pal["ground2"])
    return np.array(pal["ground"]) * (1 - t) + np.clip(other, 0, 255) * t


def bars(r, pal, h, w):
    u, _ = turned(r, h, w, 0.05, 0.3)
    return two_coloured(r, pal, np.sin(u * 6.2832) + r.uniform(-0.8, 0.8))


def waves(r, pal, h, w):
    u, v = turned(r, h, w, 0.06, 0.25)
    v = v + r.uniform(0.15, 0.5) * np.sin(u * r.uniform(1.5, 6)) if r.random() < 0.6 else v + 0.6 * abs(u * r.uniform(0.5, 1.2) % 1 - 0.5)
    return two_coloured(r, pal, np.sin(v * 6.2832) + r.uniform(-0.7, 0.7))


def spots(r, pal, h, w):
    """Dots, rings or lozenges, in rows that are shifted or not."""
    u, v = turned(r, h, w, 0.06, 0.2)
    u = u + np.floor(v) % 2 * r.choice([0.0, 0.5])
    x, y = abs(u % 1 - 0.5), abs(v % 1 - 0.5)
    far = [np.hypot(x, y), x + y, np.maximum(x, y)][r.integers(3)]
    field = r.uniform(0.15, 0.36) - far
    return two_coloured(r, pal, (0.08 - abs(field) if r.random() < 0.3 else field) * 6)


def tiles(r, pal, h, w):
    """Floor tiles that differ a little, with joints: oblong or lozenge-shaped, row upon row."""
    u, v = turned(r, h, w, 0.1, 0.3)
    skew = r.choice([0.0, 0.5, 1.0])
    u = u * r.uniform(0.6, 1) + skew * v
    i, j = np.floor(u).astype(int) % 61, np.floor(v).astype(int) % 61
    colours = np.array(pal["ground"]) + r.normal(0, r.uniform(2, 14), (61, 61, 1)) + r.normal(0, r.uniform(0, 8), (61, 61, 3))
    joint = (np.minimum(u % 1, v % 1) < r.uniform(0.04, 0.14))[..., None]
    return np.where(joint, np.array(pal["ground"]) + r.choice([-1, 1]) * r.uniform(15, 80), colours[i, j])


def strokes(r, pal, h, w):
    """Crossed hatching, uneven."""
    out = plain(r, pal, h, w)
    for _ in range(r.integers(1, 4)):
        u, v = turned(r, h, w, 0.03, 0.12)
        line = (u + 0.1 * np.sin(v * r.uniform(0.3, 1.5))) % 1 < r.uniform(0.1, 0.35)
        out = out + line[..., None] * r.normal(0, 32) * np.clip(r.normal(1, 0.2, 3), 0.3, 2)
    return out


def basket(r, pal, h, w):
    """Over and under."""
    u, v = turned(r, h, w, 0.07, 0.2)
    across = (np.floor(u) + np.floor(v)) % 2 == 0
    n = r.integers(1, 4)
    return two_coloured(r, pal, np.where(across, np.sin(u * 6.2832 * n), np.sin(v * 6.2832 * n)) + r.uniform(-0.3, 0.3))


def rings(r, pal, h, w):
    """Round a point, or a spiral."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    x, y = x - r.uniform(-0.2, 1.2), y - r.uniform(-0.2, 1.2)
    turn = r.integers(0, 3) * np.arctan2(y, x)
    return two_coloured(r, pal, np.sin(np.hypot(x, y) * 6.2832 / r.uniform(0.06, 0.25) + turn) + r.uniform(-0.6, 0.6))


def scales(r, pal, h, w):
    u, v = turned(r, h, w, 0.08, 0.22)
    u = u + np.floor(v) % 2 * 0.5
    edge = np.hypot(u % 1 - 0.5, (v % 1) * r.uniform(0.7, 1.1))
    return two_coloured(r, pal, np.cos(edge * 6.2832 * r.integers(1, 3)))


def confetti(r, pal, h, w):
    """Small marks of many colours, evenly strewn."""
    image, kind = Image.fromarray(plain(r, pal, h, w).astype(np.uint8)), r.integers(3)
    draw, spread = ImageDraw.Draw(image), r.uniform(15, 60)
    size = min(h, w) * r.uniform(0.01, 0.035)
    for _ in range(r.integers(30, 140)):
        x, y, a = r.uniform(0, w), r.uniform(0, h), r.uniform(0, 6.28)
        colour = tuple(int(c) for c in np.clip(np.array(pal["ground"]) + r.normal(0, spread, 3), 0, 255))
        dx, dy = np.cos(a) * size, np.sin(a) * size
        if kind == 0:
            draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)
        elif kind == 1:
            draw.polygon([(x - dx, y - dy), (x + dy, y - dx), (x + dx, y + dy)], fill=colour)
        else:
            draw.line((x - dx * 2, y - dy * 2, x + dx * 2, y + dy * 2), fill=colour, width=max(1, int(size / 2)))
    return np.asarray(image, np.float32)


def two_halves(r, pal, h, w):
    """A horizon: another colour from somewhere on."""
    u, v = turned(r, h, w, 0.8, 1.6)
    return two_coloured(r, pal, v - v.mean() + r.uniform(-0.3, 0.3) + r.uniform(0, 0.15) * np.sin(u * 12))


# Of the validation styles.


def woven(r, pal, h, w):
    y, x = np.mgrid[0:h, 0:w]
    step = max(2, min(h, w) * 0.03)
    return plain(r, pal, h, w) + 10 * (np.sin(x * 3.14 / step) * np.sin(y * 3.14 / step))[..., None] + r.normal(0, 4, (h, w, 1))


def dotted(r, pal, h, w):
    y, x = np.mgrid[0:h, 0:w]
    step = min(h, w) * r.uniform(0.08, 0.14)
    near = np.hypot((x % step) - step / 2, (y % step) - step / 2) < step * 0.22
    return np.where(near[..., None], np.array(pal["ground2"]), np.array(pal["ground"]))


def honeycomb(r, pal, h, w):
    """Six-cornered cells with walls."""
    u, v = turned(r, h, w, 0.1, 0.22)
    waves = [np.cos(6.2832 * (u * np.cos(a) + v * np.sin(a))) for a in (0, 2.0944, 4.1888)]
    return two_coloured(r, pal, -0.7 - sum(waves))


# Of the held-out styles.


def checkered(r, pal, h, w):
    y, x = np.mgrid[0:h, 0:w]
    step = min(h, w) * r.uniform(0.08, 0.16)
    return np.where((((x // step) + (y // step)) % 2 == 0)[..., None], 252.0, 205.0) * np.ones(3)


def striped(r, pal, h, w):
    y, x = np.mgrid[0:h, 0:w]
    step, a = min(h, w) * r.uniform(0.06, 0.14), r.uniform(0, 3.14)
    return np.where(((x * np.cos(a) + y * np.sin(a)) // step % 2 == 0)[..., None], np.array(pal["ground"]), np.array(pal["ground2"]))


def tiled(r, pal, h, w):
    cells = np.clip(np.array(pal["ground"]) + r.normal(0, 14, (6, 6, 3)), 0, 255)
    return np.asarray(Image.fromarray(cells.astype(np.uint8)).resize((w, h), Image.Resampling.NEAREST), np.float32)


def smudged(r, pal, h, w):
    out = plain(r, pal, h, w)
    for _ in range(3):
        wipe = Image.fromarray(r.normal(0, 1, (20, 3)).astype(np.float32)).resize((w, h), Image.Resampling.BICUBIC)
        out = out + np.asarray(wipe.rotate(r.uniform(-40, 40)))[..., None] * 8
    return out + 6


def aged(r, pal, h, w):
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    burn = np.clip(np.maximum(abs(x), abs(y)) - 0.7, 0, 1)[..., None]
    return plain(r, pal, h, w) + cloudy(r, h, w, 5) * 9 + cloudy(r, h, w, 25) * 5 - burn * np.array([120, 150, 170])


def bokeh(r, pal, h, w):
    out = plain(r, pal, h, w)
    y, x = np.mgrid[0:h, 0:w]
    for _ in range(r.integers(5, 12)):
        colour = r.uniform(0, 75, 3)
        out = out + (np.hypot(x - r.uniform(0, w), y - r.uniform(0, h)) < min(h, w) * r.uniform(0.04, 0.14))[..., None] * colour * 0.7
    return out


def squared(r, pal, h, w):
    out = plain(r, pal, h, w)
    step, colour = max(6, int(min(h, w) * r.uniform(0.07, 0.11))), np.array([150, 180, 220.0])
    out[::step] = out[::step] * 0.4 + colour * 0.6
    if r.random() < 0.6:
        out[:, ::step] = out[:, ::step] * 0.4 + colour * 0.6
    return out


def laid(r, pal, h, w):
    """Rough paper for watercolour."""
    return plain(r, pal, h, w) + r.normal(0, 4, (h, w, 1)) + cloudy(r, h, w, 40) * 4


def rays(r, pal, h, w):
    """A comic's burst from the middle."""
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    count = r.integers(8, 14)
    return np.where((np.floor(np.arctan2(y, x) / 6.2832 * 2 * count) % 2 == 0)[..., None], np.array(pal["ground"]), np.array([250, 226, 150.0]))


def wooden(r, pal, h, w):
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    rings = np.sin((y * 14 + cloudy(r, h, w, 4)[..., 0] * 1.2 + 0.3 * np.sin(x * 3)) * 3.14)
    return plain(r, pal, h, w) + rings[..., None] * 13 + r.normal(0, 4, (h, w, 1))


# Of the second held-out styles.


def graph(r, pal, h, w):
    """Fine squares, every fifth line strong."""
    out, step = plain(r, pal, h, w), max(3, int(min(h, w) * r.uniform(0.03, 0.05)))
    for every, strength in ((step, r.uniform(0.1, 0.25)), (step * 5, r.uniform(0.25, 0.5))):
        for lines in (out[::every], out[:, ::every]):
            lines[:] = lines * (1 - strength) + np.array(pal["ink"]) * strength
    return out


def panes(r, pal, h, w):
    """Pieces of glass in lead."""
    y, x = np.mgrid[0:h, 0:w]
    away = np.stack([np.hypot(x - px, y - py) for px, py in r.uniform(-0.05, 1.05, (r.integers(9, 20), 2)) * [w, h]])
    near = np.sort(away, 0)
    colours = np.clip(np.array(pal["ground"]) + r.normal(0, 26, (20, 3)) + r.normal(0, 16, (20, 1)), 0, 255)
    return np.where((near[1] - near[0] < min(h, w) * 0.018)[..., None], np.array(pal["ink"], float), colours[away.argmin(0)])


def gouged(r, pal, h, w):
    """What the gouge left standing: short strokes that run one way."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw, a, colour = ImageDraw.Draw(image), r.uniform(0, 3.14), tuple(int(c) for c in pal["ink"])
    for _ in range(r.integers(25, 70)):
        x, y, b, long = r.uniform(0, w), r.uniform(0, h), a + r.normal(0, 0.15), min(h, w) * r.uniform(0.02, 0.09)
        draw.line((x, y, x + long * np.cos(b), y + long * np.sin(b)), fill=colour, width=int(r.integers(1, 3)))
    return np.asarray(image, np.float32)


def felted(r, pal, h, w):
    """Fibres, every way."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(500):
        x, y, a, long = r.uniform(0, w), r.uniform(0, h), r.uniform(0, 6.28), min(h, w) * r.uniform(0.03, 0.08)
        colour = tuple(int(c) for c in np.clip(np.array(pal["ground"]) + r.normal(0, 20), 0, 255))
        draw.line((x, y, x + long * np.cos(a), y + long * np.sin(a)), fill=colour)
    return np.asarray(image, np.float32)


def folded(r, pal, h, w):
    """Triangles of paper, each in another light."""
    image, n = Image.fromarray(plain(r, pal, h, w).astype(np.uint8)), r.integers(4, 8)
    draw = ImageDraw.Draw(image)
    at = (np.stack(np.meshgrid(np.arange(-1, n + 2), np.arange(-1, n + 2)), -1) + r.uniform(-0.3, 0.3, (n + 3, n + 3, 2))) / n * [w, h]
    for i in range(n + 2):
        for j in range(n + 2):
            for corners in (((0, 0), (0, 1), (1, 0)), ((1, 1), (0, 1), (1, 0))):
                colour = tuple(int(c) for c in np.clip(np.array(pal["ground"]) + r.normal(0, 15), 0, 255))
                draw.polygon([tuple(at[i + a, j + b]) for a, b in corners], fill=colour)
    return np.asarray(image, np.float32)


def brick(r, pal, h, w):
    y, x = np.mgrid[0:h, 0:w]
    tall = min(h, w) * r.uniform(0.09, 0.14)
    long, row = tall * r.uniform(1.8, 2.4), (y // tall).astype(int)
    x = x + row % 2 * long / 2
    colours = np.clip(np.array([150, 78, 60]) + r.normal(0, 9, (997, 3)) + r.normal(0, 10, (997, 1)), 0, 255)
    wall = colours[(row * 31 + (x // long).astype(int)) % 997] + r.normal(0, 7, (h, w, 1))
    return np.where(((y % tall < tall * 0.12) | (x % long < tall * 0.12))[..., None], 176.0, wall)


def tartan(r, pal, h, w):
    out, period = plain(r, pal, h, w), min(h, w) * r.uniform(0.2, 0.4)
    y, x = np.mgrid[0:h, 0:w]
    for _ in range(r.integers(2, 4)):
        colour, start, wide, strength = r.uniform(0, 255, 3), r.uniform(0, 1), r.uniform(0.06, 0.3), r.uniform(0.15, 0.3)
        for along in (x, y):
            band = ((along / period + start) % 1 < wide)[..., None] * strength
            out = out * (1 - band) + colour * band
    return out


def daubs(r, pal, h, w):
    """Broad strokes of a full brush."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw, a = ImageDraw.Draw(image), r.uniform(0, 3.14)
    for _ in range(160):
        x, y, b, long = r.uniform(0, w), r.uniform(0, h), a + r.normal(0, 0.5), min(h, w) * r.uniform(0.06, 0.15)
        colour = tuple(int(c) for c in np.clip(np.array(pal["ground"]) + r.normal(0, 13) + r.normal(0, 8, 3), 0, 255))
        draw.line((x, y, x + long * np.cos(b), y + long * np.sin(b)), fill=colour, width=max(2, int(min(h, w) * 0.035)))
    return np.asarray(image, np.float32)


def tube(r, pal, h, w):
    """A picture tube: a glow in the middle, darker to the corners."""
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    near = np.clip(1 - (x**4 + y**4) * 0.5 - (x**2 + y**2) * 0.2, 0, 1)[..., None]
    return plain(r, pal, h, w) * 0.5 + (np.array(pal["ink"]) * 0.16 + np.array(pal["ground"]) * 0.5) * near


def biscuit(r, pal, h, w):
    """Baked: crumbs, and brown where it was hot."""
    heat = cloudy(r, h, w, 4) * 12 + cloudy(r, h, w, 12) * 7
    crumbs = (r.random((h, w, 1)) < 0.03) * r.normal(-35, 20, (h, w, 1))
    return plain(r, pal, h, w) + heat * np.array([1, 1.1, 1.2]) + crumbs + r.normal(0, 4, (h, w, 1))


GROUNDS = named(
    plain, linear, vignette, noisy, blotchy, lines, shapes, strong_clutter, bars, waves, spots, tiles, strokes,
    basket, rings, scales, confetti, two_halves, honeycomb, woven, dotted,
    checkered, striped, tiled, smudged, aged, bokeh, squared, laid, rays, wooden,
    graph, panes, gouged, felted, folded, brick, tartan, daubs, tube, biscuit,
)
