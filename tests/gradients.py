"""Calls to differentiate: every public operation, small, away from kinks and ties; and derivatives without calculus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import xconv

# What is public, and no operation on arrays.
OTHERS = {"__version__", "config", "explain", "plan", "show_config", "tune", "vjp"}


class Case(NamedTuple):
    """One call. ``arrays`` are differentiated; ``call`` puts whatever else there is beside them."""

    function: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    args: tuple[Any, ...] = ()  # behind the arrays, by position
    options: Mapping[str, Any] = MappingProxyType({})
    label: str = ""
    workspace: int | None = None  # so little that there are several tiles
    call: Callable[..., Any] | None = None

    @property
    def id(self) -> str:
        return f"{self.function.__name__}-{self.label}" if self.label else self.function.__name__

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        """The floating results of the call for arrays of any library."""
        function = self.call or (lambda *a: self.function(*a, *self.args, **self.options))
        with xconv.config(workspace=self.workspace, threads=1):
            y = function(*arrays)
        return tuple(part for part in (y if isinstance(y, tuple) else (y,)) if "int" not in str(part.dtype))


def spaced(*shape: int, low: float = -2.0, high: float = 2.1, seed: int = 0) -> np.ndarray:
    """Numbers in no order, no two alike and none of them 0."""
    values = np.linspace(low, high, int(np.prod(shape)))
    return np.random.default_rng(seed).permutation(values).reshape(shape)


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def loss(results: tuple[Any, ...], asarray: Callable[[np.ndarray], Any]) -> Any:
    """One number that every result counts in, each element by a weight of its own."""
    return sum((y * asarray(normal(*y.shape, seed=7 + i))).sum() for i, y in enumerate(results))


def slope(function: Callable[[float], np.ndarray], step: float = 1e-3) -> np.ndarray:
    """d/dt function(t) at 0, by differences: the error goes with the fourth power of the step."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def numeric_gradient(case: Case) -> list[np.ndarray]:
    """What the loss of NumPy's result changes by, for every element of every array."""
    gradients = []
    for i, array in enumerate(case.arrays):
        gradient = np.empty(array.shape)
        for place in np.ndindex(array.shape):

            def moved(t: float, i=i, place=place) -> np.ndarray:
                arrays = [a.copy() for a in case.arrays]
                arrays[i][place] += t
                return np.asarray(loss(case(*arrays), np.asarray))

            gradient[place] = slope(moved)
        gradients.append(gradient)
    return gradients


def _activations() -> list[Case]:
    x = spaced(2, 5)
    wide = spaced(2, 5, low=-7.3, high=7.4)
    plain = (xconv.leaky_relu, xconv.elu, xconv.selu, xconv.sigmoid, xconv.tanh, xconv.silu, xconv.mish)
    return [
        *(Case(f, (x,)) for f in (*plain, xconv.gelu, xconv.softplus, xconv.softmax, xconv.log_softmax)),
        *(Case(f, (wide,)) for f in (xconv.relu, xconv.relu6, xconv.hard_sigmoid, xconv.hard_swish)),
        Case(xconv.gelu, (x,), options={"approximate": "tanh"}, label="tanh"),
        Case(xconv.softmax, (x,), options={"axis": 0}, label="axis"),
        Case(xconv.prelu, (x, normal(5))),
    ]


