"""The kinds of the third held-out styles, which training sees now."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from finishes import densify, hatch, shade, stroke, thickness
from grounds import cloudy, plain
from named import named
from palettes import complete, hsv
from wear import shadow_of

ROUND = np.stack([np.cos(np.arange(10) * 0.628), np.sin(np.arange(10) * 0.628)], 1)

# Finishes.


def engraved(parts, pal, r, size):
    """Fine lines that swell to the dark side, crossed where it is darker."""
    spacing, angle, width, ops = size * r.uniform(0.028, 0.042), r.uniform(0, np.pi), thickness(r, size, 0.012, 0.022), []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal["paper"]))
            low, wide = p.points[:, 0].min(), max(np.ptp(p.points[:, 0]), 1)
            for turn in {"body": (0,), "second": (0, 1.1), "third": (0.6, 1.7), "light": ()}[p.role]:
                swelling = [[], [], [], []]
                for line in hatch(p.points, angle + turn, spacing, r):
                    points = densify(line, False, spacing * 2)
                    for pair in zip(points, points[1:]):
                        swelling[int(np.clip((pair[0][0] - low) / wide * 4, 0, 3))].append((np.array(pair), False))
                ops += [("stroke", some, pal["ink"], spacing * by) for some, by in zip(swelling, (0.2, 0.3, 0.45, 0.6)) if some]
        ops.append(stroke(p, pal["ink"], width))
    return ops


def carved(parts, pal, r, size):
    """A groove, dark on one side and light on the other; the wood laid bare inside or not."""
    wide, bare, ops = size * r.uniform(0.03, 0.05), r.random() < 0.5, []
    by = np.array([r.choice([-1, 1]), 1]) * wide * 0.3
    for p in parts:
        if p.closed and bare:
            ops.append(("fill", [p.points], shade(pal[p.role], r.uniform(-0.1, 0.1))))
        ops += [("stroke", [(p.points + by, p.closed)], pal["mark"], wide * 0.6), stroke(p, pal["ink"], wide)]
    return ops


def dabbed(parts, pal, r, size):
    """Dabs of a finger, one beside the other, and a thin wash."""
    dab, washed, ops = size * r.uniform(0.02, 0.032), r.random() < 0.6, []
    for p in parts:
        if p.closed and (washed or p.role != "body"):
            ops.append(("fill", [p.points], shade(pal[p.role], r.uniform(-0.1, 0.25))))
        spots = [at + r.normal(0, dab * 0.25, 2) for at in densify(p.points, p.closed, dab * 1.5)]
        ops.append(("fill", [at + ROUND * dab * r.uniform(0.6, 1.3, 2) * r.uniform(0.85, 1.15, (10, 1)) for at in spots], pal["ink"]))
    return ops


def bulbs(parts, pal, r, size):
    """Rows of lamps on painted boards."""
    lamp, ops = size * r.uniform(0.013, 0.02), []
    for p in parts:
        colour = pal["ink"] if r.random() < 0.6 or not p.closed else shade(pal[p.role], 0.5)
        if p.closed:
            ops.append(("fill", [p.points], shade(pal[p.role], -0.45)))
        at = densify(p.points, p.closed, lamp * 2.6)
        ops.append(("fill", [a + ROUND * lamp * 1.25 for a in at], shade(colour, -0.5)))
        ops.append(("fill", [a + ROUND * lamp * 0.8 for a in at if r.random() < 0.93], shade(colour, 0.5)))
    return ops


def trimmed(parts, pal, r, size):
    """Two colours: a fill, and an edge that is a darker shade of it."""
    wide, ops = size * r.uniform(0.03, 0.045), []
    for p in parts:
        if p.closed:
            ops += [("fill", [p.points], pal[p.role]), stroke(p, shade(pal[p.role], -0.5 if r.random() < 0.7 else 0.5), wide)]
        else:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], wide))
    return ops


def wired(parts, pal, r, size):
    """Bent wire with a glint; nothing is filled."""
    wide, ops = size * r.uniform(0.018, 0.032), []
    for p in parts:
        ops += [stroke(p, shade(pal["ink"], -0.45), wide), stroke(p, pal["ink"], wide * 0.6), ("stroke", [(p.points - wide * 0.12, p.closed)], shade(pal["ink"], 0.7), wide * 0.2)]
    return ops


def torn(parts, pal, r, size):
    """Torn paper: every edge frayed, with a white lip."""
    fray, ops = size * r.uniform(0.008, 0.016), []
    for p in parts:
        if not p.closed:
            points = densify(p.points, False, size * 0.03)
            ops.append(("stroke", [(points + r.normal(0, fray * 0.5, points.shape), False)], pal["ink" if p.role == "line" else "mark"], size * 0.03))
            continue
        points = densify(p.points, True, size * 0.035)
        points = points + r.normal(0, fray, points.shape)
        ops += [("stroke", [(points + r.normal(0, fray * 0.6, points.shape), True)], (248, 246, 240), size * 0.025), ("fill", [points], pal[p.role])]
    return ops


def waxed(parts, pal, r, size):
    """A light line where wax was, with dye at both its sides."""
    wide, dotted, ops = size * r.uniform(0.022, 0.035), r.random() < 0.4, []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal[p.role]))
        ops.append(stroke(p, pal["ink"], wide * 1.7))
        if dotted:
            ops.append(("fill", [at + ROUND * wide * 0.6 for at in densify(p.points, p.closed, wide * 1.5)], pal["light"]))
        else:
            ops.append(stroke(p, pal["light"], wide * 0.9))
    return ops


def traced(parts, pal, r, size):
    """Copper lines with soldered pads on them; a fill is a mesh."""
    wide, meshed, ops = size * r.uniform(0.018, 0.028), r.random() < 0.5, []
    for p in parts:
        if p.closed:
            ops.append(("fill", [p.points], pal["paper"]))
            if meshed and p.role in ("second", "third"):
                lines = hatch(p.points, 0.785, wide * 2.5, r) + hatch(p.points, -0.785, wide * 2.5, r)
                ops.append(("stroke", [(line, False) for line in lines], pal["ink"], wide * 0.5))
        ops.append(stroke(p, pal["ink"], wide))
        pads = p.points[:: max(1, len(p.points) // r.integers(2, 6))]
        ops += [("fill", [at + ROUND * wide * 1.5 for at in pads], pal["mark"]), ("fill", [at + ROUND * wide * 0.6 for at in pads], pal["ground"])]
    return ops


def warm(parts, pal, r, size):
    """Warmer to the middle of every part."""
    ops = []
    for p in parts:
        if p.closed:
            low, high = p.points.min(0), p.points.max(0)
            ops.append(("fill", [p.points], ("radial", (low + high) / 2, (high - low).max() * 0.6, shade(pal[p.role], r.uniform(0, 0.35)), shade(pal[p.role], -r.uniform(0.05, 0.3)))))
        else:
            ops.append(stroke(p, pal["ink" if p.role == "line" else "mark"], size * r.uniform(0.025, 0.04)))
    return ops


# Palettes.


def banknote(r, label):
    h = r.choice([0.05, 0.33, 0.55, 0.62, 0.8, 0.95])
    ink = hsv(h, r.uniform(0.4, 0.8), r.uniform(0.2, 0.45))
    return complete(r, lambda: ink, hsv(h + r.normal(0, 0.06), r.uniform(0.05, 0.2), r.uniform(0.82, 0.95)), ink)


def bark(r, label):
    ground = hsv(r.uniform(0.05, 0.11), r.uniform(0.2, 0.5), r.uniform(0.3, 0.6))
    pal = complete(r, lambda: hsv(r.uniform(0.07, 0.12), r.uniform(0.3, 0.55), r.uniform(0.65, 0.9)), ground, hsv(0.07, 0.5, r.uniform(0.08, 0.16)))
    pal["mark"] = hsv(0.1, 0.3, r.uniform(0.7, 0.9))
    return pal


def ochre(r, label):
    box = [(150, 62, 34), (184, 112, 50), (92, 40, 28), (44, 34, 30), (222, 200, 168)]
    return complete(r, lambda: box[r.integers(5)], (r.uniform(160, 205), r.uniform(140, 165), r.uniform(105, 130)), box[r.integers(2, 4)])


def fairground(r, label):
    box = [(206, 34, 44), (24, 96, 176), (248, 190, 40), (30, 140, 90), (236, 236, 226)]
    return complete(r, lambda: box[r.integers(5)], hsv(r.random(), r.uniform(0.3, 0.8), r.uniform(0.1, 0.3)), (255, r.uniform(190, 240), r.uniform(90, 190)))


def wool(r, label):
    box = [(146, 34, 42), (34, 56, 92), (228, 220, 202), (58, 92, 72), (196, 150, 70), (112, 108, 108), (210, 132, 140)]
    return complete(r, lambda: box[r.integers(7)], box[r.integers(7)])


def metal(r, label):
    box = [(150, 150, 156), (184, 120, 70), (196, 168, 84), (70, 70, 76)]
    ink = box[r.integers(4)]
    return complete(r, lambda: ink, hsv(r.uniform(0.02, 0.15), r.uniform(0.02, 0.3), r.uniform(0.65, 0.92)), ink)


def collage(r, label):
    make = lambda: hsv(r.random(), r.uniform(0.45, 0.9), r.uniform(0.35, 0.9))
    return complete(r, make, (r.uniform(205, 232), r.uniform(200, 224), r.uniform(185, 208)), (30, 28, 30))


def indigo(r, label):
    box = [(26, 40, 92), (58, 84, 150), (120, 52, 40), (196, 152, 92), (214, 206, 190)]
    pal = complete(r, lambda: box[r.integers(5)], box[r.integers(4)], (18, 22, 48))
    pal["light"] = (232, 222, 200)
    return pal


def solder(r, label):
    ground = [(18, 84, 50), (22, 46, 110), (24, 24, 26), (120, 22, 26)][r.integers(4)]
    pal = complete(r, lambda: (206, 150, 76), ground, [(206, 150, 76), (196, 200, 204), (110, 190, 120)][r.integers(3)])
    pal["mark"] = (222, 224, 226)
    return pal


def warmth(r, label):
    """Temperatures, as lightness."""
    cold, hot = r.uniform(10, 90), r.uniform(150, 250)
    if r.random() < 0.25:
        cold, hot = hot, cold
    make = lambda: (np.clip(hot + r.normal(0, 28), 0, 255),) * 3
    return complete(r, make, (cold,) * 3, (np.clip(hot + r.normal(0, 15), 0, 255),) * 3)


# Grounds.


def guilloche(r, pal, h, w):
    """Families of fine interlacing curves."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    out, strength = plain(r, pal, h, w), r.uniform(0.25, 0.6)
    for _ in range(r.integers(2, 4)):
        a, lines = r.uniform(0, 6.28), r.uniform(7, 15)
        u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
        on = abs(np.sin((v + r.uniform(0.03, 0.12) * np.sin(u * r.uniform(6, 18))) * lines * 3.1416)) < 0.22
        out = np.where(on[..., None], out * (1 - strength) + np.array(pal["ink"]) * strength, out)
    return out


