"""The handwritten digits of scikit-learn, and a picture of what was learned: what train_digits.py needs besides."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_digits

ROWS, COLUMNS = 3, 4  # the images that are shown
BLUE, ORANGE, RED, GREY = "#1f5f99", "#d1801f", "#b01010", "#606060"


def load() -> tuple[np.ndarray, np.ndarray]:
    """The images (1797, 8, 8, 1) from 0 to 1, and the digits that they show."""
    data = load_digits()
    return (data.images[..., None] / 16).astype(np.float32), data.target


def draw(result: Any, images: np.ndarray, right: np.ndarray) -> Figure:
    """Left loss and accuracy by epoch; right the test images read wrongly, then those read rightly but least surely."""
    figure = Figure(figsize=(10.5, 4.4), dpi=100, layout="constrained")
    curves, sheet = figure.subfigures(1, 2, wspace=0.03)
    _curves(*curves.subplots(2, sharex=True), result)
    read = np.argmax(result.probabilities, axis=1)
    certainty = np.max(result.probabilities, axis=1)
    hardest = np.lexsort((certainty, read == right))
    sheet.suptitle(
        f"{np.sum(read != right)} of {len(images)} read wrongly, then the least sure", fontsize="medium"
    )
    for i, axes in zip(hardest, sheet.subplots(ROWS, COLUMNS).flat, strict=False):
        axes.imshow(images[i, :, :, 0], cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=(), yticks=())
        if read[i] == right[i]:
            axes.set_title(f"{read[i]}, {certainty[i]:.0%} sure", fontsize="small", color=GREY)
        else:
            axes.set_title(f"read {read[i]}, is {right[i]}", fontsize="small", color=RED)
            axes.spines[:].set(color=RED, linewidth=2)
    return figure


def _curves(loss: Axes, accuracy: Axes, result: Any) -> None:
    epochs = range(1, len(result.losses) + 1)
    loss.set_title(
        f"Test accuracy after {len(epochs)} epochs: {result.accuracies[-1]:.2%}", fontsize="medium"
    )
    loss.plot(epochs, result.losses, color=ORANGE, label="training, images shifted")
    loss.plot(epochs, result.test_losses, color=BLUE, label="test")
    loss.set_yscale("log")
    loss.set_ylabel("cross-entropy")
    loss.legend(frameon=False)
    accuracy.plot(epochs, result.accuracies, color=BLUE)
    accuracy.set_ylim(min(0.9, max(result.accuracies) - 0.05), 1)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    accuracy.set_ylabel("test accuracy")
    accuracy.set_xlabel("epoch")
    for axes in (loss, accuracy):
        axes.grid(color=GREY, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
