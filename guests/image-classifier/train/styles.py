"""The styles, and the split: what is trained on, what choices are made by, and what is held out.

A style names the kinds that a drawing of it draws lots from. A kind that a validation or a held-out
style names and that is listed under `TRAINED` or `BROAD` is one that training sees; `check_split` states that every
such style has at least three kinds that training never sees, and that validation and held-out styles
share none of those.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

import bends
import crafts
import finishes
import fourth
import grounds
import palettes
import third
import wear
from renderers import RENDERERS
from shapes import CLASSES, LABELS, Part

BENDS = bends.BENDS | third.BENDS
FINISHES = finishes.FINISHES | crafts.FINISHES | third.FINISHES | fourth.FINISHES
GROUNDS = grounds.GROUNDS | crafts.GROUNDS | third.GROUNDS | fourth.GROUNDS
PALETTES = palettes.PALETTES | crafts.PALETTES | third.PALETTES | fourth.PALETTES
EFFECTS = wear.EFFECTS | crafts.EFFECTS | third.EFFECTS | fourth.EFFECTS
WEAR = wear.WEAR | third.WEAR | fourth.WEAR


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

# Broader: grounds with regular patterns, low contrast, and effects.
BROAD = Style(
    renderer=TRAINED.renderer,
    finish=TRAINED.finish + ["flat_outlined", "flat", "patterned", "shadowed", "broken", "streaky", "streaky"],
    palette=TRAINED.palette + ["mild", "faint", "alike", "poster"],
    ground=["plain", "linear", "noisy", "blotchy", "lines", "shapes", "strong_clutter", "bars", "waves", "spots", "tiles", "strokes", "basket", "rings", "scales", "confetti", "two_halves"],
    bend=TRAINED.bend,
    effect=["over", "over", "over", "see_through", "rimmed", "worn", "ragged"],
    wear=TRAINED.wear + ["none", "few_tones", "banded", "scattered", "smoothed", "sharpened"],
    most_wear=2,
)

VALIDATION = {
    "dashed felt pen": Style(["pillow"], ["dashed"], ["rust"], ["dotted"], ["zigzag"]),
    "cross stitch": Style(["skia"], ["cross_stitch"], ["rust"], ["woven"], ["still"], wear=["jpeg", "blur"]),
    "relief": Style(["pillow"], ["flat_outlined", "outline"], ["one_hue"], ["woven"], ["zigzag"], effect=["embossed"]),
    "mint on honeycomb": Style(["pillow"], ["flat_outlined", "doubled"], ["mint"], ["honeycomb"], ["zigzag"]),
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

# Written when the ones above had been looked at, to be looked at once.
HELD_OUT_2 = {
    "blueprint": Style(["agg"], ["construction"], ["blueprint"], ["graph"], ["still"], wear=["webp", "none"]),
    "stained glass": Style(["resvg"], ["leaded"], ["glass"], ["panes"], ["warped"]),
    "linocut": Style(["agg"], ["linocut"], ["lino"], ["gouged"], ["wobbly"], effect=["patchy"]),
    "embroidery on felt": Style(["resvg"], ["satin"], ["yarn"], ["felted"], ["still"], effect=["padded"]),
    "slats at dusk": Style(["resvg"], ["slatted"], ["dusk"], ["folded"], ["still"]),
    "graffiti on brick": Style(["agg"], ["bubbled"], ["spray"], ["brick"], ["barrel"], effect=["sprayed"], wear=["lit", "none"]),
    "picture tube": Style(["agg"], ["plotted"], ["phosphor"], ["tube"], ["barrel"], effect=["glowing"], wear=["rastered"]),
    "icing on a biscuit": Style(["resvg"], ["piped"], ["icing"], ["biscuit"], ["wobbly"], effect=["padded"]),
    "patchwork on tartan": Style(["resvg"], ["stitched_on"], ["quilt"], ["tartan"], ["wobbly"]),
    "oil painting": Style(["agg"], ["daubed"], ["old_masters"], ["daubs"], ["warped"], wear=["oily"]),
}

# Written when the second ones had been looked at too, to be looked at once.
HELD_OUT_3 = {
    "banknote": Style(["agg"], ["engraved"], ["banknote"], ["guilloche"], ["slanted", "still"], wear=["webp", "none"]),
    "carved in bark": Style(["resvg"], ["carved"], ["bark"], ["ridged"], ["wobbly"], effect=["weathered"]),
    "cave painting": Style(["agg"], ["dabbed"], ["ochre"], ["rock"], ["wobbly", "warped"], effect=["flaked"], wear=["lit", "none"]),
    "fairground lights": Style(["resvg"], ["bulbs"], ["fairground"], ["lamp_board"], ["slanted", "still"], effect=["glowing", "over"]),
    "knitted jumper": Style(["agg"], ["trimmed", "flat"], ["wool"], ["fair_isle"], ["draped"], wear=["knitted"]),
    "wire on a sunlit wall": Style(["resvg"], ["wired"], ["metal"], ["window_light"], ["wobbly"], effect=["sunlit"]),
    "torn paper on newsprint": Style(["resvg"], ["torn"], ["collage"], ["newsprint"], ["warped", "still"], effect=["pasted"]),
    "batik": Style(["agg"], ["waxed"], ["indigo"], ["tie_dyed"], ["draped"], effect=["crackled"]),
    "circuit board": Style(["resvg"], ["traced"], ["solder"], ["circuit"], ["octilinear"], wear=["webp", "lit"]),
    "thermal picture": Style(["agg"], ["warm"], ["warmth"], ["room"], ["still", "slanted"], wear=["false_colours"]),
}

# Written when the third ones had been looked at too, to be looked at once.
HELD_OUT_4 = {
    "drawn in sand": Style(["agg"], ["furrowed"], ["beach"], ["rippled"], ["wobbly"], wear=["lit", "none"]),
    "cocoa on milk foam": Style(["resvg"], ["stencilled"], ["cocoa"], ["foam"], ["still"], effect=["dusted"]),
    "marquetry": Style(["agg"], ["veneered"], ["veneers"], ["burl"], ["still"], wear=["webp", "none"]),
    "footprints in snow": Style(["resvg"], ["trodden"], ["snow"], ["snowfield"], ["warped"]),
    "ink on silk": Style(["agg"], ["sumi"], ["scroll_inks"], ["silk"], ["wobbly"]),
    "plasticine": Style(["resvg"], ["modelled"], ["clay"], ["cutting_mat"], ["wobbly"], effect=["bulging"]),
    "rubber stamp on a letter": Style(["agg"], ["stamped"], ["stamp_pad"], ["posted"], ["still"], effect=["inked"]),
    "paper lantern": Style(["resvg"], ["backlit"], ["tissue"], ["dark_leaves"], ["still"], effect=["glowing", "over"]),
    "road sign": Style(["agg"], ["signed"], ["highway"], ["roadside"], ["still"], wear=["lit", "webp"]),
    "board of lamps": Style(["resvg"], ["lit_dots"], ["diodes"], ["panel"], ["still"], wear=["lamps"]),
}

CRAFTS = {
    "mosaic": Style(TRAINED.renderer, ["tesserae"], ["marble"], ["opus"], ["warped", "still"], wear=["lit", "none"]),
    "scratchboard": Style(TRAINED.renderer, ["scratched"], ["rainbow"], ["waxed_black"], ["wobbly", "still"]),
    "glass button": Style(TRAINED.renderer, ["glossy"], ["candy"], ["button"], ["still"], wear=["webp", "none"]),
    "painted tile": Style(TRAINED.renderer, ["cobalt"], ["delft"], ["wall_tile"], ["wobbly"], effect=["glazed"]),
    "misted window": Style(TRAINED.renderer, ["fingered"], ["mist"], ["fogged"], ["wobbly"], effect=["wiped"]),
    "facets": Style(TRAINED.renderer, ["faceted"], ["gems"], ["low_poly"], ["still", "warped"], wear=["webp", "none"]),
    "toy blocks": Style(TRAINED.renderer, ["extruded"], ["toy_blocks"], ["studded"], ["octilinear", "still"], wear=["lit", "none"]),
}

# The first three sets were looked at and became training's, by training's renderers: as they are, and their kinds mixed with all others.
SPENT = {name: replace(style, renderer=TRAINED.renderer) for name, style in (HELD_OUT | HELD_OUT_2 | HELD_OUT_3).items()} | CRAFTS
MIXED = Style(
    renderer=TRAINED.renderer,
    **{what: getattr(BROAD, what) + [kind for style in SPENT.values() for kind in getattr(style, what)] for what in ("finish", "palette", "ground", "bend", "effect", "wear")},
    most_wear=2,
)

SPLITS = {
    "train": {"trained": TRAINED, "broad": BROAD, "mixed": MIXED},
    "validation": VALIDATION,
    "held-out": HELD_OUT,
    "held-out-2": HELD_OUT_2,
    "held-out-3": HELD_OUT_3,
    "spent": SPENT,
    "held-out-4": HELD_OUT_4,
}


def kinds(style):
    return {(what, kind) for what in ("renderer", "finish", "palette", "ground", "bend", "effect", "wear") for kind in getattr(style, what)}


def check_split():
    seen = kinds(TRAINED) | kinds(MIXED)
    new = {split: set().union(*(kinds(s) - seen for s in SPLITS[split].values())) for split in ("validation", "held-out-4")}
    assert not new["validation"] & new["held-out-4"]
    for split in new:
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
