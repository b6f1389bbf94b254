"""What happens to a drawing's layer before it lies on its ground, and to the picture afterwards."""

import io

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from grounds import cloudy
from named import named

# Effects: (rng, layer RGBA, ground RGB, palette) -> picture RGB.


def over(r, layer, ground, pal):
    ground.paste(layer, mask=layer)
    return ground


def shadow_of(layer, ground, offset, blur, strength):
    alpha = ImageChops.offset(layer.getchannel("A").filter(ImageFilter.GaussianBlur(blur)), *offset)
    ground.paste((10, 10, 15), mask=alpha.point(lambda v: int(v * strength)))


def see_through(r, layer, ground, pal):
    """The ground shows through."""
    return Image.blend(ground.copy(), over(r, layer, ground.copy(), pal), r.uniform(0.45, 0.85))


def rimmed(r, layer, ground, pal):
    """A contour or a glow about the whole, of any colour."""
    rim = layer.getchannel("A").filter(ImageFilter.MaxFilter(2 * int(r.integers(1, 4)) + 1)).filter(ImageFilter.GaussianBlur(r.uniform(0, 3)))
    strength = r.uniform(0.4, 1)
    ground.paste(tuple(int(c) for c in r.uniform(0, 255, 3)), mask=rim.point(lambda v: int(v * strength)))
    return over(r, layer, ground, pal)


def worn(r, layer, ground, pal):
    """Paint that has come off in places."""
    w, h = layer.size
    left = np.clip(1.2 + cloudy(r, h, w, r.integers(5, 30))[..., 0] * r.uniform(0.2, 0.7), 0, 1)
    layer.putalpha(Image.fromarray((np.asarray(layer.getchannel("A"), np.float32) * left).astype(np.uint8)))
    return over(r, layer, ground, pal)


def ragged(r, layer, ground, pal):
    """Edges that wander."""
    w, h = layer.size
    y, x = np.mgrid[0:h, 0:w]
    cells, by = r.integers(12, 45), min(w, h) * r.uniform(0.004, 0.014)
    dx, dy = (cloudy(r, h, w, cells)[..., 0] * by for _ in range(2))
    layer = Image.fromarray(np.asarray(layer)[np.clip(y + dy, 0, h - 1).astype(int), np.clip(x + dx, 0, w - 1).astype(int)])
    return over(r, layer, ground, pal)


def embossed(r, layer, ground, pal):
    """Pressed into the ground: only relief shows (of validation)."""
    height = np.asarray(layer.convert("L"), np.float32) * 0.4 + np.asarray(layer.getchannel("A"), np.float32) * 0.6
    soft = Image.fromarray(height.astype(np.uint8)).filter(ImageFilter.GaussianBlur(min(layer.size) * 0.008))
    height = np.asarray(soft, np.float32)
    relief = np.roll(height, 1, (0, 1)) - np.roll(height, -1, (0, 1))
    tint = np.asarray(layer.getchannel("A"), np.float32)[..., None] / 255 * r.uniform(-25, 25)
    return Image.fromarray(np.clip(np.asarray(ground, np.float32) + relief[..., None] * 1.1 + tint, 0, 255).astype(np.uint8))


def sticker(r, layer, ground, pal):
    """A white rim and a soft shadow (held out)."""
    rim = layer.getchannel("A").filter(ImageFilter.MaxFilter(2 * max(1, round(min(layer.size) * 0.018)) + 1))
    white = Image.new("RGBA", layer.size, (255, 255, 255, 0))
    white.putalpha(rim)
    by = max(1, round(min(layer.size) * 0.02))
    shadow_of(white, ground, (by, by), by, 0.5)
    ground.paste(white, mask=white)
    ground.paste(layer, mask=layer)
    return ground


def raised(r, layer, ground, pal):
    """Card a little above the table (held out)."""
    by = max(1, round(min(layer.size) * r.uniform(0.015, 0.03)))
    shadow_of(layer, ground, (by, by), by * 0.7, 0.65)
    ground.paste(layer, mask=layer)
    return ground


