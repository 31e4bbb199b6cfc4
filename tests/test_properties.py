"""What holds for any geometry and any options, on examples that Hypothesis draws."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

import reference
import xconv
from cases import ALGORITHMS, EXACT, data_to, kernel_to, small_integers
from compare import assert_close, assert_same

PAD_MODES = ["constant", "edge", "reflect", "symmetric", "wrap"]
LAYOUTS = {
    1: ["channels_last", "channels_first", "CWN,IWO->WNC"],
    2: ["channels_last", "channels_first", "HCWN,OHWI->NCHW"],
    3: ["channels_last", "channels_first", "NCDHW,DHWIO->DHWNC"],
}


def holds(backend, strategy, check, examples=100):
    """`check` holds for examples of `strategy`: fewer on a lazy backend, where each is traced and compiled."""

    @hypothesis.settings(max_examples=4 if backend.lazy else examples)
    @hypothesis.given(strategy)
    def run(example):
        check(example)

    run()


@st.composite
def geometries(draw, *, holes=False, crops=True, pads=3):
    """Sizes, window, stride, dilation, pads and input dilation per axis, with room for at least one window."""
    axes = []
    for _ in range(draw(st.integers(1, 3))):
        k, s, d = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        hole = draw(st.integers(1, 3)) if holes else 1
        n = draw(st.integers(1, 5))
        low = draw(st.integers(-2 if crops else 0, pads))
        least = d * (k - 1) + 1 - ((n - 1) * hole + 1) - low
        high = draw(st.integers(-2 if crops else 0, pads))
        axes.append((n, k, s, d, (low, max(high, least)), hole))
    sizes, window, stride, dilation, pads, holes = (tuple(column) for column in zip(*axes, strict=True))
    return {
        "sizes": sizes,
        "window": window,
        "geometry": {"stride": stride, "dilation": dilation, "pads": pads},
        "input_dilation": holes,
    }


@st.composite
def convolutions(draw, **options):
    """A geometry, channels in groups, a batch or none, a layout, and whole numbers to compute with."""
    example = draw(geometries(**options))
    rank = len(example["sizes"])
    groups = draw(st.integers(1, 3))
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    example["groups"] = groups
    example["batch"] = draw(st.sampled_from([None, 0, 1, 2]))
    example["layout"] = draw(st.sampled_from(LAYOUTS[rank]))
    example["algorithm"] = draw(st.sampled_from(ALGORITHMS))
    seed = draw(st.integers(0, 99))
    batch = 1 if example["batch"] is None else example["batch"]
    example["x"] = small_integers((batch, *example["sizes"], groups * inputs), seed=seed)
    example["w"] = small_integers((*example["window"], inputs, groups * outputs), seed=seed + 1)
    example["b"] = draw(st.sampled_from([None, small_integers((groups * outputs,), seed=seed + 2)]))
    return example


def options_of(example, *names):
    """The options of a call: the geometry in the caller's words, and what else is named."""
    geometry = example["geometry"]
    options = {"stride": geometry["stride"], "dilation": geometry["dilation"], "padding": geometry["pads"]}
    return options | {name: example[name] for name in names}


def given(example, array):
    """Canonical data in the layout of the example, unbatched if it is."""
    array = array[0] if example["batch"] is None else array
    return data_to(array, example["layout"], len(example["sizes"]))


def result_of(example, array):
    """The same for a canonical result."""
    array = array[0] if example["batch"] is None else array
    return data_to(array, example["layout"], len(example["sizes"]), result=True)


def answered(backend, function, example, *arrays, **options):
    """The result of a call; where its algorithm refuses the problem, as it may, that of any that does not."""
    try:
        return backend.call(function, *arrays, algorithm=example["algorithm"], **options)
    except ValueError as error:
        if "algorithm must be able to do this problem, but " not in str(error):
            raise
    example["algorithm"] = "auto"
    return backend.call(function, *arrays, algorithm="auto", **options)


def assert_equal(actual, expected, example):
    """Whole numbers are exact, but for algorithms that round."""
    if example["algorithm"] in EXACT and example["algorithm"] != "auto":
        assert_same(actual, expected)
    else:
        assert actual.dtype == expected.dtype
        assert_close(actual, expected, atol=2e-5)


def test_conv_is_the_reference(backend):
    strategy = st.tuples(convolutions(), st.sampled_from(PAD_MODES))

    def check(drawn):
        example, mode = drawn
        x, w, b = example["x"], example["w"], example["b"]
        kernel = kernel_to(w, example["layout"], len(example["sizes"]))
        options = options_of(example, "groups", "layout") | {"pad_mode": mode}
        actual = answered(backend, xconv.conv, example, given(example, x), kernel, b, **options)
        expected = reference.conv(x, w, b, **example["geometry"], groups=example["groups"], pad_mode=mode)
        assert_equal(actual, result_of(example, expected).astype("float32"), example)

    holds(backend, strategy, check)


