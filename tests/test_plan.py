"""The planner: made from integers, cached, bounded, printable."""

from dataclasses import replace

import numpy as np
import pytest

import xconv
from xconv._algorithms import ALGORITHMS
from xconv._config import DEFAULTS, Settings
from xconv._engine import Planned, execute, only_plan
from xconv._geometry import Axis, ConvProblem, WindowProblem
from xconv._namespace import NUMPY, Traits, numpy_namespace
from xconv._plan import plan_conv, plan_window
from xconv._tiles import Job

CPU, GPU = NUMPY, Traits("cupy", accelerator=True)


def problem(n=56, k=3, c=64, o=64, *, batch=1, stride=1, groups=1, pad=1):
    axis = Axis(n, k, stride, low=pad, high=pad)
    return ConvProblem(batch, (axis, axis), c, o, groups)


def test_a_plan_is_made_once_for_equal_problems():
    assert plan_conv(problem(), CPU, DEFAULTS, "auto") is plan_conv(problem(), CPU, DEFAULTS, "auto")
    assert plan_conv(problem(), CPU, DEFAULTS, "auto") is not plan_conv(problem(), GPU, DEFAULTS, "auto")
    small = Settings(workspace=2**16)
    assert plan_conv(problem(), CPU, DEFAULTS, "auto") is not plan_conv(problem(), CPU, small, "auto")


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
@pytest.mark.parametrize("workspace", [2**16, 2**18, 2**20])
def test_tiles_fit_the_workspace(algorithm, workspace):
    for case in (problem(), problem(k=5, pad=0), problem(batch=8), problem(c=3, n=224, stride=2)):
        plan = plan_conv(case, CPU, Settings(workspace=workspace), algorithm)
        bid = next(bid for bid in plan.candidates if bid.algorithm == algorithm)
        assert bid.cost.workspace <= workspace
        assert bid.tiles == plan.tiles
        assert plan.at_once * plan.memory <= workspace
        # Beyond what the cache holds, a larger workspace changes nothing but how evenly tiles are shared out.
        bigger = plan_conv(case, CPU, Settings(workspace=16 * workspace), algorithm)
        assert bigger.tiles <= plan.tiles


def test_a_problem_that_fits_is_one_tile():
    plan = plan_conv(problem(n=8, c=4, o=4), CPU, DEFAULTS, "auto")
    assert plan.tiles == 1
    assert plan.whole.entire


def test_a_window_larger_than_the_workspace_is_not_cut_into_single_outputs():
    """Tiles that are nearly all halo would read the input once for every output."""
    axes = (Axis(1000, 60, 10, 10, 1, 10, 10), Axis(1000, 80, 10, 10, 1, 20, 20))
    plan = plan_window(WindowProblem(1, axes, 1), CPU, DEFAULTS)
    assert plan.tiles < 16


def test_a_pool_has_an_even_number_of_tiles_where_two_threads_are_worth_it():
    """What has little to do is one tile: a thread that is woken for it comes too late."""
    large, small = (Axis(224, 2, 2),) * 2, (Axis(112, 3, 2, low=1, high=1),) * 2
    settings = Settings(cache=2**21)
    assert plan_window(WindowProblem(1, large, 64), CPU, settings).tiles == 4
    assert plan_window(WindowProblem(1, small, 64), CPU, settings).tiles == 1
    for rows in range(200, 300, 10):
        axes = (Axis(rows, 2, 2), Axis(224, 2, 2))
        tiles = plan_window(WindowProblem(1, axes, 64), CPU, settings).tiles
        assert tiles % 2 == 0 or tiles > 8


def test_the_cheapest_bid_is_taken_and_a_named_one_is_obeyed():
    case = problem(k=1, pad=0)
    plan = plan_conv(case, CPU, DEFAULTS, "auto")
    assert plan.algorithm == plan.candidates[0].algorithm == "pointwise"
    assert [bid.seconds for bid in plan.candidates] == sorted(bid.seconds for bid in plan.candidates)
    assert plan_conv(case, CPU, DEFAULTS, "direct").algorithm == "direct"


def test_every_algorithm_bids_or_says_why_not():
    for case in (problem(), problem(k=1), problem(groups=64), problem(groups=2)):
        plan = plan_conv(case, CPU, DEFAULTS, "auto")
        bidding = {bid.algorithm for bid in plan.candidates}
        refusing = dict(plan.refusals)
        assert bidding | set(refusing) == set(ALGORITHMS)
        assert not bidding & set(refusing)
        assert all(refusing.values())


