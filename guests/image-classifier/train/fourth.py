"""The kinds of the fourth held-out styles, and of nothing else: no training and no choice ever sees them."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from finishes import densify, hatch, shade, shaken, stroke
from grounds import cloudy, plain
from named import named
from palettes import complete, hsv
from wear import shadow_of

ROUND = np.stack([np.cos(np.arange(12) * 0.5236), np.sin(np.arange(12) * 0.5236)], 1)

# Finishes.


def furrowed(parts, pal, r, size):
    """Drawn with a finger in sand: a furrow, with a bank on both its sides."""
    wide, ops = size * r.uniform(0.035, 0.055), []
    for p in parts:
        ops += [stroke(p, pal["light"], wide * 1.6), stroke(p, pal["ink"], wide)]
    for p in parts:
        ops.append(("stroke", [(p.points + wide * 0.18, p.closed)], pal["mark"], wide * 0.4))
    return ops


def stencilled(parts, pal, r, size):
    """Through a stencil: parts stand apart, and lines are broken where the bridges were."""
    gap, ops = size * r.uniform(0.02, 0.032), []
    for p in parts:
        if p.closed:
            ops += [("fill", [p.points], pal[p.role]), stroke(p, pal["ground"], gap)]
            continue
        points = densify(p.points, False, size * 0.02)
        for start in range(0, len(points), 9):
            piece = points[start : start + 7]
            if len(piece) > 1:
                ops.append(("stroke", [(piece, False)], pal["ink"], size * 0.035))
    return ops


def veneered(parts, pal, r, size):
    """Inlaid veneers, each with its own grain, dark at the joints."""
    ops = []
    for p in parts:
        if not p.closed:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], size * 0.03))
            continue
        colour, angle = pal[p.role], r.uniform(0, np.pi)
        ops.append(("fill", [p.points], colour))
        for tone in (-0.18, 0.14, -0.08):
            lines = hatch(p.points, angle, size * r.uniform(0.018, 0.035), r, 0.5)
            ops.append(("stroke", [(line, False) for line in lines], shade(colour, tone), size * r.uniform(0.004, 0.01)))
        ops.append(stroke(p, shade(pal["ink"], -0.2), size * r.uniform(0.008, 0.014)))
    return ops


def trodden(parts, pal, r, size):
    """Trodden into snow: one print beside the other."""
    length, ops = size * r.uniform(0.022, 0.03), []
    for p in parts:
        points, prints = densify(p.points, p.closed, length * 1.7), []
        along = np.roll(points, -1, 0) - points
        for at, way in zip(points, along):
            way = way / max(np.hypot(*way), 1e-6)
            side = np.array([-way[1], way[0]])
            shift = side * r.choice([-1, 1]) * length * 0.45 + r.normal(0, length * 0.1, 2)
            prints.append(at + shift + (ROUND[:, :1] * way * length + ROUND[:, 1:] * side * length * 0.55))
        ops += [("fill", [one + length * 0.15 for one in prints], pal["light"]), ("fill", prints, pal["ink"])]
    return ops


def sumi(parts, pal, r, size):
    """A loaded brush: strokes that swell and run dry, thin washes."""
    ops = []
    for p in parts:
        if p.closed and r.random() < 0.6:
            ops.append(("fill", [shaken(p.points, r, size * 0.006)], shade(pal[p.role], r.uniform(0.1, 0.45))))
        points = densify(p.points, p.closed, size * 0.02)
        points = np.concatenate([points, points[:1]]) if p.closed else points
        swell = np.sin(np.linspace(r.uniform(0.1, 0.6), np.pi - r.uniform(0.1, 0.9), len(points)))
        most = size * r.uniform(0.035, 0.065)
        bands = [[], [], [], []]
        for i, pair in enumerate(zip(points, points[1:])):
            bands[int(np.clip(swell[i] * 4, 0, 3))].append((np.array(pair), False))
        ops += [("stroke", some, pal["ink"], most * by) for some, by in zip(bands, (0.35, 0.6, 0.8, 1.0)) if some]
    return ops


def modelled(parts, pal, r, size):
    """Plasticine: soft sausages and slabs with a light and a dark side."""
    wide, ops = size * r.uniform(0.035, 0.055), []
    for p in parts:
        colour = pal[p.role if p.closed else ("ink" if p.role == "line" else "mark")]
        if p.closed:
            ops += [("fill", [p.points], colour), stroke(p, shade(colour, -0.3), wide), stroke(p, colour, wide * 0.7)]
        else:
            ops += [stroke(p, shade(colour, -0.35), wide), stroke(p, colour, wide * 0.75)]
        ops.append(("stroke", [(p.points - wide * 0.16, p.closed)], shade(colour, 0.45), wide * 0.18))
    return ops


def stamped(parts, pal, r, size):
    """A rubber stamp: one ink, solid parts with white lines between, within a border or not."""
    line, ops = size * r.uniform(0.022, 0.034), []
    for p in parts:
        solid = p.closed and p.role in ("body", "third")
        if p.closed:
            ops.append(("fill", [p.points], pal["ink"] if solid else pal["paper"]))
        ops.append(stroke(p, pal["paper"] if solid else pal["ink"], line))
    if parts and r.random() < 0.5:
        every = np.concatenate([p.points for p in parts])
        low, high = every.min(0) - line * 2.5, every.max(0) + line * 2.5
        ops.append(("stroke", [(np.array([low, (high[0], low[1]), high, (low[0], high[1])]), True)], pal["ink"], line))
    return ops


def backlit(parts, pal, r, size):
    """Cut out of dark paper, with light and coloured tissue behind."""
    edge, ops = size * r.uniform(0.02, 0.035), []
    for p in parts:
        if p.closed:
            low, high = p.points.min(0), p.points.max(0)
            colour = pal[p.role]
            ops.append(("fill", [p.points], ("radial", (low + high) / 2, (high - low).max() * 0.65, shade(colour, 0.5), shade(colour, -0.15))))
        ops.append(stroke(p, pal["ink"] if p.closed else pal["light"], edge))
    return ops


def signed(parts, pal, r, size):
    """A road sign: a board with a border, and the thing on it in two colours."""
    ops = []
    if parts:
        every = np.concatenate([p.points for p in parts])
        low, high = every.min(0) - size * 0.06, every.max(0) + size * 0.06
        board = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
        ops += [("fill", [board], pal["paper"]), ("stroke", [(board, True)], pal["ink"], size * r.uniform(0.02, 0.035))]
    for p in parts:
        if p.closed:
            ops += [("fill", [p.points], pal["ink"] if p.role in ("body", "third") else pal["mark"]), stroke(p, pal["paper"], size * 0.014)]
        else:
            ops.append(stroke(p, pal["ink"] if p.role == "line" else pal["paper"], size * 0.035))
    return ops


def lit_dots(parts, pal, r, size):
    """Bright fills and bright lines, for a display of lamps."""
    ops = []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal[p.role]))
        ops.append(stroke(p, pal["ink"], size * r.uniform(0.03, 0.045)))
    return ops


# Palettes.


def beach(r, label):
    ground = hsv(r.uniform(0.07, 0.13), r.uniform(0.2, 0.45), r.uniform(0.65, 0.9))
    pal = complete(r, lambda: shade(ground, -0.25), ground, shade(ground, -0.5))
    pal["light"], pal["mark"] = shade(ground, 0.45), shade(ground, -0.62)
    return pal


def cocoa(r, label):
    brown = hsv(r.uniform(0.03, 0.08), r.uniform(0.5, 0.8), r.uniform(0.2, 0.42))
    return complete(r, lambda: shade(brown, r.uniform(-0.1, 0.15)), hsv(r.uniform(0.07, 0.12), r.uniform(0.05, 0.25), r.uniform(0.82, 0.97)), brown)


def veneers(r, label):
    box = [(222, 184, 130), (150, 92, 50), (88, 50, 30), (196, 140, 84), (238, 214, 172), (120, 44, 34)]
    return complete(r, lambda: box[r.integers(6)], box[r.integers(6)], (48, 28, 18))


def snow(r, label):
    ground = hsv(r.uniform(0.55, 0.64), r.uniform(0.02, 0.15), r.uniform(0.85, 0.98))
    pal = complete(r, lambda: shade(ground, -0.2), ground, hsv(0.6, r.uniform(0.15, 0.4), r.uniform(0.4, 0.62)))
    pal["light"] = (255, 255, 255)
    return pal


def scroll_inks(r, label):
    grey = r.uniform(10, 45)
    pal = complete(r, lambda: hsv(r.choice([0.0, 0.09, 0.58]), r.uniform(0.05, 0.35), r.uniform(0.35, 0.65)), hsv(0.11, r.uniform(0.08, 0.25), r.uniform(0.82, 0.96)), (grey, grey, grey * 1.05))
    pal["mark"] = (178, 34, 30)
    return pal


def clay(r, label):
    make = lambda: hsv(r.random(), r.uniform(0.45, 0.85), r.uniform(0.45, 0.95))
    return complete(r, make, hsv(r.random(), r.uniform(0.05, 0.35), r.uniform(0.55, 0.92)))


def stamp_pad(r, label):
    ink = [(30, 40, 120), (150, 24, 40), (24, 24, 28), (24, 96, 60), (96, 36, 110)][r.integers(5)]
    paper = hsv(r.uniform(0.08, 0.14), r.uniform(0.02, 0.2), r.uniform(0.85, 0.97))
    return complete(r, lambda: ink, paper, ink, paper)


def tissue(r, label):
    return complete(r, lambda: hsv(r.random(), r.uniform(0.5, 0.9), r.uniform(0.75, 1)), hsv(r.random(), r.uniform(0.1, 0.4), r.uniform(0.06, 0.16)), (12, 10, 14))


def highway(r, label):
    board, ink, mark = [((244, 244, 240), (20, 20, 22), (196, 24, 30)), ((18, 84, 168), (246, 246, 246), (250, 206, 40)), ((246, 196, 24), (22, 22, 22), (60, 60, 60)), ((16, 106, 66), (246, 246, 246), (240, 240, 120))][r.integers(4)]
    pal = complete(r, lambda: ink, hsv(r.uniform(0.5, 0.62), r.uniform(0.05, 0.4), r.uniform(0.5, 0.9)), ink, board)
    pal["mark"] = mark
    return pal


def diodes(r, label):
    box = [(255, 60, 30), (60, 255, 90), (255, 190, 30), (80, 140, 255), (240, 240, 255)]
    ink = box[r.integers(5)]
    make = (lambda: shade(ink, -0.55)) if r.random() < 0.6 else (lambda: shade(box[r.integers(5)], -0.4))
    return complete(r, make, (14, 14, 18), ink)


# Grounds.


def rippled(r, pal, h, w):
    """Sand that the wind has combed."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    a = r.uniform(-0.5, 0.5)
    field = np.sin((y * np.cos(a) + x * np.sin(a)) * r.uniform(35, 70) + cloudy(r, h, w, 5)[..., 0] * 2.5)
    return plain(r, pal, h, w) * (1 + r.uniform(0.03, 0.09) * field[..., None]) + r.normal(0, 7, (h, w, 1))


