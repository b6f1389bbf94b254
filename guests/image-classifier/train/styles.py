"""The styles, and the split: what is trained on, what choices are made by, and what is held out.

A style names the kinds that a drawing of it draws lots from. A kind that a validation or a held-out
style names and that is listed under `TRAINED` is one that training sees; `check_split` states that every
such style has at least three kinds that training never sees, and that validation and held-out styles
share none of those.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from bends import BENDS
from finishes import FINISHES
from grounds import GROUNDS
from palettes import PALETTES
from renderers import RENDERERS
from shapes import CLASSES, LABELS, Part
from wear import EFFECTS, WEAR


@dataclass
class Style:
    renderer: list
    finish: list
    palette: list
    ground: list
    bend: list
    effect: list = field(default_factory=lambda: ["over"])
    wear: list = field(default_factory=lambda: ["none"])
    most_wear: int = 1


TRAINED = Style(
    renderer=["pillow", "skia"],
    finish=["flat", "flat_outlined", "outline", "outline", "gradient", "hatched", "silhouette", "sketch", "scribble", "brush"],
    palette=["natural", "free", "dark_on_light", "light_on_dark", "one_hue", "crayons"],
    ground=["plain", "plain", "linear", "vignette", "noisy", "blotchy", "lines", "shapes", "strong_clutter"],
    bend=["still", "wobbly", "warped", "tilted", "both"],
    wear=["none", "none", "blur", "motion", "grain", "jpeg", "small", "occluded", "lit", "photographed", "toned"],
    most_wear=3,
)

VALIDATION = {
    "dashed felt pen": Style(["pillow"], ["dashed"], ["rust"], ["dotted"], ["zigzag"]),
    "cross stitch": Style(["skia"], ["cross_stitch"], ["rust"], ["woven"], ["still"], wear=["jpeg", "blur"]),
    "relief": Style(["pillow"], ["flat_outlined", "outline"], ["one_hue"], ["woven"], ["zigzag"], effect=["embossed"]),
}

HELD_OUT = {
    "pastel on checks": Style(["agg"], ["flat_outlined"], ["pastel"], ["checkered"], ["barrel"], wear=["webp"]),
    "sticker": Style(["resvg"], ["radial"], ["free"], ["striped"], ["still"], effect=["sticker"]),
    "pixel art": Style(["agg"], ["flat_outlined", "flat"], ["sixteen"], ["tiled"], ["still"], wear=["pixelated"]),
    "chalk on slate": Style(["resvg"], ["outline", "brush"], ["slate"], ["smudged"], ["wobbly"], effect=["chalky"]),
    "stipple on parchment": Style(["agg"], ["stippled"], ["parchment"], ["aged"], ["still"]),
    "neon at night": Style(["resvg"], ["neon"], ["night"], ["bokeh"], ["still"], effect=["glowing"], wear=["fringed"]),
    "ballpoint on squared paper": Style(["agg"], ["sketch", "outline"], ["ballpoint"], ["squared"], ["swirled"], wear=["hand_shadow"]),
    "watercolour": Style(["resvg"], ["flat"], ["aquarelle"], ["laid"], ["warped"], effect=["bleeding"]),
    "halftone comic": Style(["agg"], ["two_tone"], ["print_inks"], ["rays"], ["barrel"], wear=["halftone"]),
    "cut card on wood": Style(["resvg"], ["flat"], ["card"], ["wooden"], ["scissored"], effect=["raised"], wear=["webp"]),
}

SPLITS = {"train": {"trained": TRAINED}, "validation": VALIDATION, "held-out": HELD_OUT}


def kinds(style):
    return {(what, kind) for what in ("renderer", "finish", "palette", "ground", "bend", "effect", "wear") for kind in getattr(style, what)}


def check_split():
    seen = kinds(TRAINED)
    new = {split: set().union(*(kinds(s) - seen for s in SPLITS[split].values())) for split in ("validation", "held-out")}
    assert not new["validation"] & new["held-out"]
    for split in ("validation", "held-out"):
        for name, style in SPLITS[split].items():
            assert len(kinds(style) - seen) >= 3, name


def place(r, parts, bend, width, height):
    """The parts in pixels: turned, stretched, bent, scaled and set down."""
    a = r.normal(0, 0.16)
    stretch = np.exp(r.normal(0, 0.1))
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) @ np.diag([stretch, 1 / stretch])
    placed = [Part(bend(part.points @ turn, part.closed), part.role, part.closed) for part in parts]
    every = np.concatenate([part.points for part in placed])
    low, high = every.min(0), every.max(0)
    room = np.array([width, height]) * r.uniform(0.55, 0.93)
    scale = (room / np.maximum(high - low, 0.05)).min()
    slack = np.array([width, height]) - (high - low) * scale
    at = slack * np.clip(r.normal(0.5, 0.22, 2), 0.02, 0.98)
    for part in placed:
        part.points = (part.points - low) * scale + at
    return placed


def draw(style, label, r, base=128, shape=None):
    """One picture: RGB, `base` pixels or so on its sides."""
    one = lambda names: names[r.integers(len(names))]
    if shape is None:
        aspect = np.exp(np.clip(r.normal(0, 0.22), -0.5, 0.5))
        shape = int(base * np.sqrt(aspect)), int(base / np.sqrt(aspect))
    width, height = shape
    palette = PALETTES[one(style.palette)](r, label)
    parts = place(r, CLASSES[label](r), BENDS[one(style.bend)](r), width, height)
    layer = RENDERERS[one(style.renderer)](FINISHES[one(style.finish)](parts, palette, r, min(shape)), width, height)
    ground = GROUNDS[one(style.ground)](r, palette, height, width)
    ground = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    image = EFFECTS[one(style.effect)](r, layer, ground, palette)
    for _ in range(r.integers(1, style.most_wear + 1)):
        image = WEAR[one(style.wear)](r, image)
    return image


def seeded(seed, split, style, label, number):
    """A generator of its own for every picture: any one can be drawn alone."""
    place = [list(SPLITS).index(split), list(SPLITS[split]).index(style), LABELS.index(label)]
    return np.random.default_rng([seed, *place, number])
