"""Find, open, score and compare pictures: what upscale.py needs besides the network."""

from __future__ import annotations

import math
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
DETAIL, ENLARGED = 88, 4  # the side of the detail in pixels, and how many times it is enlarged
PANEL, GAP = DETAIL * ENLARGED, 12


def data_file(package: str, *names: str) -> Path:
    """A data file of an installed package, found without importing the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the data of {package} must be installed; upscale.py --help says how")
    return Path(spec.submodule_search_locations[0], *names)


def open_picture(name: str) -> Image.Image:
    """A photograph by name, or a file, upright and in RGB: transparency is dropped."""
    file = data_file("skimage", "data", f"{name}.png") if name in PHOTOGRAPHS else Path(name)
    with Image.open(file) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    if min(upright.size) < 2:
        raise ValueError(f"a picture must have 2 x 2 pixels or more; got {name}")
    return upright


def squared_error(a: Image.Image, b: Image.Image) -> np.ndarray:
    """The squared difference of two pictures of 8 bits, averaged over the colours: (height, width)."""
    difference = np.asarray(a, dtype=np.float32) - np.asarray(b, dtype=np.float32)
    error: np.ndarray = np.mean(difference**2, axis=-1)
    return error


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures in dB: higher is closer, inf means equal."""
    error = float(squared_error(a, b).mean(dtype=np.float64))
    return 10 * math.log10(255**2 / error) if error else math.inf


def worst_place(error: np.ndarray) -> tuple[int, int, int, int]:
    """The DETAIL x DETAIL pixels with the greatest error, as (left, top, right, bottom)."""
    height, width = error.shape
    corners = product(range(0, max(height - DETAIL, 0) + 1, 8), range(0, max(width - DETAIL, 0) + 1, 8))
    top, left = max(corners, key=lambda c: error[c[0] : c[0] + DETAIL, c[1] : c[1] + DETAIL].sum())
    return left, top, min(left + DETAIL, width), min(top + DETAIL, height)


def side_by_side(
    original: Image.Image, plain: Image.Image, result: Image.Image, labels: list[str]
) -> Image.Image:
    """Three pictures whole, and below them, enlarged, the place that `plain` gets most wrong.

    The labels stand above; those of `plain` and `result` are followed by the scores.
    """
    detail = worst_place(squared_error(original, plain))
    width, height = ImageOps.contain(original, (PANEL, PANEL)).size
    font = ImageFont.load_default(size=16)
    top = 2 * GAP + 16
    sheet = Image.new("RGB", (3 * PANEL + 4 * GAP, top + height + PANEL + 2 * GAP), "white")
    for i, (label, picture) in enumerate(zip(labels, (original, plain, result), strict=True)):
        left = GAP + i * (PANEL + GAP)
        text = f"{label}   {psnr(original, picture):.2f} dB" if i else label
        ImageDraw.Draw(sheet).text((left + PANEL / 2, top / 2), text, "black", font, anchor="mm")
        whole = picture.resize((width, height), Image.Resampling.LANCZOS)
        frame = [n * width / original.width for n in detail]
        ImageDraw.Draw(whole).rectangle(frame, outline="yellow", width=2)
        sheet.paste(whole, (left + (PANEL - width) // 2, top))
        part = ImageOps.scale(picture.crop(detail), ENLARGED, Image.Resampling.NEAREST)
        sheet.paste(part, (left + (PANEL - part.width) // 2, top + height + GAP))
    return sheet
