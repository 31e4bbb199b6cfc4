"""ONNX operators written as calls of xconv, and a small interpreter for graphs of them.

An ONNX graph is a list of nodes: an operator, named inputs, named outputs, attributes. `run` walks the list.
Each operator is one function

    operator(call, attributes, *inputs) -> output, or a tuple of outputs

where inputs and outputs are NumPy arrays (`None` for an input left out) and
`call(function, *arrays, **options)` runs a function of xconv on the backend under test. The translation
renames options, counts pads and indices, and applies the scales and zero points of quantised arrays.
Everything that convolves, pools, multiplies matrices or normalises happens in xconv. An attribute that the
translation has not read is an error, so that none is ignored by accident.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

import xconv

LAYOUT = "NCHW"  # ONNX arrays are (N, C, *spatial), kernels (O, I, *k), transposed kernels (I, O, *k)

Call = Callable[..., Any]
Pairs = tuple[tuple[int, int], ...]


class NotTranslatedError(Exception):
    """The graph holds an operator that has no translation into xconv."""


# ---------------------------------------------------------------------------------------------- attributes


class Attributes:
    """The attributes of one node, each to be read; `outputs` is how many results the node asks for."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self.outputs = len(node.output)

    def take(self, name: str, default: Any = None) -> Any:
        value = self._values.pop(name, default)
        if isinstance(value, bytes):
            return value.decode()
        return tuple(value) if isinstance(value, (list, tuple)) else value

    def drop(self, *names: str) -> None:
        """Read attributes that mean nothing for a result that is only computed forward."""
        for name in names:
            self._values.pop(name, None)

    def unread(self) -> list[str]:
        return sorted(self._values)


def pairs(pads: Sequence[int]) -> Pairs:
    """ONNX lists all begins, then all ends: (b0, b1, e0, e1) -> ((b0, e0), (b1, e1))."""
    rank = len(pads) // 2
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def padding(attributes: Attributes, rank: int) -> str | Pairs:
    auto = attributes.take("auto_pad", "NOTSET")
    pads = attributes.take("pads", (0,) * 2 * rank)
    names = {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}
    return pairs(pads) if auto == "NOTSET" else names[auto]


def per_axis(attributes: Attributes, name: str, rank: int, default: int) -> tuple[int, ...]:
    values = attributes.take(name, (default,) * rank)
    assert len(values) == rank, f"{name}={values} must name {rank} axes"
    return values


def convolution_options(attributes: Attributes, w: np.ndarray) -> dict[str, Any]:
    """The options that conv and conv_transpose share."""
    kernel = w.shape[2:]
    rank = len(kernel)
    assert attributes.take("kernel_shape", kernel) == kernel
    return {
        "stride": per_axis(attributes, "strides", rank, 1),
        "dilation": per_axis(attributes, "dilations", rank, 1),
        "padding": padding(attributes, rank),
        "groups": attributes.take("group", 1),
        "layout": LAYOUT,
    }