def chalky(r, layer, ground, pal):
    """Grain takes pieces out of every stroke (held out)."""
    w, h = layer.size
    grain = r.normal(0, 1, (h, w)) * 0.6 + cloudy(r, h, w, 40)[..., 0] * 0.5
    kept = np.asarray(layer.getchannel("A"), np.float32) * np.clip(0.75 + grain * 0.55, 0, 1)
    layer.putalpha(Image.fromarray(kept.astype(np.uint8)))
    dust = layer.filter(ImageFilter.GaussianBlur(min(w, h) * 0.02))
    dust.putalpha(dust.getchannel("A").point(lambda v: v // 5))
    ground.paste(dust, mask=dust)
    ground.paste(layer, mask=layer)
    return ground


def glowing(r, layer, ground, pal):
    """Light is added, with a halo (held out)."""
    lit = Image.new("RGB", layer.size)
    lit.paste(layer, mask=layer)
    for blur, gain in ((0.05, 1.6), (0.018, 1.2)):
        halo = lit.filter(ImageFilter.GaussianBlur(min(layer.size) * blur))
        ground = ImageChops.add(ground, halo.point(lambda v: min(255, int(v * gain))))
    return ImageChops.add(ground, lit)


def bleeding(r, layer, ground, pal):
    """Wet colour: uneven, with soft wandering edges, multiplied with the paper (held out)."""
    w, h = layer.size
    y, x = np.mgrid[0:h, 0:w]
    for cells, by in ((10, 0.012), (30, 0.006)):
        dx, dy = cloudy(r, h, w, cells)[..., 0] * by * w, cloudy(r, h, w, cells)[..., 0] * by * h
        pixels = np.asarray(layer)[np.clip(y + dy, 0, h - 1).astype(int), np.clip(x + dx, 0, w - 1).astype(int)]
        layer = Image.fromarray(pixels)
    layer = layer.filter(ImageFilter.GaussianBlur(min(w, h) * 0.006))
    pixels = np.asarray(layer, np.float32)
    wet = np.clip(0.75 + cloudy(r, h, w, 7) * 0.18 + cloudy(r, h, w, 20) * 0.08, 0.25, 1) * pixels[..., 3:] / 255
    paint = 255 * (1 - wet) + pixels[..., :3] * wet
    return Image.fromarray(np.clip(paint * np.asarray(ground, np.float32) / 255, 0, 255).astype(np.uint8))


# Wear: (rng, picture RGB) -> picture RGB of the same or another size.


def none(r, image):
    return image


def blur(r, image):
    return image.filter(ImageFilter.GaussianBlur(min(image.size) * r.uniform(0.003, 0.018)))


def motion(r, image):
    pixels, by = np.asarray(image, np.float32), r.integers(2, 6)
    step = [(0, 1), (1, 0), (1, 1), (1, -1)][r.integers(4)]
    total = sum(np.roll(pixels, (i * step[0], i * step[1]), (0, 1)) for i in range(by))
    return Image.fromarray((total / by).astype(np.uint8))


def grain(r, image):
    pixels = np.asarray(image, np.float32) + r.normal(0, r.uniform(4, 26), (image.height, image.width, 1 if r.random() < 0.4 else 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def coded(image, **how):
    with io.BytesIO() as file:
        image.save(file, **how)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def jpeg(r, image):
    return coded(image, format="JPEG", quality=int(r.integers(12, 70)))


def webp(r, image):
    """Held out."""
    return coded(image, format="WEBP", quality=int(r.integers(8, 40)))


def small(r, image):
    by = r.uniform(0.35, 0.7)
    return image.resize((int(image.width * by), int(image.height * by)), Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BICUBIC)


def occluded(r, image):
    draw, (w, h) = ImageDraw.Draw(image), image.size
    colour = tuple(int(c) for c in r.uniform(0, 255, 3))
    kind = r.integers(3)
    if kind == 0:
        for _ in range(r.integers(1, 4)):
            x, y, dx, dy = r.uniform(0, w), r.uniform(0, h), r.uniform(0.03, 0.13) * w, r.uniform(0.03, 0.13) * h
            draw.ellipse((x - dx, y - dy, x + dx, y + dy), fill=colour)
    elif kind == 1:
        a, b = r.uniform(0, 1, 2), r.uniform(0, 1, 2)
        draw.line((a[0] * w, 0, b[0] * w, h) if r.random() < 0.5 else (0, a[1] * h, w, b[1] * h), fill=colour, width=int(min(w, h) * r.uniform(0.02, 0.07)))
    else:
        x, y = [(0, 0), (w, 0), (0, h), (w, h)][r.integers(4)]
        size = r.uniform(0.15, 0.3) * min(w, h)
        draw.rectangle((x - size, y - size, x + size, y + size), fill=colour)
    return image


def lit(r, image):
    w, h = image.size
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    a = r.uniform(0, 6.28)
    light = 1 + r.uniform(0.1, 0.4) * (x * np.cos(a) + y * np.sin(a)) + 0.06 * cloudy(r, h, w, 4)[..., 0]
    return Image.fromarray(np.clip(np.asarray(image) * light[..., None] * r.uniform(0.7, 1.1) * r.normal(1, 0.05, 3), 0, 255).astype(np.uint8))


def photographed(r, image):
    """The sheet seen aslant on a table, unevenly lit."""
    w, h = image.size
    corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], float)
    seen = corners + r.uniform(-0.02, 0.14, (4, 2)) * [w, h] * np.sign(np.array([w / 2, h / 2]) - corners)
    rows = []
    for (x, y), (u, v) in zip(seen, corners):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    plane = np.linalg.solve(np.array(rows), corners.ravel())
    table = tuple(int(c) for c in np.clip(r.normal(r.uniform(30, 200), 20, 3), 0, 255))
    sheet = image.transform((w, h), Image.Transform.PERSPECTIVE, list(plane), Image.Resampling.BILINEAR, fillcolor=table)
    return lit(r, sheet)


def toned(r, image):
    pixels = np.asarray(image, np.float32)
    pixels = (pixels - 128) * r.uniform(0.45, 1.3) + 128 + r.normal(0, 22)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def few_tones(r, image):
    """Few colours, dithered or not."""
    return image.quantize(int(r.integers(4, 14)), dither=Image.Dither.FLOYDSTEINBERG if r.random() < 0.5 else Image.Dither.NONE).convert("RGB")


def banded(r, image):
    """Light through a blind, or a poor print."""
    w, h = image.size
    y, x = np.mgrid[0:h, 0:w] / min(w, h)
    a, cycles = r.uniform(0, 3.14), np.exp(r.uniform(np.log(2), np.log(20)))
    wave = np.clip(np.sin((x * np.cos(a) + y * np.sin(a)) * cycles * 6.2832) * r.uniform(1, 5), -1, 1)
    return Image.fromarray(np.clip(np.asarray(image) * (1 - r.uniform(0.05, 0.3) * (1 + wave[..., None])), 0, 255).astype(np.uint8))


def scattered(r, image):
    """Every pixel comes from somewhere near."""
    w, h = image.size
    y, x = np.mgrid[0:h, 0:w]
    by = min(w, h) * r.uniform(0.004, 0.02)
    return Image.fromarray(np.asarray(image)[np.clip(y + r.normal(0, by, (h, w)), 0, h - 1).astype(int), np.clip(x + r.normal(0, by, (h, w)), 0, w - 1).astype(int)])


def smoothed(r, image):
    return image.filter(ImageFilter.MedianFilter(int(r.choice([3, 5, 7]))))


def sharpened(r, image):
    return image.filter(ImageFilter.UnsharpMask(r.uniform(1, 4), int(r.integers(80, 300)), 0))


# Held out.


def pixelated(r, image):
    cells = r.integers(28, 37)
    tiny = image.resize((cells, cells), Image.Resampling.BOX).quantize(12, dither=Image.Dither.NONE).convert("RGB")
    return tiny.resize(image.size, Image.Resampling.NEAREST)


def fringed(r, image):
    """Red and blue fall beside green."""
    by = max(1, round(min(image.size) * 0.008))
    red, green, blue = image.split()
    return Image.merge("RGB", (ImageChops.offset(red, by, 0), green, ImageChops.offset(blue, -by, 0)))


def halftone(r, image):
    """Printed as dots, one turned screen for each ink."""
    w, h = image.size
    y, x = np.mgrid[0:h, 0:w]
    step, out = min(w, h) * r.uniform(0.026, 0.036), []
    for channel, angle in zip(image.split(), (0.26, 1.31, 0.79)):
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        screen = (np.cos(u * 6.2832 / step) + np.cos(v * 6.2832 / step)) * 63.75 + 127.5
        value = np.asarray(channel, np.float32)
        out.append(np.clip(127.5 + (value - screen) * 2.5, 0, 255).astype(np.uint8))
    return Image.fromarray(np.stack(out, -1))


def hand_shadow(r, image):
    """A photograph with a hard-edged shadow over it."""
    image, (w, h) = photographed(r, image), image.size
    mask = Image.new("L", (w, h))
    points = [(w * a, h * b) for a, b in ((r.uniform(0, 1), -0.1), (1.2, -0.1), (1.2, 1.1), (r.uniform(0, 1), 1.1))]
    ImageDraw.Draw(mask).polygon(points, fill=int(r.uniform(50, 110)))
    image.paste((0, 0, 10), mask=mask.filter(ImageFilter.GaussianBlur(min(w, h) * 0.02)))
    return image


# Of the second held-out styles.


def padded(r, layer, ground, pal):
    """Raised like a cushion: bright above, dark below."""
    high = np.asarray(layer.getchannel("A").filter(ImageFilter.GaussianBlur(min(layer.size) * 0.015)), np.float32)
    light = (np.roll(high, -2, (0, 1)) - np.roll(high, 2, (0, 1)))[..., None] * r.uniform(0.3, 0.6)
    ground.paste(layer, mask=layer)
    return Image.fromarray(np.clip(np.asarray(ground, np.float32) + light, 0, 255).astype(np.uint8))


def sprayed(r, layer, ground, pal):
    """Out of a can: soft, speckled, and it runs."""
    w, h = layer.size
    pixels = np.asarray(layer).copy()
    for _ in range(r.integers(2, 6)):
        x, long = r.integers(0, w), int(h * r.uniform(0.05, 0.2))
        wet = np.flatnonzero(pixels[:, x, 3] > 128)
        if len(wet):
            y = wet[-1]
            pixels[y : y + long, x : x + max(1, w // 60)] = pixels[y, x]
    layer = Image.fromarray(pixels)
    soft = np.asarray(layer.getchannel("A").filter(ImageFilter.GaussianBlur(min(w, h) * 0.012)), np.float32)
    layer.putalpha(Image.fromarray((np.clip(np.asarray(layer.getchannel("A"), np.float32) / 255 * (0.35 + soft / 255 * 0.65) + r.normal(0, 0.12, (h, w)) * (soft > 12), 0, 1) * 255).astype(np.uint8)))
    ground.paste(layer, mask=layer)
    return ground


def patchy(r, layer, ground, pal):
    """Printed by hand: the ink did not take everywhere."""
    w, h = layer.size
    took = np.clip(1.1 + cloudy(r, h, w, 9)[..., 0] * 0.35 + r.normal(0, 0.3, (h, w)), 0, 1)
    layer.putalpha(Image.fromarray((np.asarray(layer.getchannel("A"), np.float32) * took).astype(np.uint8)))
    ground.paste(layer, mask=layer)
    return ground


def rastered(r, image):
    """Lines of a picture tube."""
    pixels, every = np.asarray(image, np.float32), max(2, round(image.height * r.uniform(0.02, 0.035)))
    gain = np.where(np.arange(image.height) % every < every / 2, r.uniform(0.35, 0.65), 1.12)
    return Image.fromarray(np.clip(pixels * gain[:, None, None], 0, 255).astype(np.uint8))


def oily(r, image):
    """Every spot takes the colour that is most about it."""
    return image.quantize(24, dither=Image.Dither.NONE).convert("RGB").filter(ImageFilter.ModeFilter(5))


EFFECTS = named(over, see_through, rimmed, worn, ragged, embossed, sticker, raised, chalky, glowing, bleeding, padded, sprayed, patchy)
WEAR = named(none, blur, motion, grain, jpeg, webp, small, occluded, lit, photographed, toned, few_tones, banded, scattered, smoothed, sharpened, pixelated, fringed, halftone, hand_shadow, rastered, oily)