def test_conv_general_is_the_reference(backend):
    def check(example):
        x, w = example["x"], example["w"]
        kernel = kernel_to(w, example["layout"], len(example["sizes"]))
        options = options_of(example, "groups", "layout", "input_dilation")
        actual = answered(backend, xconv.conv_general, example, given(example, x), kernel, **options)
        expected = reference.conv(
            x, w, **example["geometry"], groups=example["groups"], input_dilation=example["input_dilation"]
        )
        assert_equal(actual, result_of(example, expected).astype("float32"), example)

    holds(backend, convolutions(holes=True), check)


def test_conv_is_linear(backend):
    """Whole numbers are exact in float32: conv(a x + y, w) = a conv(x, w) + conv(y, w), and so for w."""
    strategy = st.tuples(convolutions(), st.sampled_from(PAD_MODES), st.integers(-3, 3))

    def check(drawn):
        example, mode, a = drawn
        x, w = example["x"], example["w"]
        y, v = small_integers(x.shape, seed=200), small_integers(w.shape, seed=201)
        options = options_of(example, "groups") | {"pad_mode": mode}

        def conv(x, w):
            return answered(backend, xconv.conv, example, x, w, **options)

        parts = a * conv(x, w), conv(y, w), conv(x, v)
        largest = max((abs(part).max() for part in parts if part.size), default=0)
        rounding = {} if example["algorithm"] in EXACT[:-1] else {"atol": 1e-5 * float(largest)}
        assert_close(conv(a * x + y, w), parts[0] + parts[1], **rounding)
        assert_close(conv(x, a * w + v), parts[0] + parts[2], **rounding)

    holds(backend, strategy, check, examples=50)


def test_conv_transpose_is_the_adjoint_of_conv(backend):
    """<conv(x, w), g> = <x, conv_transpose(g, w)>, in whole numbers and therefore exactly."""

    def check(example):
        x, w = example["x"], example["w"]
        kernel = kernel_to(w, example["layout"], len(example["sizes"]))
        layouts = example["layout"].partition("->")
        options = options_of(example, "groups") | {"algorithm": "im2col"}  # which is exact
        y = backend.call(xconv.conv, given(example, x), kernel, layout=example["layout"], **options)
        g = small_integers(y.shape, seed=202)
        back_layout = example["layout"]
        if layouts[1]:  # "a,k->c" is transposed by "c,k->a"
            data, kernel_layout = layouts[0].split(",")
            back_layout = f"{layouts[2]},{kernel_layout}->{data}"
        remainders = tuple(
            (n + lo + hi - d * (k - 1) - 1) % s
            for n, k, s, d, (lo, hi) in zip(
                example["sizes"], example["window"], *example["geometry"].values(), strict=True
            )
        )
        back = backend.call(
            xconv.conv_transpose, g, kernel, layout=back_layout, output_padding=remainders, **options
        )
        assert back.shape == given(example, x).shape
        assert np.sum(y * g) == np.sum(given(example, x) * back)

    holds(backend, convolutions(), check)


def test_conv_transpose_is_the_reference(backend):
    @st.composite
    def examples(draw):
        example = draw(convolutions())
        example["b"] = None
        geometry = example["geometry"]
        example["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1))
            for s, d in zip(geometry["stride"], geometry["dilation"], strict=True)
        )
        # the data of the convolution becomes what this one gives; only its sizes must not vanish
        sizes = [
            reference.transposed_size(n, k, s, lo, hi, d, extra)
            for n, k, s, (lo, hi), d, extra in zip(
                example["sizes"],
                example["window"],
                geometry["stride"],
                geometry["pads"],
                geometry["dilation"],
                example["output_padding"],
                strict=True,
            )
        ]
        hypothesis.assume(min(sizes) > 0)
        return example

    def check(example):
        groups, geometry = example["groups"], example["geometry"]
        x = example["x"]
        w = small_integers((*example["window"], 2, x.shape[-1]), seed=203)
        expected = reference.conv_transpose(
            x, w, **geometry, output_padding=example["output_padding"], groups=groups
        )
        kernel = kernel_to(w, example["layout"], len(example["sizes"]))
        options = options_of(example, "groups", "layout", "output_padding")
        actual = answered(backend, xconv.conv_transpose, example, given(example, x), kernel, **options)
        assert_equal(actual, result_of(example, expected).astype("float32"), example)

    holds(backend, examples(), check)


