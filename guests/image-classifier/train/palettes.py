"""Colours: one for each role, and two for the background."""

import colorsys

import numpy as np

from named import named

# Body, second, third: as things are.
NATURAL = {
    "car": ("c81e28", "282828", "f0d060"),
    "clock": ("8a5a30", "b08040", "303030"), "cloud": ("f4f6fa", "c0c8d8", "8090a8"), "cross": ("c82828", "303030", "f0f0f0"),
    "cup": ("f0ece0", "d8d0c0", "5a3418"), "envelope": ("f2e8d0", "e0d0b0", "b82828"), "fish": ("f08030", "e0a040", "303030"),
    "flower": ("e85890", "389040", "f8d038"), "heart": ("d81e3c", "f06080", "ffffff"), "house": ("e8d0a0", "a84030", "704828"),
    "key": ("d8b040", "a08030", "705020"), "ladder": ("b07840", "c89058", "805028"), "light bulb": ("f8e060", "909498", "505458"),
    "moon": ("f4e8a0", "d0c070", "fff8d0"), "mushroom": ("c82820", "f0e8d8", "b0a090"), "sailboat": ("8a4a28", "fafafa", "f0e8e0"),
    "star": ("f8c820", "e0a010", "ffffff"), "sun": ("f8c820", "f0a020", "804010"),
    "tree": ("308038", "785030", "d03030"), "umbrella": ("7030a0", "e05080", "303030"),
}


def luminance(colour):
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def hsv(h, s, v):
    return tuple(255 * c for c in colorsys.hsv_to_rgb(h % 1, s, v))


def far(r, make, others, distance=95):
    """A colour from `make` that differs from the others; the best of some tries."""
    best, best_gap = None, -1
    for _ in range(20):
        colour = make()
        gap = min(abs(luminance(colour) - luminance(o)) + 0.25 * np.abs(np.subtract(colour, o)).sum() for o in others)
        if gap > best_gap:
            best, best_gap = colour, gap
        if gap > distance:
            break
    return best


def anything(r):
    return hsv(r.random(), r.uniform(0, 1), r.uniform(0.1, 1))


def complete(r, make, ground, ink=None, paper=None):
    """A palette whose parts stand off the ground and off each other."""
    body = far(r, make, [ground])
    second, third = far(r, make, [ground, body], 60), far(r, make, [ground, body], 60)
    light = far(r, lambda: hsv(r.random(), r.uniform(0, 0.25), r.uniform(0.85, 1)) if luminance(body) < 150 else hsv(r.random(), 0.5, r.uniform(0.1, 0.4)), [body])
    if ink is None:
        ink = far(r, lambda: hsv(r.random(), r.uniform(0, 0.6), r.choice([r.uniform(0, 0.25), r.uniform(0.85, 1)])), [ground, body], 110)
    mark = far(r, lambda: (lambda v: (v, v, v))(r.choice([20, 240])), [body])
    return {"body": body, "second": second, "third": third, "light": light, "ink": ink, "mark": mark, "paper": paper or ground, "ground": ground, "ground2": tuple(np.clip(np.array(ground) + r.normal(0, 22, 3), 0, 255))}


def natural(r, label):
    of = lambda text: tuple(np.clip([int(text[i : i + 2], 16) + r.normal(0, 14) for i in (0, 2, 4)], 0, 255))
    body, second, third = (of(c) for c in NATURAL[label])
    ground = far(r, lambda: hsv(r.random(), r.uniform(0, 0.7), r.uniform(0.2, 1)), [body, second])
    pal = complete(r, lambda: anything(r), ground)
    pal.update(body=body, second=second, third=third, mark=(25, 25, 25) if luminance(body) > 110 else (240, 240, 240))
    pal["light"] = (245, 245, 240) if luminance(body) < 170 else (90, 140, 190)
    if r.random() < 0.6:
        pal["ink"] = (r.uniform(0, 50),) * 3 if luminance(ground) > 70 else (235, 235, 235)
    return pal


def free(r, label):
    return complete(r, lambda: anything(r), anything(r))


def dark_on_light(r, label):
    ground = hsv(r.random(), r.uniform(0, 0.15), r.uniform(0.8, 1)) if r.random() < 0.7 else (255, 255, 255)
    ink = hsv(r.random(), r.uniform(0, 0.9), r.uniform(0, 0.5))
    if r.random() < 0.4:
        ink = (r.uniform(0, 40),) * 3
    pal = complete(r, lambda: hsv(r.random(), r.uniform(0, 0.9), r.uniform(0.1, 0.6)), ground, ink)
    if r.random() < 0.6:
        pal.update(body=ink, second=ink, third=ink, light=ground, mark=ground)
    return pal