def ridged(r, pal, h, w):
    """Bark: ridges and deep fissures, upright."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    bent = x * r.uniform(5, 10) + cloudy(r, h, w, 6)[..., 0] * 0.45 + 0.3 * np.sin(y * 5 + r.uniform(0, 6))
    ridge = np.sin(bent * 6.2832)
    crack = ridge + 0.5 * cloudy(r, h, w, 14)[..., 0] < r.uniform(-1.1, -0.75)
    out = plain(r, pal, h, w) * (1 + 0.16 * ridge[..., None]) + cloudy(r, h, w, 30) * 9
    return np.where(crack[..., None], out * 0.4, out)


def rock(r, pal, h, w):
    """Stained stone with cracks."""
    out = plain(r, pal, h, w) + cloudy(r, h, w, 4) * 18 + cloudy(r, h, w, 11) * 11 * np.array([1, 0.9, 0.7]) + cloudy(r, h, w, 40) * 8
    image = Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(r.integers(2, 6)):
        at, a = r.uniform(0, 1, 2) * [w, h], r.uniform(0, 6.28)
        for _ in range(r.integers(8, 25)):
            a += r.normal(0, 0.5)
            to = at + np.array([np.cos(a), np.sin(a)]) * min(h, w) * 0.04
            draw.line((*at, *to), fill=(70, 54, 42), width=int(r.integers(1, 3)))
            at = to
    return np.asarray(image, np.float32)


def lamp_board(r, pal, h, w):
    """Boards side by side, and rows of lamps that are out or burn low."""
    y, x = np.mgrid[0:h, 0:w]
    step, board = min(h, w) * r.uniform(0.08, 0.13), min(h, w) * r.uniform(0.15, 0.3)
    out = plain(r, pal, h, w) * np.where((x // board % 2 == 0)[..., None], 1.0, r.uniform(0.6, 1.5))
    lamp = np.hypot(x % step - step / 2, y % step - step / 2) < step * r.uniform(0.14, 0.24)
    return np.where(lamp[..., None], np.array(pal["ink"]) * r.uniform(0.3, 0.75), out)


def fair_isle(r, pal, h, w):
    """Bands of small figures, as jumpers have."""
    out, (y, x) = plain(r, pal, h, w), np.mgrid[0:h, 0:w] / min(h, w)
    top = -r.uniform(0, 0.1)
    while top < h / min(h, w):
        tall, wide, kind = r.uniform(0.08, 0.16), r.uniform(0.06, 0.12), r.integers(4)
        u, v = abs((x / wide) % 1 - 0.5) * 2, abs((y - top) / tall - 0.5) * 2
        figure = [u + v < 0.9, abs(u - v) < 0.3, (u < 0.5) == (v < 0.5), abs(u + v - 0.8) < 0.3][kind] & (v < 1)
        colour = np.clip(np.array(pal["ground"]) * 0.45 + np.array(pal[["second", "third", "light"][r.integers(3)]]) * 0.55, 0, 255)
        out = np.where(figure[..., None], colour, out)
        top += tall + r.uniform(0.02, 0.12)
    return out


def window_light(r, pal, h, w):
    """A wall with the sun on it, through a window with bars."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    u, v = x + y * r.uniform(-0.6, 0.6), y + x * r.uniform(-0.3, 0.3)
    across, up, bar = r.uniform(0.22, 0.45), r.uniform(0.22, 0.45), r.uniform(0.06, 0.16)
    bright = ((u / across + r.random()) % 1 > bar) & ((v / up + r.random()) % 1 > bar)
    soft = np.asarray(Image.fromarray((bright * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(r.uniform(0.3, 2))), np.float32) / 255
    return plain(r, pal, h, w) * (r.uniform(0.5, 0.7) + 0.42 * soft[..., None]) + cloudy(r, h, w, 30) * 3


def newsprint(r, pal, h, w):
    """Columns of words, a heading, a rule."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw, size = ImageDraw.Draw(image), min(h, w)
    column, row, ink = size * r.uniform(0.25, 0.42), max(3, size * r.uniform(0.028, 0.045)), int(r.uniform(40, 110))
    for left in np.arange(-r.uniform(0, 1) * column, w, column):
        y = r.uniform(-0.05, 0.05) * h
        while y < h:
            tall = row * (2.2 if r.random() < 0.07 else 1)
            x = left
            while x < left + column * 0.92:
                word = min(tall * r.uniform(0.8, 3.2), left + column * 0.92 - x)
                draw.rectangle((x, y, x + word, y + tall * 0.45), fill=(ink,) * 3)
                x += word + tall * 0.5
            y += tall
    turned = image.rotate(r.uniform(-25, 25), Image.Resampling.BILINEAR, fillcolor=tuple(int(c) for c in pal["ground"]))
    return np.asarray(turned, np.float32)


def tie_dyed(r, pal, h, w):
    """Ragged rings and rays of dye from a knot."""
    y, x = np.mgrid[0:h, 0:w] / min(h, w)
    x, y = x - r.uniform(0.1, 0.9), y - r.uniform(0.1, 0.9)
    a, far = np.arctan2(y, x), np.hypot(x, y)
    field = np.sin((far * r.uniform(3, 6) + 0.06 * np.sin(a * r.integers(6, 16))) * 6.2832 + cloudy(r, h, w, 9)[..., 0])
    t = np.clip(field * 1.5, -1, 1)[..., None] / 2 + 0.5
    other = np.array(pal["ground"]) * 0.55 + np.array(pal["light"]) * r.uniform(0.15, 0.45)
    return plain(r, pal, h, w) * (1 - t) + other * t


def circuit(r, pal, h, w):
    """Conductors that run straight or at half a right angle, and the pads they end in."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw, step = ImageDraw.Draw(image), min(h, w) * r.uniform(0.05, 0.08)
    strength = r.uniform(0.3, 0.75)
    colour = tuple(int(c) for c in np.array(pal["ground"]) * (1 - strength) + np.array(pal["ink"]) * strength)
    for _ in range(r.integers(12, 26)):
        at, way = np.round(r.uniform(0, 1, 2) * [w, h] / step) * step, r.integers(8)
        pad = step * 0.28
        draw.ellipse((*(at - pad), *(at + pad)), fill=colour)
        for _ in range(r.integers(1, 5)):
            way += r.integers(-1, 2)
            to = at + np.round([np.cos(way * 0.7854), np.sin(way * 0.7854)]) * step * r.integers(1, 5)
            draw.line((*at, *to), fill=colour, width=max(1, int(step * 0.25)))
            at = to
        draw.ellipse((*(at - pad), *(at + pad)), fill=colour)
    return np.asarray(image, np.float32)


def room(r, pal, h, w):
    """Walls and things that are a little warmer or colder."""
    image = Image.fromarray(plain(r, pal, h, w).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(r.integers(3, 9)):
        x, y, dx, dy = r.uniform(-0.2, 1) * w, r.uniform(-0.2, 1) * h, r.uniform(0.1, 0.6) * w, r.uniform(0.1, 0.6) * h
        draw.rectangle((x, y, x + dx, y + dy), fill=(int(np.clip(pal["ground"][0] + r.normal(0, 26), 0, 255)),) * 3)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(min(h, w) * r.uniform(0.005, 0.03))), np.float32) + cloudy(r, h, w, 5) * 8