def foam(r, pal, h, w):
    """Milk foam: bubbles, and coffee at the rim of the cup."""
    out = Image.fromarray(np.clip(plain(r, pal, h, w) + cloudy(r, h, w, 8) * 4, 0, 255).astype(np.uint8))
    draw, size = ImageDraw.Draw(out), min(h, w)
    for _ in range(r.integers(60, 160)):
        x, y, radius = r.uniform(0, w), r.uniform(0, h), size * r.uniform(0.003, 0.012)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=tuple(int(c) for c in shade(pal["ground"], -0.12)))
    out = np.asarray(out.filter(ImageFilter.GaussianBlur(0.5)), np.float32)
    y, x = np.mgrid[0:h, 0:w] / size
    far = np.hypot(x - w / size / 2, y - h / size / 2)
    return np.where((far > r.uniform(0.56, 0.7))[..., None], out * 0.3 + np.array([110, 70, 40]) * 0.7, out)


def burl(r, pal, h, w):
    """Wood that grew round knots."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    field = cloudy(r, h, w, 6)[..., 0] * 2
    for _ in range(r.integers(2, 6)):
        field = field + 0.8 / (0.06 + np.hypot(x - r.uniform(0, 1.2), y - r.uniform(0, 1.2)))
    return plain(r, pal, h, w) * (1 + 0.1 * np.sin(field * r.uniform(6, 14))[..., None]) + r.normal(0, 3, (h, w, 1))


def snowfield(r, pal, h, w):
    """Untrodden, a little hilly, with the sun from one side."""
    hills = cloudy(r, h, w, 5)[..., 0] + 0.4 * cloudy(r, h, w, 14)[..., 0]
    light = (np.roll(hills, 2, 1) - hills) * r.uniform(20, 60)
    return plain(r, pal, h, w) + light[..., None] * np.array([1, 0.95, 0.7]) + r.normal(0, 3, (h, w, 1))


def silk(r, pal, h, w):
    """A mounted scroll: warp and weft, a darker border, a red seal."""
    y, x = np.mgrid[0:h, 0:w]
    out = plain(r, pal, h, w) + (x % 3 == 0)[..., None] * -5.0 + (y % 3 == 0)[..., None] * -5.0 + cloudy(r, h, w, 4) * 5
    edge = int(min(h, w) * r.uniform(0.0, 0.08))
    inner = (x >= edge) & (x < w - edge)
    out = np.where(inner[..., None], out, out * np.array([0.55, 0.5, 0.4]))
    side = int(min(h, w) * r.uniform(0.06, 0.1))
    top, left = int(r.uniform(0.05, 0.85) * (h - side)), int(r.choice([0.06, 0.84]) * (w - side))
    out[top : top + side, left : left + side] = np.array(pal["mark"]) + r.normal(0, 14, (side, side, 1))
    return out


def cutting_mat(r, pal, h, w):
    """A mat with a fine grid and scratches."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw, step = ImageDraw.Draw(image), min(h, w) * r.uniform(0.09, 0.14)
    colour = tuple(int(c) for c in shade(pal["ground"], r.choice([-0.18, 0.22])))
    for at in np.arange(0, max(h, w), step):
        draw.line((at, 0, at, h), fill=colour)
        draw.line((0, at, w, at), fill=colour)
    for _ in range(r.integers(3, 10)):
        at, a = r.uniform(0, 1, 2) * [w, h], r.uniform(0, 6.28)
        draw.line((*at, *(at + np.array([np.cos(a), np.sin(a)]) * min(h, w) * r.uniform(0.1, 0.4))), fill=colour)
    return np.asarray(image, np.float32)