def light_on_dark(r, label):
    ground = hsv(r.random(), r.uniform(0, 0.9), r.uniform(0, 0.3))
    ink = hsv(r.random(), r.uniform(0, 0.4), r.uniform(0.75, 1))
    pal = complete(r, lambda: hsv(r.random(), r.uniform(0, 0.8), r.uniform(0.6, 1)), ground, ink)
    if r.random() < 0.6:
        pal.update(body=ink, second=ink, third=ink, light=ground, mark=ground)
    return pal


def one_hue(r, label):
    h = r.random()
    return complete(r, lambda: hsv(h + r.normal(0, 0.02), r.uniform(0.1, 1), r.uniform(0.1, 1)), hsv(h, r.uniform(0.05, 0.9), r.uniform(0.15, 1)))


def crayons(r, label):
    """A box of eight plain colours, on white."""
    box = [(200, 30, 40), (30, 80, 190), (30, 140, 60), (240, 190, 20), (230, 110, 20), (110, 50, 140), (110, 70, 40), (20, 20, 20)]
    pick = lambda: tuple(np.clip(np.array(box[r.integers(8)]) + r.normal(0, 10, 3), 0, 255))
    return complete(r, pick, (r.uniform(235, 255),) * 3, pick())


def mild(r, label):
    """Little colour, little contrast."""
    s, v = r.uniform(0, 0.4), r.uniform(0.25, 0.95)
    make = lambda: hsv(r.random(), np.clip(s + r.normal(0, 0.1), 0, 1), np.clip(v + r.normal(0, 0.17), 0.05, 1))
    return complete(r, make, make(), far(r, make, [make()], 70) if r.random() < 0.5 else None)


def faint(r, label):
    """Fills hardly stand off the ground; lines do."""
    ground = np.array(hsv(r.random(), r.uniform(0, 0.5), r.uniform(0.1, 1)))
    make = lambda: tuple(np.clip(ground + r.normal(0, 26, 3) + r.normal(0, 14), 0, 255))
    ink = far(r, lambda: hsv(r.random(), r.uniform(0, 0.8), r.uniform(0, 1)), [tuple(ground)], r.uniform(60, 130))
    pal = complete(r, make, tuple(ground), ink)
    if r.random() < 0.5:
        pal.update(mark=ink, light=make())
    return pal


def alike(r, label):
    """Of one lightness: only the hue tells things apart."""
    v = r.uniform(0.4, 1)
    return complete(r, lambda: hsv(r.random(), r.uniform(0.3, 0.9), np.clip(v + r.normal(0, 0.08), 0.1, 1)), hsv(r.random(), r.uniform(0.2, 0.9), v))


def poster(r, label):
    """Three inks, anyhow."""
    box = [anything(r) for _ in range(3)]
    pick = lambda: box[r.integers(3)]
    return complete(r, pick, anything(r), pick())


# Of the validation styles.


def rust(r, label):
    box = [(122, 59, 46), (201, 123, 74), (233, 201, 160), (67, 52, 55), (150, 160, 150)]
    return complete(r, lambda: box[r.integers(5)], box[r.integers(5)])


def mint(r, label):
    make = lambda: hsv(r.uniform(0.38, 0.5), r.uniform(0.1, 0.6), r.uniform(0.3, 1))
    return complete(r, make, make())


# Of the held-out styles.


def pastel(r, label):
    make = lambda: hsv(r.random(), r.uniform(0.2, 0.42), r.uniform(0.82, 1))
    return complete(r, make, (250, 250, 250), hsv(r.random(), 0.5, 0.4))