# Bends.


def octilinear(r):
    """Every corner on a lattice, as a board's router would have it."""
    cell = r.uniform(0.07, 0.11)

    def bend(points, closed):
        snapped = np.round(densify(points, closed, cell * 1.5) / cell) * cell
        kept = snapped[np.r_[True, np.abs(np.diff(snapped, axis=0)).sum(1) > 1e-9]]
        return kept if len(kept) > 3 else points

    return bend


def draped(r):
    """On cloth that hangs in folds."""
    a, folds, deep, phase = r.uniform(0, 3.14), r.uniform(2, 5), r.uniform(0.03, 0.08), r.uniform(0, 6.28)
    along = np.array([np.cos(a), np.sin(a)])

    def bend(points, closed):
        points = densify(points, closed, 0.1)
        fold = abs((points @ along * folds / 2 + phase) % 2 - 1) - 0.5
        return points + fold[:, None] * deep * 2 * np.array([along[0] - along[1], along[0] + along[1]])

    return bend


def slanted(r):
    by = r.uniform(0.15, 0.4) * r.choice([-1, 1])
    return lambda points, closed: points + points[:, 1:] * np.array([by, 0])


# Effects.


def weathered(r, layer, ground, pal):
    """The ground's own relief goes on through the drawing."""
    relief = np.asarray(ground.convert("L").filter(ImageFilter.GaussianBlur(0.6)), np.float32)
    ground.paste(layer, mask=layer)
    gain = np.clip(1 + (relief - relief.mean()) / 255 * r.uniform(0.8, 1.6), 0.3, 1.5)
    return Image.fromarray(np.clip(np.asarray(ground, np.float32) * gain[..., None], 0, 255).astype(np.uint8))