def posted(r, pal, h, w):
    """A letter: written lines, a postmark's waves."""
    image = Image.fromarray((plain(r, pal, h, w) + r.normal(0, 3, (h, w, 1))).clip(0, 255).astype(np.uint8))
    draw, size = ImageDraw.Draw(image), min(h, w)
    ink = tuple(int(c) for c in shade(pal["paper"], -0.35))
    for y in np.arange(r.uniform(0, 0.1) * h, h, size * r.uniform(0.09, 0.14)):
        x = np.arange(0, w * r.uniform(0.5, 1), size * 0.012)
        wave = y + size * 0.012 * np.cumsum(r.normal(0, 1, len(x))) / 6 + size * 0.012 * np.sin(x / size * r.uniform(60, 120))
        draw.line([(float(a), float(b)) for a, b in zip(x, wave)], fill=ink)
    top = r.uniform(0, 0.8) * h
    for i in range(5):
        x = np.arange(0, w, 3.0)
        draw.line([(float(a), float(top + i * size * 0.04 + size * 0.012 * np.sin(a / size * 20))) for a in x], fill=tuple(int(c) for c in shade(pal["paper"], -0.5)), width=1)
    return np.asarray(image, np.float32)


def dark_leaves(r, pal, h, w):
    """Leaves and stalks, nearly as dark as the night behind them."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw, size = ImageDraw.Draw(image), min(h, w)
    for _ in range(r.integers(25, 50)):
        at, a, long = r.uniform(0, 1, 2) * [w, h], r.uniform(0, 6.28), size * r.uniform(0.06, 0.16)
        way, side = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
        leaf = [tuple(at + way * long * t + side * long * 0.22 * np.sin(t * np.pi) * s) for s, ts in ((1, np.linspace(0, 1, 6)), (-1, np.linspace(1, 0, 6))) for t in ts]
        draw.polygon(leaf, fill=tuple(int(c) for c in shade(pal["ground"], r.uniform(0.02, 0.22))))
    return np.asarray(image, np.float32)


def roadside(r, pal, h, w):
    """Sky, far hills, a verge."""
    out, (y, x) = plain(r, pal, h, w), np.mgrid[0:h, 0:w] / min(h, w)
    out = out * (1.1 - 0.25 * y[..., None])
    hill = r.uniform(0.45, 0.8) + 0.08 * np.sin(x * r.uniform(2, 6) + r.uniform(0, 6))
    out = np.where((y > hill)[..., None], np.array(hsv(r.uniform(0.2, 0.35), 0.35, r.uniform(0.35, 0.6))), out)
    verge = hill + r.uniform(0.12, 0.3)
    return np.where((y > verge)[..., None], np.array([118.0, 116, 112]), out) + r.normal(0, 6, (h, w, 1))


def panel(r, pal, h, w):
    """A dark board on which other lamps glow a little."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    text = (np.sin(x * r.uniform(30, 60)) > 0.3) & (abs((y % r.uniform(0.25, 0.5)) - 0.1) < 0.03)
    return plain(r, pal, h, w) + (text * r.uniform(0.1, 0.3))[..., None] * np.array(pal["ink"])