def _pools() -> list[Case]:
    x, line, cube = spaced(1, 5, 4, 2), spaced(2, 7, 2), spaced(1, 3, 2, 3, 1)
    more = {"stride": 2, "padding": 1, "ceil_mode": True}
    values, indices = xconv.max_pool(spaced(1, 4, 4, 2), 3, stride=1, return_indices=True)
    cases = [
        Case(xconv.max_pool, (x,), (3,), more),
        Case(xconv.max_pool, (x,), (2,), {"dilation": 2, "stride": 1}, "dilated"),
        Case(xconv.max_pool, (x,), (2,), {"return_indices": True, "padding": 1}, "indices"),
        Case(xconv.max_pool, (x,), (2,), {"nan": "omit"}, "omit"),
        Case(xconv.max_pool, (x,), (3,), {**more, "stride": 1}, "tiles", workspace=600),
        Case(xconv.max_pool, (spaced(2, 5, 4),), ((2, 2),), {"layout": "NCHW"}, "unbatched"),
        Case(xconv.avg_pool, (x,), (3,), more),
        Case(xconv.avg_pool, (x,), (3,), {**more, "count_include_pad": True}, "pads"),
        *(Case(xconv.lp_pool, (x,), (3,), {**more, "p": p}, f"p{p}") for p in (1, 2, 3)),
        Case(xconv.lp_pool, (x[:, :3, ...] ** 2 + 0.2,), (2,), {"p": 1.5}, "p1.5"),
        Case(xconv.adaptive_max_pool, (x,), (3,)),
        Case(xconv.adaptive_max_pool, (x,), (3,), {"return_indices": True}, "indices"),
        Case(xconv.adaptive_avg_pool, (x,), (3,)),
        Case(xconv.global_max_pool, (x,)),
        Case(xconv.global_max_pool, (x,), (), {"layout": "NCHW", "keepdims": True}, "keepdims"),
        Case(xconv.global_avg_pool, (x,)),
        Case(xconv.global_lp_pool, (x,)),
        Case(xconv.global_lp_pool, (x,), (), {"p": 3}, "p3"),
        *(
            Case(xconv.reduce_window, (x,), (kind, 2), {"padding": 1, "stride": 2, "input_dilation": 2}, kind)
            for kind in ("max", "min", "sum", "prod")
        ),
        Case(xconv.reduce_window, (x,), ("mean", 2), {}, "mean"),
        Case(
            xconv.max_unpool,
            (np.asarray(values),),
            call=lambda v: xconv.max_unpool(v, _beside(v, indices), 3, stride=1),
        ),
        Case(xconv.unfold, (x,), (2,), {"padding": 1, "stride": 2}),
        Case(xconv.fold, (normal(1, 4, 3, 8),), ((5, 4), 2)),
    ]
    arrays = {1: line, 2: x, 3: cube}
    for rank, array in arrays.items():
        for kind in ("max_pool", "avg_pool"):
            cases.append(Case(getattr(xconv, f"{kind}{rank}d"), (array,), (2,)))
    return cases


def _beside(like: Any, values: np.ndarray) -> Any:
    """Integers as an array of the same library, on the same device."""
    import array_api_compat

    if array_api_compat.is_torch_array(like):
        return like.new_tensor(values, dtype=None).long()
    return array_api_compat.array_namespace(like).asarray(np.array(values))


def _convolutions() -> list[Case]:
    x, w, b = normal(2, 5, 4, 2), normal(3, 3, 2, 3, seed=2), normal(3, seed=3)
    small, one = normal(1, 4, 3, 2), normal(2, 2, 2, 2, seed=4)
    cases = [
        Case(xconv.conv, (small, normal(1, 1, 2, 3), b), (), {"algorithm": "pointwise"}, "pointwise"),
        Case(xconv.depthwise_conv, (small, one), (), {"algorithm": "depthwise", "padding": 1}, "depthwise"),
        Case(xconv.depthwise_conv, (small, one[..., :1]), (), {"algorithm": "depthwise"}, "one"),
        *(
            Case(xconv.conv, (small, w, b), (), {"algorithm": a, "padding": 1}, a)
            for a in ("direct", "im2col", "banded", "winograd", "fft")
        ),
        Case(xconv.conv, (normal(1, 5, 3, 6), normal(2, 2, 6, 2)), (), {"algorithm": "fft"}, "fft-channels"),
        Case(xconv.conv, (normal(1, 5, 6, 1), normal(3, 2, 1, 2)), (), {"algorithm": "banded"}, "bands"),
        Case(xconv.conv, (normal(1, 5, 6, 1), normal(3, 2, 1, 1)), (), {"algorithm": "spectral"}, "spectral"),
        *(
            Case(xconv.conv, (small, normal(2, 2, 1, 4)), (), {"algorithm": a, "groups": 2}, f"{a}-groups")
            for a in ("direct", "im2col", "fft")
        ),
        *(
            Case(xconv.conv, (small, one), (), {"padding": ((3, 1), (0, 2)), "pad_mode": mode}, mode)
            for mode in ("edge", "reflect", "symmetric", "wrap")
        ),
        *(
            Case(
                xconv.conv,
                (small, normal(2, 2, 2, 3), b),
                (),
                {"activation": name, "stride": 2, "padding": "same"},
                name,
            )
            for name in ("relu", "hard_swish", "mish", "gelu")
        ),
        Case(
            xconv.conv,
            (small, normal(2, 2, 2, 3), b, normal(1, 3, 2, 3)),
            label="residual",
            call=lambda x, w, b, r: xconv.conv(x, w, b, residual=r, activation="silu"),
        ),
        Case(xconv.conv, (x, w, b), (), {"padding": 1, "algorithm": "direct"}, "tiles", workspace=1500),
        Case(xconv.conv, (x, w), (), {"padding": 1, "algorithm": "fft"}, "fft-tiles", workspace=9000),
        Case(
            xconv.conv_general,
            (small, one),
            (),
            {"input_dilation": 2, "padding": ((1, -1), (2, 0)), "dilation": 2},
        ),
        Case(
            xconv.conv_transpose,
            (small, normal(3, 3, 3, 2), b),
            (),
            {"stride": 2, "padding": 1, "activation": "tanh"},
        ),
        Case(xconv.separable_conv, (small, one, normal(1, 1, 4, 3), b), (), {"activation": "sigmoid"}),
        Case(xconv.dense, (normal(2, 3), normal(3, 2)), (), {"activation": "silu"}),
        Case(xconv.dense, (normal(3), normal(3, 2), normal(2)), label="vector"),
        Case(xconv.bilinear, (normal(2, 3), normal(2, 2), normal(2, 3, 2), normal(2))),
    ]
    for rank in (1, 2, 3):
        x, w = normal(1, *(3,) * rank, 1), normal(*(2,) * rank, 1, 2)
        cases.append(Case(getattr(xconv, f"conv{rank}d"), (x, w, normal(2))))
        cases.append(
            Case(getattr(xconv, f"conv_transpose{rank}d"), (x, np.swapaxes(w, -1, -2)), (), {"stride": 2})
        )
    return cases