def flaked(r, layer, ground, pal):
    """Whole pieces have come away, and all is pale."""
    w, h = layer.size
    left = (cloudy(r, h, w, 16)[..., 0] + 0.6 * cloudy(r, h, w, 34)[..., 0] > r.uniform(-2, -1.3)) * r.uniform(0.7, 0.95)
    layer.putalpha(Image.fromarray((np.asarray(layer.getchannel("A"), np.float32) * left).astype(np.uint8)))
    ground.paste(layer, mask=layer)
    return ground


def sunlit(r, layer, ground, pal):
    """Stands off the wall: its shadow lies beside it, long and nearly as dark."""
    w, h = layer.size
    by, slope = min(w, h) * r.uniform(0.03, 0.09) * r.choice([-1, 1]), r.uniform(-0.25, 0.25)
    shadow = layer.transform((w, h), Image.Transform.AFFINE, (1, slope, -by - slope * h / 2, 0, 1, -abs(by)), Image.Resampling.BILINEAR)
    ground.paste((40, 36, 44), mask=shadow.getchannel("A").filter(ImageFilter.GaussianBlur(r.uniform(0.4, 1.2))).point(lambda v: int(v * 0.6)))
    ground.paste(layer, mask=layer)
    return ground


def pasted(r, layer, ground, pal):
    """Glued on, with creases over everything."""
    shadow_of(layer, ground, (1, 1), 1, 0.5)
    ground.paste(layer, mask=layer)
    w, h = layer.size
    y, x = np.mgrid[0:h, 0:w]
    light = np.ones((h, w))
    for _ in range(r.integers(1, 5)):
        a = r.uniform(0, 6.28)
        off = (x - r.uniform(0, w)) * np.cos(a) + (y - r.uniform(0, h)) * np.sin(a)
        light += np.where(abs(off) < min(w, h) * 0.02, np.sign(off) * r.uniform(0.1, 0.3), 0)
    return Image.fromarray(np.clip(np.asarray(ground, np.float32) * light[..., None], 0, 255).astype(np.uint8))