def window_options(attributes: Attributes) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The window of a pool and the options that all pools share; an ONNX stride left out is 1."""
    window = attributes.take("kernel_shape")
    rank = len(window)
    return window, {
        "stride": per_axis(attributes, "strides", rank, 1),
        "dilation": per_axis(attributes, "dilations", rank, 1),
        "padding": padding(attributes, rank),
        "ceil_mode": bool(attributes.take("ceil_mode", 0)),
        "layout": LAYOUT,
    }


# --------------------------------------------------------------------------------------------- convolution


def conv(
    call: Call, attributes: Attributes, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    return call(xconv.conv, x, w, b, **convolution_options(attributes, w))


def conv_transpose(
    call: Call, attributes: Attributes, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None
) -> np.ndarray:
    rank = x.ndim - 2
    extra = per_axis(attributes, "output_padding", rank, 0)
    sizes = attributes.take("output_shape")
    options = convolution_options(attributes, w)
    if sizes is None:
        options["output_padding"] = extra
    elif not any(extra):
        # The pads follow from the size; only SAME_UPPER puts the extra cell of an odd total at the end.
        options["padding"] = "same" if options["padding"] == "same" else "same_lower"
        options["output_shape"] = sizes
    else:
        # xconv takes one of the two, so the pads that give this size with this output padding are counted.
        k, s, d = w.shape[2:], options["stride"], options["dilation"]
        total = [
            s[a] * (x.shape[a + 2] - 1) + extra[a] + d[a] * (k[a] - 1) + 1 - sizes[a] for a in range(rank)
        ]
        small_at_start = options["padding"] == "same"
        options["padding"] = tuple(
            (t // 2, t - t // 2) if small_at_start else (t - t // 2, t // 2) for t in total
        )
        options["output_padding"] = extra
    return call(xconv.conv_transpose, x, w, b, **options)


def without_zero_point(x: np.ndarray, zero_point: np.ndarray | None) -> np.ndarray:
    """x minus its zero point, where the difference fits; padding with 0 is then padding with the point."""
    return x.astype(np.int32) - (0 if zero_point is None else zero_point.astype(np.int32))


def per_output_channel(values: np.ndarray, w: np.ndarray) -> np.ndarray:
    """() or (O,) -> a shape that broadcasts against w (O, I, *k)."""
    return values if values.ndim == 0 else values.reshape(-1, *(1,) * (w.ndim - 1))


def integer_conv(
    call: Call,
    attributes: Attributes,
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: np.ndarray | None,
    w_zero_point: np.ndarray | None,
    b: np.ndarray | None = None,
) -> np.ndarray:
    """The exact sums of the quantised values, int64."""
    if w_zero_point is not None:
        w_zero_point = per_output_channel(w_zero_point, w)
    x, w = without_zero_point(x, x_zero_point), without_zero_point(w, w_zero_point)
    sums = call(xconv.conv, x, w, b, **convolution_options(attributes, w))
    assert sums.dtype.kind == "i"
    return sums.astype(np.int64)


def conv_integer(
    call: Call,
    attributes: Attributes,
    x: np.ndarray,
    w: np.ndarray,
    x_zero_point: np.ndarray | None = None,
    w_zero_point: np.ndarray | None = None,
) -> np.ndarray:
    sums = integer_conv(call, attributes, x, w, x_zero_point, w_zero_point)
    result = sums.astype(np.int32)
    assert (result == sums).all(), "ONNX keeps these sums in int32"
    return result


def quantised_conv(
    call: Call,
    attributes: Attributes,
    x: np.ndarray,
    x_scale: np.ndarray,
    x_zero_point: np.ndarray,
    w: np.ndarray,
    w_scale: np.ndarray,
    w_zero_point: np.ndarray,
    y_scale: np.ndarray,
    y_zero_point: np.ndarray,
    b: np.ndarray | None = None,
) -> np.ndarray:
    """The exact integer convolution, then one multiplication, rounded half to even and saturated."""
    sums = integer_conv(call, attributes, x, w, x_zero_point, w_zero_point, b)
    scale = x_scale.astype(np.float64) * w_scale / y_scale
    scale = scale.reshape(-1, *(1,) * (x.ndim - 2))  # (1, 1, 1) or (O, 1, 1) against (N, O, H, W)
    limits = np.iinfo(y_zero_point.dtype)
    return np.clip(np.rint(sums * scale) + y_zero_point, limits.min, limits.max).astype(y_zero_point.dtype)


def col2im(
    call: Call, attributes: Attributes, columns: np.ndarray, image_shape: np.ndarray, block_shape: np.ndarray
) -> np.ndarray:
    image, block = tuple(image_shape.tolist()), tuple(block_shape.tolist())
    rank = len(image)
    stride = per_axis(attributes, "strides", rank, 1)
    dilation = per_axis(attributes, "dilations", rank, 1)
    pads = pairs(attributes.take("pads", (0,) * 2 * rank))
    # ONNX flattens the positions of the window, xconv keeps one axis each: (N, C*K, L) -> (N, C*K, *out)
    out = [(image[a] + sum(pads[a]) - dilation[a] * (block[a] - 1) - 1) // stride[a] + 1 for a in range(rank)]
    columns = columns.reshape(*columns.shape[:2], *out)
    return call(
        xconv.fold, columns, image, block, stride=stride, padding=pads, dilation=dilation, layout=LAYOUT
    )


# ------------------------------------------------------------------------------------------------- pooling


def flat_planes(shape: Sequence[int], spatial: Sequence[int]) -> np.ndarray:
    """Where each plane (n, c) begins in an array (N, C, *spatial) read flat: (N, C, 1, ...)."""
    count, channels = shape[:2]
    starts = np.arange(count * channels, dtype=np.int64) * int(np.prod(spatial))
    return starts.reshape(count, channels, *(1,) * len(spatial))


def max_pool(call: Call, attributes: Attributes, x: np.ndarray) -> Any:
    column_major = attributes.take("storage_order", 0)
    window, options = window_options(attributes)
    if attributes.outputs == 1:
        return call(xconv.max_pool, x, window, **options)
    values, indices = call(xconv.max_pool, x, window, return_indices=True, **options)
    # xconv counts inside each plane by rows; ONNX over the whole tensor, and a plane by columns if asked to.
    spatial = x.shape[2:]
    where = np.unravel_index(indices.astype(np.int64), spatial)
    inside = np.ravel_multi_index(where, spatial, order="F" if column_major else "C")
    return values, flat_planes(x.shape, spatial) + inside


def average_pool(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    count_include_pad = bool(attributes.take("count_include_pad", 0))
    window, options = window_options(attributes)
    return call(xconv.avg_pool, x, window, count_include_pad=count_include_pad, **options)


def lp_pool(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    p = attributes.take("p", 2)
    window, options = window_options(attributes)
    return call(xconv.lp_pool, x, window, p=p, **options)


def global_max_pool(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    return call(xconv.global_max_pool, x, keepdims=True, layout=LAYOUT)


def global_average_pool(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    return call(xconv.global_avg_pool, x, keepdims=True, layout=LAYOUT)


def global_lp_pool(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    return call(xconv.global_lp_pool, x, p=attributes.take("p", 2), keepdims=True, layout=LAYOUT)


def max_unpool(
    call: Call,
    attributes: Attributes,
    x: np.ndarray,
    indices: np.ndarray,
    output_shape: np.ndarray | None = None,
) -> np.ndarray:
    window = attributes.take("kernel_shape")
    rank = len(window)
    stride = per_axis(attributes, "strides", rank, 1)
    pads = pairs(attributes.take("pads", (0,) * 2 * rank))
    # The indices count over the whole tensor that the pool without an explicit output shape was taken of.
    pooled = tuple((x.shape[a + 2] - 1) * stride[a] + window[a] - sum(pads[a]) for a in range(rank))
    size = pooled if output_shape is None else tuple(output_shape[2:].tolist())
    where = np.unravel_index(indices - flat_planes(x.shape, pooled), pooled)
    indices = np.ravel_multi_index(where, size)
    return call(
        xconv.max_unpool,
        x,
        indices,
        window,
        stride=stride,
        padding=pads,
        output_size=None if output_shape is None else size,
        layout=LAYOUT,
    )


# ---------------------------------------------------------------------------------------- dense and around


def gemm(
    call: Call, attributes: Attributes, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None
) -> np.ndarray:
    """alpha * a @ b + beta * c, where c broadcasts."""
    attributes.drop("broadcast")  # said in version 6 what is now the only behaviour
    alpha, beta = (np.asarray(attributes.take(name, 1.0), dtype=a.dtype) for name in ("alpha", "beta"))
    a = a.T if attributes.take("transA", 0) else a
    b = b.T if attributes.take("transB", 0) else b
    if alpha != 1:
        a = alpha * a
    if c is None:
        return call(xconv.dense, a, b)
    c = beta * c
    if c.ndim == 2 and c.shape[0] != 1:  # one bias per row: no bias of a dense layer
        return call(xconv.dense, a, b) + c
    return call(xconv.dense, a, b, np.ascontiguousarray(np.broadcast_to(c.reshape(-1), b.shape[1:])))


def matmul(call: Call, attributes: Attributes, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return call(xconv.dense, a, b)


def batch_normalization(
    call: Call,
    attributes: Attributes,
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
) -> np.ndarray:
    attributes.drop("is_test", "momentum")
    eps = attributes.take("epsilon", 1e-5)
    return call(xconv.batch_norm, x, mean, var, scale, bias, eps=eps, layout=LAYOUT)


def pad(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    widths = pairs(attributes.take("pads"))
    return call(
        xconv.pad, x, widths, mode=attributes.take("mode", "constant"), value=attributes.take("value", 0.0)
    )


def sigmoid(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    return call(xconv.sigmoid, x)


# ---------------------------------------------------------------------------------------------- plumbing
# What surrounds the operators above in the graphs: plain NumPy, nothing of xconv.


def constant(call: Call, attributes: Attributes) -> np.ndarray:
    return onnx.numpy_helper.to_array(attributes.take("value"))


def constant_of_shape(call: Call, attributes: Attributes, shape: np.ndarray) -> np.ndarray:
    value = attributes.take("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return np.full(shape.tolist(), fill[0])


def shape(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    start, end = attributes.take("start", 0), attributes.take("end", x.ndim)
    return np.asarray(x.shape[start:end], dtype=np.int64)


def cast(call: Call, attributes: Attributes, x: np.ndarray) -> np.ndarray:
    return x.astype(onnx.helper.tensor_dtype_to_np_dtype(attributes.take("to")))


def slice_axes(
    call: Call, attributes: Attributes, x: np.ndarray, starts: np.ndarray, ends: np.ndarray, axes: np.ndarray
) -> np.ndarray:
    where = [slice(None)] * x.ndim
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        where[axis] = slice(start, end)
    return x[tuple(where)]


OPERATORS: dict[str, Callable[..., Any]] = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "CastLike": lambda call, attributes, x, like: x.astype(like.dtype),
    "Col2Im": col2im,
    "Concat": lambda call, attributes, *arrays: np.concatenate(arrays, axis=attributes.take("axis")),
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "Identity": lambda call, attributes, x: x,
    "LpPool": lp_pool,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "Mul": lambda call, attributes, a, b: a * b,
    "Pad": pad,
    "QLinearConv": quantised_conv,
    "Shape": shape,
    "Sigmoid": sigmoid,
    "Slice": slice_axes,
    "Squeeze": lambda call, attributes, x: np.squeeze(x, attributes.take("axes")),
    "Sub": lambda call, attributes, a, b: a - b,
    "Transpose": lambda call, attributes, x: np.transpose(x, attributes.take("perm")),
    "Unsqueeze": lambda call, attributes, x: np.expand_dims(x, attributes.take("axes")),
}


def run(model: onnx.ModelProto, inputs: Sequence[np.ndarray], call: Call) -> list[np.ndarray]:
    """The outputs of the model's graph for these inputs, every xconv function through `call`."""
    graph = model.graph
    missing = sorted({node.op_type for node in graph.node} - OPERATORS.keys())
    if missing:
        raise NotTranslatedError(", ".join(missing))
    arrays: dict[str, np.ndarray | None] = {"": None}  # ONNX names an input that is left out ""
    arrays |= {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in arrays]
    arrays |= zip(names, map(np.asarray, inputs), strict=True)
    for node in graph.node:
        attributes = Attributes(node)
        results = OPERATORS[node.op_type](call, attributes, *(arrays[name] for name in node.input))
        assert not attributes.unread(), f"{node.op_type}: nobody read {attributes.unread()}"
        results = results if isinstance(results, tuple) else (results,)
        arrays |= zip(node.output, results, strict=True)
    return [arrays[value.name] for value in graph.output]