@st.composite
def pools(draw, **options):
    """A geometry, channels, a batch or none, a layout, and whole numbers, NaN among them now and then."""
    example = draw(geometries(pads=2, **options))
    example["batch"] = draw(st.sampled_from([None, 1, 2]))
    example["layout"] = draw(st.sampled_from(["channels_last", "channels_first"]))
    batch = 1 if example["batch"] is None else example["batch"]
    example["x"] = small_integers(
        (batch, *example["sizes"], draw(st.integers(1, 2))), seed=draw(st.integers(0, 99))
    )
    if draw(st.integers(0, 3)) == 0:
        example["x"][tuple(draw(st.integers(0, n - 1)) for n in example["x"].shape)] = np.nan
    return example


def counts_of(example, ceil):
    """The sizes of the result, and whether every window holds an element."""
    geometry = example["geometry"]
    out = reference.pool_sizes(example["sizes"], example["window"], **geometry, ceil=ceil)
    cells = reference.window_cells(example["sizes"], example["window"], out=out, **geometry)
    return out, all(found for _, found, _ in cells)


def test_pools_are_the_reference(backend):
    kinds = ["max", "omit", "mean", "mean_padded", "lp"]
    strategy = st.tuples(pools(crops=False), st.booleans(), st.sampled_from(kinds))

    def check(drawn):
        example, ceil, kind = drawn
        out, filled = counts_of(example, ceil)
        hypothesis.assume(filled and all(out))
        x, window, geometry = example["x"], example["window"], example["geometry"]
        options = options_of(example, "layout") | {"ceil_mode": ceil}
        x_given = given(example, x)
        if kind in ("max", "omit"):
            omit = kind == "omit"
            expected = reference.pool(x, "max", window, out=out, omit_nan=omit, **geometry)
            indices = reference.max_pool_indices(x, window, out=out, omit_nan=omit, **geometry)
            options |= {"nan": "omit" if omit else "propagate", "return_indices": True}
            actual, found = backend.call(xconv.max_pool, x_given, window, **options)
            assert_same(actual, given(example, expected).astype("float32"))
            sure = ~np.isnan(actual)
            assert_same(found[sure], given(example, indices).astype(found.dtype)[sure])
        else:
            function = xconv.lp_pool if kind == "lp" else xconv.avg_pool
            options |= {} if kind == "lp" else {"count_include_pad": kind == "mean_padded"}
            expected = reference.pool(x, kind, window, out=out, **geometry)
            actual = backend.call(function, x_given, window, **options)
            assert_close(actual, given(example, expected).astype("float32"))

    holds(backend, strategy, check, examples=150)


def test_reduce_window_is_the_reference(backend):
    strategy = st.tuples(pools(holes=True), st.sampled_from(["max", "min", "sum", "prod"]))

    def check(drawn):
        example, reduction = drawn
        x, window = example["x"], example["window"]
        holes = example["input_dilation"]
        expected = reference.pool(x, reduction, window, input_dilation=holes, **example["geometry"])
        options = options_of(example, "layout", "input_dilation")
        actual = backend.call(xconv.reduce_window, given(example, x), reduction, window, **options)
        assert_same(actual, given(example, expected).astype("float32"))

    holds(backend, strategy, check)


def test_fold_is_the_adjoint_of_unfold(backend):
    """<unfold(x), c> = <x, fold(c)>."""

    def check(example):
        x, window, sizes = example["x"], example["window"], example["sizes"]
        x = np.nan_to_num(x)
        options = options_of(example, "layout")
        columns = backend.call(xconv.unfold, given(example, x), window, **options)
        c = small_integers(columns.shape, seed=205)
        back = backend.call(xconv.fold, c, sizes, window, **options)
        assert back.shape == given(example, x).shape
        assert np.sum(columns * c) == np.sum(given(example, x) * back)

    holds(backend, pools(), check)


def test_pad_is_the_reference(backend):
    """Any array, any widths, any mode: each element is where the mathematical continuation says."""

    @st.composite
    def arrays(draw):
        shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        widths = []
        for n in shape:
            low, high = draw(st.integers(-2, 7)), draw(st.integers(-2, 7))
            widths.append((low, max(high, 1 - n - low)))
        return (
            small_integers(shape, seed=draw(st.integers(0, 99))),
            tuple(widths),
            draw(st.sampled_from(PAD_MODES)),
        )

    def check(drawn):
        x, widths, mode = drawn
        assert_same(backend.call(xconv.pad, x, widths, mode=mode), reference.pad(x, widths, mode))

    holds(backend, arrays(), check)
