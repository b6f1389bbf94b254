"""Four renderers of the same two operations, each giving a transparent RGBA layer.

An operation is ("fill", polygons, paint) or ("stroke", [(points, closed)], colour, width), in pixels.
A paint is a colour (r, g, b) or ("linear", from, to, colour, colour) or ("radial", centre, radius,
colour, colour).
"""

import io

import aggdraw
import numpy as np
import resvg_py
import skia
from PIL import Image, ImageDraw

SUPERSAMPLING = 3


def is_gradient(paint):
    return isinstance(paint[0], str)


def gradient_image(paint, width, height):
    """A gradient as pixels, for renderers that have none."""
    kind, a, b, start, end = paint
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    if kind == "linear":
        d = np.subtract(b, a)
        t = ((x - a[0]) * d[0] + (y - a[1]) * d[1]) / max(float(d @ d), 1e-6)
    else:
        t = np.hypot(x - a[0], y - a[1]) / b
    t = np.clip(t, 0, 1)[..., None]
    return Image.fromarray((np.array(start) * (1 - t) + np.array(end) * t).astype(np.uint8))


def paste(layer, mask, paint):
    """Lays a paint over a layer where the mask is."""
    if is_gradient(paint):
        paint = gradient_image(paint, *layer.size)
    else:
        paint = Image.new("RGB", layer.size, tuple(int(c) for c in paint))
    paint.putalpha(mask)
    return Image.alpha_composite(layer, paint)


def pillow(ops, width, height):
    """Pillow's aliased polygons, drawn three times as large and averaged."""
    s = SUPERSAMPLING
    layer = Image.new("RGBA", (width * s, height * s))
    draw = ImageDraw.Draw(layer)
    flat = lambda points: [(float(x), float(y)) for x, y in np.asarray(points) * s]
    for op in ops:
        if op[0] == "fill":
            if is_gradient(op[2]):
                mask = Image.new("L", layer.size)
                for points in op[1]:
                    ImageDraw.Draw(mask).polygon(flat(points), fill=255)
                small = gradient_image(op[2], width, height).resize(layer.size)
                layer.paste(small, mask=mask)
            else:
                for points in op[1]:
                    draw.polygon(flat(points), fill=tuple(int(c) for c in op[2]) + (255,))
            continue
        _, paths, colour, thick = op
        colour, thick = tuple(int(c) for c in colour) + (255,), max(1, round(thick * s))
        for points, closed in paths:
            points = flat(points)
            if closed:
                points += points[:2]
            draw.line(points, fill=colour, width=thick, joint="curve")
            if not closed:
                for x, y in (points[0], points[-1]):
                    h = thick / 2
                    draw.ellipse((x - h, y - h, x + h, y + h), fill=colour)
    return layer.resize((width, height), Image.Resampling.BOX)


def with_skia(ops, width, height):
    """Skia's analytic antialiasing, joins and gradients."""
    surface = skia.Surface(width, height)
    canvas = surface.getCanvas()
    for op in ops:
        paint = skia.Paint(AntiAlias=True)
        if op[0] == "fill":
            if is_gradient(op[2]):
                kind, a, b, start, end = op[2]
                colours = [skia.Color(*(int(c) for c in colour)) for colour in (start, end)]
                if kind == "linear":
                    shader = skia.GradientShader.MakeLinear([skia.Point(*map(float, a)), skia.Point(*map(float, b))], colours)
                else:
                    shader = skia.GradientShader.MakeRadial(skia.Point(*map(float, a)), float(b), colours)
                paint.setShader(shader)
            else:
                paint.setColor(skia.Color(*(int(c) for c in op[2])))
            paths = [(points, True) for points in op[1]]
        else:
            paths = op[1]
            paint.setColor(skia.Color(*(int(c) for c in op[2])))
            paint.setStyle(skia.Paint.kStroke_Style)
            paint.setStrokeWidth(float(op[3]))
            paint.setStrokeCap(skia.Paint.kRound_Cap)
            paint.setStrokeJoin(skia.Paint.kRound_Join)
        for points, closed in paths:
            path = skia.Path()
            path.addPoly([skia.Point(float(x), float(y)) for x, y in points], closed)
            canvas.drawPath(path, paint)
    pixels = surface.toarray(colorType=skia.ColorType.kRGBA_8888_ColorType)
    return Image.fromarray(np.ascontiguousarray(pixels))


def agg(ops, width, height):
    """Anti-Grain Geometry: each operation as a coverage mask, with mitred, butt-ended strokes."""
    layer = Image.new("RGBA", (width, height))
    for op in ops:
        mask = Image.new("L", (width, height))
        draw = aggdraw.Draw(mask)
        if op[0] == "fill":
            brush = aggdraw.Brush(255)
            for points in op[1]:
                draw.polygon([float(c) for point in points for c in point], None, brush)
        else:
            pen = aggdraw.Pen(255, float(op[3]))
            for points, closed in op[1]:
                flat = [float(c) for point in points for c in point]
                draw.polygon(flat, pen) if closed else draw.line(flat, pen)
        draw.flush()
        layer = paste(layer, mask, op[2])
    return layer


def resvg(ops, width, height):
    """The same as an SVG text, rendered by resvg."""
    rgb = lambda c: "rgb(%d,%d,%d)" % tuple(int(v) for v in c)
    defs, body = [], []
    for i, op in enumerate(ops):
        if op[0] == "fill":
            paint = op[2]
            if is_gradient(paint):
                kind, a, b, start, end = paint
                stops = f'<stop offset="0" stop-color="{rgb(start)}"/><stop offset="1" stop-color="{rgb(end)}"/>'
                if kind == "linear":
                    where = f'x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"'
                else:
                    where = f'cx="{a[0]:.1f}" cy="{a[1]:.1f}" r="{b:.1f}"'
                defs.append(f'<{kind}Gradient id="g{i}" gradientUnits="userSpaceOnUse" {where}>{stops}</{kind}Gradient>')
                look = f'fill="url(#g{i})"'
            else:
                look = f'fill="{rgb(paint)}"'
            paths = [(points, True) for points in op[1]]
        else:
            paths = op[1]
            look = f'fill="none" stroke="{rgb(op[2])}" stroke-width="{op[3]:.2f}" stroke-linejoin="bevel" stroke-linecap="square"'
        d = "".join("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + ("Z" if closed else "") for points, closed in paths)
        body.append(f'<path d="{d}" {look}/>')
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"><defs>{"".join(defs)}</defs>{"".join(body)}</svg>'
    return Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))).convert("RGBA")


RENDERERS = {"pillow": pillow, "skia": with_skia, "agg": agg, "resvg": resvg}