EXPLANATION = """\
conv: x (1, 8, 8, 4), w (3, 3, 4, 6) -> (1, 8, 8, 6), channels last
  0.03 MFLOP in float32, groups 1
  axis 0: 8 + pads (1, 1), stride 1, dilation 1, input dilation 1 -> 8
  axis 1: 8 + pads (1, 1), stride 1, dilation 1, input dilation 1 -> 8
"""


def test_explain_prints_the_problem_the_ranking_and_the_refusals():
    x, w = np.zeros((1, 8, 8, 4), "float32"), np.zeros((3, 3, 4, 6), "float32")
    explanation = xconv.explain(xconv.conv, x, w, padding=1)
    text = str(explanation)
    assert text.startswith(EXPLANATION)
    assert f"> {explanation.algorithm}" in text
    assert "pointwise cannot: the kernel has 9 taps, not one" in text
    assert "depthwise cannot: each group has 4 input channels, not one" in text
    assert repr(explanation) == text


def test_explain_computes_nothing_and_refuses_as_the_call_does():
    def forbidden(y):
        raise AssertionError("computed")

    x, w = np.zeros((1, 8, 8, 4), "float32"), np.zeros((3, 3, 4, 6), "float32")
    xconv.explain(xconv.conv, x, w, activation=forbidden)
    with pytest.raises(ValueError, match="stride must be positive"):
        xconv.explain(xconv.conv, x, w, stride=0)
    with pytest.raises(ValueError, match="function must be one of conv, conv1d"):
        xconv.explain(xconv.relu, x, w)
    with pytest.raises(ValueError, match="function must be one of conv, conv1d"):
        xconv.explain(np.dot, x, w)
    np.testing.assert_array_equal(
        xconv.conv(x, w), np.zeros((1, 6, 6, 6), "float32")
    )  # planning was left again


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (xconv.conv_transpose, (np.zeros((3, 3, 6, 4), "f4"),), {"stride": 2}),
        (xconv.depthwise_conv, (np.zeros((3, 3, 4, 1), "f4"),), {}),
        (xconv.max_pool, (2,), {}),
        (xconv.avg_pool, ((2, 2),), {"stride": 1}),
    ],
)
def test_explain_knows_the_other_planned_functions(function, arguments, options):
    text = str(xconv.explain(function, np.zeros((1, 8, 8, 4), "f4"), *arguments, **options))
    assert text.startswith(f"{function.__name__}: x (1, 8, 8, 4)")


def test_config_is_of_this_context_only_and_nests():
    x, w = np.zeros((1, 64, 64, 8), "float32"), np.zeros((3, 3, 8, 8), "float32")

    def tiles():
        return xconv.explain(xconv.conv, x, w, algorithm="im2col").plan.tiles

    usual = tiles()
    with xconv.config(workspace=2**16) as outer:
        small = tiles()
        with xconv.config(workspace=2**30):
            assert tiles() == 1
        assert tiles() == small > usual
        with (
            pytest.raises(RuntimeError),
            outer,
        ):  # the same settings can be entered again, and are left on errors
            raise RuntimeError
        assert tiles() == small
    assert tiles() == usual


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_config_refuses_what_is_no_number_of_bytes(value, error):
    with pytest.raises(error, match="workspace must be"):
        xconv.config(workspace=value)


def test_a_transposed_convolution_whose_taps_meet_nothing_is_zero():
    """Its padding crops the only element away, so that no algorithm gets anything to refuse."""
    x, w = np.ones((1, 1, 2), "float32"), np.ones((2, 1, 1, 2), "float32")
    options = {"stride": (3, 1), "dilation": (2, 1), "padding": ((-2, 4), (0, 0)), "groups": 2}
    y = xconv.conv(x, w, **options)
    assert xconv.conv_transpose(y, w, **options).tolist() == [[[0, 0]]]


@pytest.mark.parametrize("kind", ["conv", "pool"])
def test_a_plan_that_is_kept_is_for_arrays_of_its_kind(kind):
    """One library may have arrays on several devices, which have other workspaces."""
    if kind == "conv":
        problem = ConvProblem(1, (Axis(64, 3), Axis(64, 3)), 8, 8)
        operands = (np.ones((3, 3, 8, 8), np.float32), None)
    else:
        problem, operands = WindowProblem(1, (Axis(64, 3), Axis(64, 3)), 8), ()
    job = Job(problem, lambda *a: (), np.dtype("float32"), ((8,),), (np.dtype("float32"),))
    x, plans = np.ones((1, 64, 64, 8), np.float32), {}
    for traits in (NUMPY, replace(NUMPY, accelerator=True), NUMPY):
        with only_plan(), pytest.raises(Planned) as found:
            execute(job, x, operands, numpy_namespace, traits, plans)
        assert found.value.plan.traits == traits
