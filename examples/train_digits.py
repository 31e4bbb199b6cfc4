"""Train a small convolutional network on handwritten digits, from scratch, with NumPy or another array library.

train_digits.py                     train, print the accuracy by epoch, write digits.png and digits.npz
train_digits.py --backend torch     the same on another library: the name of a file in backends/
train_digits.py --epochs 10 --seed 3 --output mine.png --weights mine.npz

What to see here: `xconv.vjp` is all that a training loop needs. It calls an operation and gives, beside the result, the
function that carries a gradient back through it. `loss_and_gradients` calls every layer so, then goes back through them
in reverse. Nothing in this file differentiates anything, and what is done to arrays is in the array API standard,
so that one text trains on every library.

The data are the 1797 images of 8 x 8 pixels that come with scikit-learn. A quarter of every digit is held out, and
never trained on; the accuracy is of that quarter, after the last epoch, whichever was the best. Besides xconv it needs

pip install "scikit-learn>=1.5" "matplotlib>=3.9"
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import array_api_compat
import numpy as np
from libraries import Library, library_names, open_library

import xconv

Array = Any
Arrays = dict[str, Array]  # by name

BATCH = 64
RATE = 3e-3  # the learning rate at the start; it falls to nothing in a straight line
SHAPES = {  # of the weights: kernels (height, width, in, out), matrices (in, out); every bias is (out,)
    "conv1": (3, 3, 1, 32),
    "conv2": (3, 3, 32, 64),
    "dense1": (4 * 4 * 64, 64),
    "dense2": (64, 10),
}
CONV = {"padding": "same", "activation": "relu"}


# ------------------------------------------------------------------------------------------------------- the network


def initial_weights(rng: np.random.Generator, dtype: Any = np.float32) -> Arrays:
    """Random kernels and matrices that keep the size of what goes through (He et al. 2015), and no bias."""
    weights = {}
    for layer, shape in SHAPES.items():
        scale = (2 / math.prod(shape[:-1])) ** 0.5
        weights[f"{layer}.w"] = (scale * rng.standard_normal(shape)).astype(dtype)
        weights[f"{layer}.b"] = np.zeros(shape[-1], dtype)
    return weights


def log_probabilities(weights: Arrays, images: Array) -> Array:
    """What the network makes of images (N, 8, 8, 1): the logarithms of the probabilities of ten digits, (N, 10)."""
    xp, w = array_api_compat.array_namespace(images), weights
    y = xconv.conv(images, w["conv1.w"], w["conv1.b"], **CONV)  # (N, 8, 8, 32)
    y = xconv.conv(y, w["conv2.w"], w["conv2.b"], **CONV)  # (N, 8, 8, 64)
    y = xconv.max_pool(y, 2)  # (N, 4, 4, 64)
    y = xp.reshape(y, (y.shape[0], -1))  # (N, 1024)
    y = xconv.dense(y, w["dense1.w"], w["dense1.b"], activation="relu")  # (N, 64)
    y = xconv.dense(y, w["dense2.w"], w["dense2.b"])  # (N, 10)
    return xconv.log_softmax(y)


def loss_and_gradients(weights: Arrays, images: Array, targets: Array) -> tuple[Array, Arrays]:
    """The cross-entropy of the network on images, averaged, and its gradient by every weight.

    `targets` (N, 10) has a one for the right digit of each image and else zeros.
    """
    xp = array_api_compat.array_namespace(images)
    vjp, w, n = xconv.vjp, weights, images.shape[0]

    # Forward, as above. The first layer needs no gradient by its images.
    y1, back1 = vjp(xconv.conv, images, w["conv1.w"], w["conv1.b"], wrt=("w", "b"), **CONV)
    y2, back2 = vjp(xconv.conv, y1, w["conv2.w"], w["conv2.b"], **CONV)
    y3, back3 = vjp(xconv.max_pool, y2, 2)
    flat = xp.reshape(y3, (n, -1))
    y4, back4 = vjp(xconv.dense, flat, w["dense1.w"], w["dense1.b"], activation="relu")
    y5, back5 = vjp(xconv.dense, y4, w["dense2.w"], w["dense2.b"])
    y6, back6 = vjp(xconv.log_softmax, y5)
    loss = -xp.sum(targets * y6) / n

    # Backward: dy is the gradient of the loss by what a layer gave, then by what the layer was given.
    dw: Arrays = {}
    (dy,) = back6(-targets / n)
    dy, dw["dense2.w"], dw["dense2.b"] = back5(dy)
    dy, dw["dense1.w"], dw["dense1.b"] = back4(dy)
    (dy,) = back3(xp.reshape(dy, y3.shape))
    dy, dw["conv2.w"], dw["conv2.b"] = back2(dy)
    _, dw["conv1.w"], dw["conv1.b"] = back1(dy)
    return loss, dw


def adam(state: dict[str, Arrays], gradients: Arrays, step: int, rate: float) -> dict[str, Arrays]:
    """The weights after a step of Adam (Kingma and Ba, 2015), with the averages that the next one needs."""
    weights, mean, square = {}, {}, {}
    for name, g in gradients.items():
        xp = array_api_compat.array_namespace(g)
        mean[name] = 0.9 * state["mean"][name] + 0.1 * g
        square[name] = 0.999 * state["square"][name] + 0.001 * g * g
        # The averages began at zero: after few steps they are too small by these factors.
        m, s = mean[name] / (1 - 0.9**step), square[name] / (1 - 0.999**step)
        weights[name] = state["weights"][name] - rate * m / (xp.sqrt(s) + 1e-8)
    return {"weights": weights, "mean": mean, "square": square}


# ---------------------------------------------------------------------------------------------------------- the data


def split(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where the images to train on stand, and those to test on: a random quarter of every digit."""
    shuffled = rng.permutation(len(labels))
    by_digit = shuffled[np.argsort(labels[shuffled], kind="stable")]
    test = np.arange(len(labels)) % 4 == 0
    return by_digit[~test], by_digit[test]


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every second image, at random, moved by up to a pixel along each axis: more digits than there are."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    top, left = 1 + rng.integers(-1, 2, size=(2, n, 1, 1)) * rng.integers(2, size=(n, 1, 1))
    rows, columns = np.arange(height)[:, None], np.arange(width)
    return padded[np.arange(n)[:, None, None], top + rows, left + columns]


