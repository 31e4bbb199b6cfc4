"""Repair a stack of real photographs whose camera has dead pixels: one call for all of them, with NumPy alone.

filter_stack.py                        200 photographs with 8% of dead pixels; writes filter_stack.png
filter_stack.py --dead 0.2             with more of them
filter_stack.py --output faces.png     another file

The stack is the subset of "Labeled Faces in the Wild" in the package scikit-image, (200, 25, 25), from 0 to 1. Some
pixels are made black or white, and then three filters try to bring the stack back. Every filter is one call with
``axes=(1, 2)``: it smooths within the photographs and never from one to the next.

Besides xconv it needs Pillow, and a package of which only a data file is read (it is not imported):

pip install "pillow>=10.1" && pip install --no-deps scikit-image
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from pictures import data_file
from PIL import Image, ImageDraw, ImageFont

import xconv

COLUMNS, ENLARGED, GAP, LABEL = 9, 4, 4, 118  # photographs in a row, and sizes in pixels
EVERY = 11  # photographs from one of a row to the next; the first hundred are faces
SPACE = (1, 2)  # the axes of a photograph in the stack

Filter = Callable[[np.ndarray], np.ndarray]
FILTERS: dict[str, Filter] = {
    "mean of 3 x 3": partial(xconv.uniform_filter, axes=SPACE),
    "Gaussian": lambda stack: xconv.gaussian_filter(stack, 0.8, axes=SPACE),
    "median of 3 x 3": lambda stack: xconv.median_filter(stack, 3, axes=SPACE),
}


def with_dead_pixels(stack: np.ndarray, share: float) -> np.ndarray:
    """Some pixels of every photograph black or white, others in each."""
    rng = np.random.default_rng(0)
    dead, colour = rng.random(stack.shape) < share, rng.integers(0, 2, stack.shape)
    return np.where(dead, colour, stack).astype(stack.dtype)


def edges(stack: np.ndarray) -> np.ndarray:
    """How steep the photographs are, by Sobel's filter along both axes."""
    rows, columns = (xconv.sobel(stack, axis=axis, axes=SPACE) for axis in SPACE)
    return np.hypot(rows, columns)


def psnr(stack: np.ndarray, original: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: higher is closer, inf means equal."""
    error = float(np.mean((stack - original) ** 2))
    return -10 * math.log10(error) if error else math.inf


def timed(name: str, work: Filter, stack: np.ndarray) -> np.ndarray:
    """The result, and a line about it."""
    print(f"  {name:20}", end="", flush=True)
    work(stack)  # the plan is made here
    start = perf_counter()
    result = work(stack)
    print(f"{1e3 * (perf_counter() - start):8.2f} ms", end="", flush=True)
    return result


def sheet(rows: dict[str, np.ndarray]) -> Image.Image:
    """Some photographs of every stack in a row, enlarged, and beside them what they are."""
    side = ENLARGED * next(iter(rows.values())).shape[-1]
    width, height = LABEL + COLUMNS * (side + GAP), GAP + len(rows) * (side + GAP)
    picture = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(size=14)
    for row, (label, stack) in enumerate(rows.items()):
        top = GAP + row * (side + GAP)
        ImageDraw.Draw(picture).text((GAP, top + side / 2), label, "black", font, anchor="lm")
        for column in range(COLUMNS):
            pixels = np.rint(255 * np.clip(stack[EVERY * column], 0, 1)).astype(np.uint8)
            part = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            picture.paste(part, (LABEL + column * (side + GAP), top))
    return picture


def main() -> None:
    """Read the stack, filter it, print what was measured, write the picture."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    option = parser.add_argument
    option("--dead", type=float, default=0.08, metavar="SHARE", help="of the pixels (default: %(default)s)")
    option("--output", type=Path, default="filter_stack.png", metavar="FILE", help="(default: %(default)s)")
    args = parser.parse_args()
    if not 0 <= args.dead <= 1:
        parser.error(f"--dead must be from 0 to 1; got {args.dead}")
    if not args.output.parent.is_dir() or args.output.suffix.lower() not in Image.registered_extensions():
        parser.error(f"--output must be a picture file in a folder that exists; got {args.output}")
    try:
        original = np.load(data_file("skimage", "data", "lfw_subset.npy")).astype(np.float32)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    count, *size = original.shape
    print(f"{count} photographs of {' x '.join(map(str, size))}, {args.dead:.0%} of the pixels dead")
    damaged = with_dead_pixels(original, args.dead)
    print(f"  {'before':31}{psnr(damaged, original):8.2f} dB")
    rows = {"original": original, "dead pixels": damaged}
    for name, work in FILTERS.items():
        rows[name] = timed(name, work, damaged)
        print(f"{psnr(rows[name], original):8.2f} dB", flush=True)
    steep = timed("Sobel, both axes", edges, rows["median of 3 x 3"])
    rows["edges of that"] = steep / steep.max()
    print()
    sheet(rows).save(args.output, optimize=True)
    print(f"  written: {args.output}")


if __name__ == "__main__":
    main()