def sixteen(r, label):
    """The sixteen colours of old displays."""
    box = [(a * m, b * m, c * m) for m in (128, 255) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    return complete(r, lambda: box[r.integers(16)], box[r.integers(16)])


def slate(r, label):
    chalks = [(240, 240, 235), (250, 235, 150), (250, 180, 190), (170, 210, 250), (180, 240, 180)]
    ground = [(36, 66, 54), (40, 44, 48), (30, 50, 60)][r.integers(3)]
    return complete(r, lambda: chalks[r.integers(5)], ground, chalks[r.integers(5)])


def parchment(r, label):
    ground, ink = (226, 205, 160), (r.uniform(40, 70), r.uniform(25, 40), 15)
    return complete(r, lambda: ink, ground, ink, paper=(232, 214, 172))


def night(r, label):
    make = lambda: hsv(r.choice([0.5, 0.85, 0.92, 0.3, 0.12, 0.6]), r.uniform(0.7, 1), 1)
    return complete(r, make, (14, 10, 30), make())


def ballpoint(r, label):
    ink = [(25, 40, 150), (20, 20, 30), (170, 25, 40)][r.integers(3)]
    return complete(r, lambda: ink, (246, 246, 242), ink)


def aquarelle(r, label):
    pal = complete(r, lambda: hsv(r.random(), r.uniform(0.5, 0.8), r.uniform(0.4, 0.85)), (248, 246, 238))
    pal["light"] = (235, 235, 225)
    pal["ink"] = pal["mark"] = hsv(r.random(), 0.6, 0.3)
    return pal


def print_inks(r, label):
    box = [(230, 40, 60), (20, 120, 200), (250, 215, 40), (30, 150, 90)]
    return complete(r, lambda: box[r.integers(4)], (250, 244, 228), (20, 20, 24))


def card(r, label):
    box = [(180, 58, 72), (66, 106, 130), (226, 178, 88), (92, 130, 92), (238, 228, 208), (70, 60, 72)]
    return complete(r, lambda: box[r.integers(6)], (176, 132, 88))


# Of the second held-out styles.


def blueprint(r, label):
    ground = (r.uniform(15, 50), r.uniform(50, 90), r.uniform(110, 165))
    return complete(r, lambda: hsv(0.58, r.uniform(0, 0.25), r.uniform(0.85, 1)), ground, (225, 236, 248))


def glass(r, label):
    """Light through colour."""
    return complete(r, lambda: hsv(r.random(), r.uniform(0.75, 1), r.uniform(0.55, 0.95)), hsv(r.random(), r.uniform(0.2, 0.5), r.uniform(0.75, 0.95)), (22, 20, 24))


def lino(r, label):
    ink = [(18, 18, 18), (28, 52, 92), (128, 30, 24), (24, 72, 52)][r.integers(4)]
    return complete(r, lambda: ink, (238, 230, 212), ink)


def yarn(r, label):
    make = lambda: hsv(r.random(), r.uniform(0.35, 0.65), r.uniform(0.35, 0.8))
    return complete(r, make, hsv(r.random(), r.uniform(0.1, 0.35), r.uniform(0.55, 0.9)))


def dusk(r, label):
    make = lambda: hsv(r.uniform(0.62, 1.12), r.uniform(0.3, 0.75), r.uniform(0.25, 1))
    return complete(r, make, make())


def spray(r, label):
    make = lambda: hsv(r.random(), r.uniform(0.7, 1), r.uniform(0.8, 1))
    return complete(r, make, (150, 78, 60), (16, 14, 20))


def phosphor(r, label):
    ink = [(70, 255, 110), (255, 180, 50), (190, 230, 255)][r.integers(3)]
    return complete(r, lambda: ink, (8, 14, 10), ink)


def icing(r, label):
    box = [(252, 250, 246), (248, 178, 196), (172, 222, 232), (250, 232, 150), (190, 226, 170)]
    return complete(r, lambda: box[r.integers(5)], (158, 104, 56), box[r.integers(5)])


def quilt(r, label):
    box = [(164, 62, 74), (70, 92, 132), (224, 196, 150), (110, 132, 96), (96, 74, 96), (236, 226, 214)]
    return complete(r, lambda: box[r.integers(6)], box[r.integers(6)])


def old_masters(r, label):
    make = lambda: hsv(r.uniform(0.02, 0.16) if r.random() < 0.7 else r.random(), r.uniform(0.3, 0.8), r.uniform(0.15, 0.9))
    return complete(r, make, hsv(r.uniform(0.04, 0.14), r.uniform(0.35, 0.7), r.uniform(0.12, 0.5)))


PALETTES = named(
    natural, free, dark_on_light, light_on_dark, one_hue, crayons, mild, faint, alike, poster, rust, mint,
    pastel, sixteen, slate, parchment, night, ballpoint, aquarelle, print_inks, card,
    blueprint, glass, lino, yarn, dusk, spray, phosphor, icing, quilt, old_masters,
)