def _around() -> list[Case]:
    x, mean, gamma, beta = normal(2, 3, 2), normal(2, seed=2), normal(2, seed=3), normal(2, seed=4)
    var = np.asarray([0.5, 2.0])
    widths = ((1, -1), (4, 2))
    return [
        *(
            Case(xconv.pad, (normal(3, 2),), (widths,), {"mode": mode}, mode)
            for mode in ("constant", "edge", "reflect", "symmetric", "wrap")
        ),
        Case(xconv.pad, (normal(3, 2),), (((-1, 0), (0, -1)),), {}, "crop"),
        Case(xconv.batch_norm, (x, mean, var, gamma, beta)),
        Case(xconv.batch_norm, (x, mean, var), label="plain"),
        Case(xconv.fold_batch_norm, (normal(2, 2, 3, 2), beta, mean, var, gamma, beta)),
    ]


def _filters() -> list[Case]:
    x, kernel, rows = normal(2, 5, 4), normal(2, 3, seed=2), normal(5, 3, seed=3)
    same = {"mode": "same", "pad_mode": "reflect"}
    columns = (normal(3, seed=4), normal(2, seed=5))
    beyond = {"axes": (1, 2), "pad_mode": "constant", "value": 0.5}
    return [
        *(
            Case(f, (x[0], kernel), (), {"value": 0.5, "stride": (1, 2)})
            for f in (xconv.convolve, xconv.correlate)
        ),
        Case(xconv.convolve, (x, rows), (), {**same, "axes": 2}, "batch"),
        Case(
            xconv.correlate,
            (x[0], *columns),
            label="factors",
            call=lambda x, *factors: xconv.correlate(x, factors, method="separable", **same),
        ),
        Case(xconv.gaussian_filter, (x,), (0.8,)),
        Case(xconv.gaussian_filter, (x,), (0.6,), {**beyond, "order": (1, 0)}, "slope"),
        Case(xconv.gaussian_filter, (x,), (0.6,), {"axes": (2, 1)}, "tiles", workspace=1500),
        Case(xconv.gaussian_laplace, (x,), (0.7,), {"axes": (0, 2), "pad_mode": "wrap"}),
        Case(xconv.uniform_filter, (x,), (3,), {"pad_mode": "reflect", "axes": (1, 2)}),
        Case(xconv.uniform_filter, (x,), (5,), {"axes": 1, "origin": 1}, "bands"),
        Case(xconv.sobel, (x,), (), {"axis": 1, "pad_mode": "edge"}),
        Case(xconv.laplace, (x,), (), beyond),
    ]


def _ranks() -> list[Case]:
    x, cross = spaced(4, 5), [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    return [
        Case(xconv.median_filter, (x,), (3,)),
        Case(xconv.median_filter, (x,), ((5, 7),), {"pad_mode": "wrap"}, "sorted"),
        Case(
            xconv.median_filter,
            (x,),
            ((2, 3),),
            {"axes": (1, 0), "pad_mode": "reflect"},
            "tiles",
            workspace=1500,
        ),
        Case(xconv.rank_filter, (x,), (1,), {"footprint": cross, "pad_mode": "constant", "value": 0.1}),
        Case(xconv.percentile_filter, (x,), (30, 3), {"axes": 1, "origin": 1, "pad_mode": "edge"}),
        Case(xconv.maximum_filter, (x,), (3,)),
        Case(xconv.maximum_filter, (x,), (), {"footprint": cross}, "footprint"),
        Case(xconv.minimum_filter, (x,), ((2, 3),), {"origin": (-1, 0), "pad_mode": "wrap"}),
    ]


CASES = [*_activations(), *_pools(), *_convolutions(), *_filters(), *_ranks(), *_around()]
