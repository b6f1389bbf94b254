"""Backgrounds: each gives float pixels, height x width x 3, from a palette."""

import numpy as np
from PIL import Image, ImageDraw


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


GROUNDS = {f.__name__: f for f in (
    plain, linear, vignette, noisy, blotchy, lines, shapes, strong_clutter, woven, dotted,
    checkered, striped, tiled, smudged, aged, bokeh, squared, laid, rays, wooden,
)}