# Effects.


def dusted(r, layer, ground, pal):
    """Powder through a stencil: soft at the edge, grains beside it."""
    w, h = layer.size
    cover = np.asarray(layer.getchannel("A").filter(ImageFilter.GaussianBlur(min(w, h) * 0.008)), np.float32)
    cover = cover * (r.random((h, w)) < 0.85) + (r.random((h, w)) < 0.012) * 140
    colour = Image.new("RGB", (w, h), tuple(int(c) for c in pal["ink"]))
    colour.paste(layer, mask=layer)
    ground.paste(colour, mask=Image.fromarray(np.clip(cover, 0, 255).astype(np.uint8)))
    return ground


def inked(r, layer, ground, pal):
    """Ink that did not take everywhere, multiplied with the paper."""
    w, h = layer.size
    took = (cloudy(r, h, w, 10)[..., 0] + 0.7 * r.normal(0, 1, (h, w)) > r.uniform(-1.9, -0.9)) * r.uniform(0.75, 0.95)
    alpha = np.asarray(layer.getchannel("A"), np.float32) / 255 * took
    ink, paper = np.asarray(layer.convert("RGB"), np.float32), np.asarray(ground, np.float32)
    out = paper * (1 - alpha[..., None]) + np.minimum(ink, 255) * paper / 255 * alpha[..., None]
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))