def batches(images: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
    """The images once, in random order; what does not fill a batch is left out, so that all have one shape."""
    order = rng.permutation(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        yield shifted(images[chosen], rng), targets[chosen]


# ------------------------------------------------------------------------------------------------------ the training


@dataclass
class Result:
    """What was learned, and how it went."""

    weights: dict[str, np.ndarray] = field(default_factory=dict)
    probabilities: np.ndarray | None = None  # (N, 10), of ten digits for every test image
    losses: list[float] = field(default_factory=list)  # by epoch: the mean over the batches
    test_losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)  # on the test images


def train(
    library: Library,
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    epochs: int,
    rng: np.random.Generator,
) -> Result:
    """Train a network from random weights, and try it on the test images after every epoch."""
    put, one_hot = library.asarray, np.eye(10, dtype=images.dtype)
    targets, test_targets = one_hot[labels], one_hot[test_labels]
    weights = initial_weights(rng, images.dtype)
    state = {
        "weights": {name: put(w) for name, w in weights.items()},
        "mean": {name: put(np.zeros_like(w)) for name, w in weights.items()},
        "square": {name: put(np.zeros_like(w)) for name, w in weights.items()},
    }
    result = Result()
    steps, step = epochs * (len(images) // BATCH), 0
    for epoch in range(1, epochs + 1):
        losses = []
        for batch, wanted in batches(images, targets, rng):
            loss, gradients = loss_and_gradients(state["weights"], put(batch), put(wanted))
            step += 1
            state = adam(state, gradients, step, RATE * (1 - (step - 1) / steps))
            state, loss = library.settle((state, loss))
            losses.append(float(loss))
            show_progress(step, steps, f"epoch {epoch:3} of {epochs}   loss {losses[-1]:.4f}")
        y = library.numpy(log_probabilities(state["weights"], put(test_images)))
        result.probabilities = np.exp(y)
        result.losses.append(float(np.mean(losses)))
        result.test_losses.append(float(-np.sum(test_targets * y) / len(y)))
        result.accuracies.append(float(np.mean(np.argmax(y, axis=1) == test_labels)))
        print_line(
            f"epoch {epoch:3} of {epochs}   loss {result.losses[-1]:.4f}   "
            f"test loss {result.test_losses[-1]:.4f}   test accuracy {result.accuracies[-1]:7.2%}"
        )
    result.weights = {name: library.numpy(w) for name, w in state["weights"].items()}
    return result


def show_progress(step: int, steps: int, text: str) -> None:
    """A bar on the last line of a terminal; elsewhere nothing."""
    if sys.stdout.isatty():
        done = 30 * step // steps
        print(f"\r[{'#' * done}{'.' * (30 - done)}] {step / steps:4.0%}   {text}", end="", flush=True)


def print_line(text: str) -> None:
    """A line that stays, over the bar if there is one."""
    print(f"\r\x1b[K{text}" if sys.stdout.isatty() else text, flush=True)


def natural(text: str, least: int = 0) -> int:
    """A whole number of the command line."""
    if int(text) < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}; got {text}")
    return int(text)


def main() -> None:
    start = perf_counter()
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    option = parser.add_argument
    names = ", ".join(library_names())
    option("--backend", default="numpy", metavar="NAME", help=f"one of {names} (default: %(default)s)")
    option("--epochs", type=partial(natural, least=1), default=40, metavar="N", help="(default: %(default)s)")
    option(
        "--seed", type=natural, default=0, metavar="N", help="of all that is random (default: %(default)s)"
    )
    option("--output", type=Path, default="digits.png", metavar="FILE", help="(default: %(default)s)")
    option("--weights", type=Path, default="digits.npz", metavar="FILE", help="(default: %(default)s)")
    args = parser.parse_args()
    for file in (args.output, args.weights):
        if not file.parent.is_dir():
            parser.error(f"--output and --weights must be files in a folder that exists; got {file}")
    if args.output.suffix != ".png" or args.weights.suffix != ".npz":
        parser.error(f"--output must end in .png and --weights in .npz; got {args.output} and {args.weights}")
    try:
        library = open_library(args.backend)
    except ValueError as error:
        parser.error(str(error))
    try:
        import digits  # here, because scikit-learn and Matplotlib are imported there
    except ImportError as error:
        parser.error(f'{error}; what is needed: pip install "scikit-learn>=1.5" "matplotlib>=3.9"')

    rng = np.random.default_rng(args.seed)
    images, labels = digits.load()
    chosen, held_out = split(labels, rng)
    test_images, test_labels = images[held_out], labels[held_out]
    count = sum(math.prod(shape) + shape[-1] for shape in SHAPES.values())
    print(f"xconv {xconv.__version__} on {library.title}, seed {args.seed}")
    print(f"{len(chosen)} images to train on, {len(held_out)} to test on, {count} weights to learn")
    with xconv.config(fast=library.fast):
        result = train(library, images[chosen], labels[chosen], test_images, test_labels, args.epochs, rng)
    np.savez(args.weights, **result.weights)
    digits.draw(result, test_images, test_labels).savefig(args.output)
    print(f"test accuracy {result.accuracies[-1]:.2%} after {perf_counter() - start:.1f} seconds in all")
    print(f"written: {args.weights}, {args.output}")


if __name__ == "__main__":
    main()