def crackled(r, layer, ground, pal):
    """The wax broke, and dye ran into the cracks, across all."""
    ground.paste(layer, mask=layer)
    draw, (w, h) = ImageDraw.Draw(ground), layer.size
    colour = tuple(int(c) for c in pal["ink"])
    for _ in range(r.integers(8, 18)):
        at, a = r.uniform(0, 1, 2) * [w, h], r.uniform(0, 6.28)
        for _ in range(r.integers(4, 16)):
            a += r.normal(0, 0.35)
            to = at + np.array([np.cos(a), np.sin(a)]) * min(h, w) * 0.05
            draw.line((*at, *to), fill=colour, width=int(r.integers(1, 3)))
            at = to
    return ground


# Wear.


def knitted(r, image):
    """Stitches, each of one colour and shaped like a V."""
    across = int(r.integers(34, 43))
    down = max(8, round(across * image.height / image.width * 1.15))
    cells = np.asarray(image.resize((across, down), Image.Resampling.BOX).quantize(10, dither=Image.Dither.NONE).convert("RGB"), np.float32)
    y, x = np.mgrid[0 : image.height, 0 : image.width]
    u, v = x * across / image.width, y * down / image.height
    v = v + abs(u % 1 - 0.5) - 0.25
    shadow = 1 - 0.45 * (np.minimum(v % 1, 1 - v % 1) < 0.14) - 0.25 * (abs(u % 1 - 0.5) < 0.08)
    stitches = cells[np.clip(v.astype(int), 0, down - 1), np.clip(u.astype(int), 0, across - 1)]
    return Image.fromarray(np.clip(stitches * shadow[..., None] + r.normal(0, 5, (*x.shape, 1)), 0, 255).astype(np.uint8))


