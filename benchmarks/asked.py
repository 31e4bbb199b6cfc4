"""The askers' own code: what people write who have NumPy and SciPy, and ask why it is slow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# a. A first layer by hand.


def triple_loop(image: np.ndarray, kernels: np.ndarray, stride: int) -> np.ndarray:
    """Image (H, W, C), kernels (count, k, k, C): a sum of products for every row, column and kernel."""
    count, k = kernels.shape[:2]
    rows = (image.shape[0] - k) // stride + 1
    columns = (image.shape[1] - k) // stride + 1
    result = np.zeros((rows, columns, count))
    for i in range(rows):
        for j in range(columns):
            for n in range(count):
                top, left = i * stride, j * stride
                result[i, j, n] = np.sum(image[top : top + k, left : left + k] * kernels[n])
    return result


# b. Stacks of images (N, S, S), each convolved with one kernel (K, K), zeros around them, the size kept.

Filter = Callable[[np.ndarray, np.ndarray], np.ndarray]


def scipy_filters() -> dict[str, Filter]:
    """What SciPy has for it."""
    from scipy import ndimage, signal

    return {
        "convolve": lambda x, w: signal.convolve(x, w[None], mode="same"),
        "fftconvolve": lambda x, w: signal.fftconvolve(x, w[None], mode="same", axes=(1, 2)),
        "oaconvolve": lambda x, w: signal.oaconvolve(x, w[None], mode="same", axes=(1, 2)),
        "ndimage": lambda x, w: ndimage.convolve(x, w[None], mode="constant"),
    }


def opencv_filter(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Image by image; filter2D does not turn the kernel round."""
    import cv2

    turned = np.ascontiguousarray(w[::-1, ::-1])
    return np.stack([cv2.filter2D(image, -1, turned, borderType=cv2.BORDER_CONSTANT) for image in x])


def torch_filter(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The images as a batch of one channel; conv2d does not turn the kernel round."""
    import torch

    images, turned = torch.from_numpy(x)[:, None], torch.from_numpy(w[::-1, ::-1].copy())[None, None]
    return torch.nn.functional.conv2d(images, turned, padding=len(w) // 2)[:, 0].numpy()


# c. A layer with its max-pool and ReLU: x (16, 25, 25), w (32, 16, 2, 2), b (32,).


def many_convolve2d(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A call of convolve2d for every pair of an output and an input channel."""
    from scipy.signal import convolve2d

    outputs, inputs = w.shape[:2]
    maps = []
    for o in range(outputs):
        total = sum(convolve2d(x[i], w[o, i], mode="valid") for i in range(inputs))
        maps.append(total + b[o])
    return _pool_and_relu(np.array(maps))


def shifted_dots(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A dot product over channels for each of the four places of the kernel, on a shifted image."""
    outputs, inputs, k, _ = w.shape
    rows, columns = x.shape[1] - k + 1, x.shape[2] - k + 1
    total = np.zeros((outputs, rows * columns))
    for i in range(k):
        for j in range(k):  # a convolution turns the kernel round
            shifted = x[:, k - 1 - i : k - 1 - i + rows, k - 1 - j : k - 1 - j + columns]
            total += np.dot(w[:, :, i, j], shifted.reshape(inputs, -1))
    return _pool_and_relu(total.reshape(outputs, rows, columns) + b[:, None, None])


def _pool_and_relu(maps: np.ndarray) -> np.ndarray:
    channels, rows, columns = maps.shape
    pooled = maps.reshape(channels, rows // 2, 2, columns // 2, 2).max(axis=(2, 4))
    return np.maximum(pooled, 0)


# d. The forward pass of a course: A_prev (m, H, W, C), W (f, f, C, n_C), b (n_C,).

Window = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def window_of_sums(a_slice: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One window, a sum of products for each channel of the result."""
    return np.array([np.sum(a_slice * w[..., c]) + b[c] for c in range(w.shape[-1])])


def window_by_broadcast(a_slice: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One window, every channel of the result at once."""
    return np.sum(a_slice[..., None] * w, axis=(0, 1, 2)) + b


def window_by_einsum(a_slice: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One window as an einsum."""
    return np.einsum("ijk,ijkl->l", a_slice, w) + b


def conv_forward(
    a_prev: np.ndarray, w: np.ndarray, b: np.ndarray, *, pad: int, stride: int, window: Window
) -> np.ndarray:
    """The whole layer: nested loops over images, rows and columns."""
    m, height, width, _ = a_prev.shape
    f, _, _, n_c = w.shape
    rows = (height - f + 2 * pad) // stride + 1
    columns = (width - f + 2 * pad) // stride + 1
    padded = np.pad(a_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    result = np.zeros((m, rows, columns, n_c))
    for i in range(m):
        for y in range(rows):
            for x in range(columns):
                top, left = y * stride, x * stride
                result[i, y, x] = window(padded[i, top : top + f, left : left + f], w, b)
    return result
