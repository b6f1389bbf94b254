"""Draws the images of the tests and of the demo. Needs Pillow and numpy.

    python tests/data/images/make.py
"""

import pathlib
import struct
import zlib

import numpy
from PIL import Image, ImageDraw

HERE = pathlib.Path(__file__).parent
SIZE = 96


def disc():
    image = Image.new("RGB", (SIZE, SIZE), (242, 238, 226))
    ImageDraw.Draw(image).ellipse((20, 22, 76, 78), fill=(196, 48, 52))
    return image


def stripes():
    across, _ = numpy.meshgrid(numpy.arange(128), numpy.arange(SIZE))
    dark = (across // 8) % 2 == 0
    return Image.fromarray(numpy.where(dark[..., None], (30, 60, 140), (235, 225, 190)).astype("u1"))


def checks():
    across, down = numpy.meshgrid(numpy.arange(SIZE), numpy.arange(SIZE))
    dark = (across // 12 + down // 12) % 2 == 0
    return Image.fromarray(numpy.where(dark[..., None], (20, 90, 60), (240, 240, 240)).astype("u1"))


def corner():
    """Not the same when it is turned."""
    image = Image.new("RGB", (SIZE, SIZE), (250, 250, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle((8, 8, 87, 31), fill=(200, 60, 30))
    draw.rectangle((8, 32, 31, 87), fill=(30, 60, 200))
    return image


def bomb(width, height):
    """A PNG that says that it is huge, and has one row of nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


disc().save(HERE / "disc.png", optimize=True)
stripes().save(HERE / "stripes.jpg", quality=85)
checks().save(HERE / "checks.webp", lossless=True)

# The same image in every way to write it.
one = corner()
one.save(HERE / "corner.png", optimize=True)
one.save(HERE / "corner.jpg", quality=95, subsampling=0)
one.save(HERE / "corner.webp", lossless=True)
one.convert("CMYK").save(HERE / "corner-cmyk.jpg", quality=95, subsampling=0)
one.convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(HERE / "corner-palette.png")
turned = Image.Exif()
turned[0x0112] = 6  # to be turned to the right
one.rotate(90, expand=True).save(HERE / "corner-turned.jpg", quality=95, subsampling=0, exif=turned)
clear = one.convert("RGBA")
pixels = numpy.array(clear)
pixels[(pixels[..., :3] == 250).all(axis=2)] = (0, 0, 0, 5)
Image.fromarray(pixels).save(HERE / "corner-clear.png", optimize=True)
grey = one.convert("L")
grey.save(HERE / "grey.png", optimize=True)
Image.fromarray(numpy.array(grey).astype("u2") * 257).save(HERE / "grey-16-bit.png", optimize=True)

(HERE / "bomb.png").write_bytes(bomb(60_000, 60_000))