def false_colours(r, image):
    """Seen by its warmth, with few and noisy detectors."""
    scales = [
        [(0, 0, 20), (70, 10, 120), (200, 50, 60), (250, 160, 30), (255, 250, 210)],
        [(10, 10, 120), (20, 150, 200), (60, 190, 80), (240, 220, 50), (220, 40, 30)],
        [(0, 0, 0), (60, 60, 60), (120, 120, 120), (190, 190, 190), (255, 255, 255)],
    ]
    scale = np.array(scales[r.choice(3, p=[0.45, 0.4, 0.15])], float)
    few = image.convert("L").filter(ImageFilter.GaussianBlur(min(image.size) * r.uniform(0.006, 0.014))).resize((image.width * 5 // 8, image.height * 5 // 8))
    heat = np.asarray(few, np.float32) + r.normal(0, r.uniform(2, 8), (few.height, few.width)) + r.normal(0, r.uniform(0, 5), (1, few.width))
    at = np.clip(heat / 255 * 4, 0, 3.999)
    i, t = at.astype(int), (at % 1)[..., None]
    seen = Image.fromarray((scale[i] * (1 - t) + scale[i + 1] * t).astype(np.uint8))
    return seen.resize(image.size, Image.Resampling.BILINEAR)


FINISHES = named(engraved, carved, dabbed, bulbs, trimmed, wired, torn, waxed, traced, warm)
PALETTES = named(banknote, bark, ochre, fairground, wool, metal, collage, indigo, solder, warmth)
GROUNDS = named(guilloche, ridged, rock, lamp_board, fair_isle, window_light, newsprint, tie_dyed, circuit, room)
BENDS = named(octilinear, draped, slanted)
EFFECTS = named(weathered, flaked, sunlit, pasted, crackled)
WEAR = named(knitted, false_colours)