def bulging(r, layer, ground, pal):
    """Thick and soft: thumbed, with a shadow on the board."""
    shadow_of(layer, ground, (2, 3), 2, 0.5)
    w, h = layer.size
    ground.paste(layer, mask=layer)
    thumbs = cloudy(r, h, w, 12)[..., 0]
    gain = 1 + (np.roll(thumbs, 1, 0) - thumbs) * r.uniform(0.15, 0.4) * (np.asarray(layer.getchannel("A")) > 0)
    return Image.fromarray(np.clip(np.asarray(ground, np.float32) * gain[..., None], 0, 255).astype(np.uint8))


# Wear.


def lamps(r, image):
    """Seen on a board of round lamps."""
    across = int(r.integers(36, 46))
    down = max(8, round(across * image.height / image.width))
    cells = np.asarray(image.resize((across, down), Image.Resampling.BOX), np.float32)
    y, x = np.mgrid[0 : image.height, 0 : image.width]
    u, v = x * across / image.width, y * down / image.height
    far = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    shine = np.clip(1.35 - far * 2.4, 0.08, 1)
    seen = cells[np.clip(v.astype(int), 0, down - 1), np.clip(u.astype(int), 0, across - 1)]
    return Image.fromarray(np.clip(seen * shine[..., None] * 1.25, 0, 255).astype(np.uint8))


FINISHES = named(furrowed, stencilled, veneered, trodden, sumi, modelled, stamped, backlit, signed, lit_dots)
PALETTES = named(beach, cocoa, veneers, snow, scroll_inks, clay, stamp_pad, tissue, highway, diodes)
GROUNDS = named(rippled, foam, burl, snowfield, silk, cutting_mat, posted, dark_leaves, roadside, panel)
EFFECTS = named(dusted, inked, bulging)
WEAR = named(lamps)
