"""Compiled movers in the house: when they are used, what says so, and that they may be missing, old or broken."""

import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest

import xconv
from cases import numbers
from compare import assert_close
from xconv import _namespace
from xconv._bridges import numba as bridge
from xconv._plan import forget_plans

fast = pytest.mark.backends("fast")

X, W, B = numbers((2, 12, 11, 6), seed=1), numbers((3, 3, 6, 8), seed=2), numbers((8,), seed=3)


@pytest.fixture
def fresh():
    """The bridge forgets what it has found, before and after."""

    def forget():
        forget_plans()
        bridge.load.cache_clear()
        bridge._version.cache_clear()

    forget()
    yield
    forget()


def installed(monkeypatch, version):
    """As if this version of numba were installed, or none."""
    known = metadata.version

    def found(name):
        if name != "numba":
            return known(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", found)


def is_fast(**options):
    return xconv.explain(xconv.conv, X, W, **options).plan.problem.fast


# ------------------------------------------------------------------------------------------------- used, or not used


@pytest.mark.parametrize("indices", [False, True])
def test_pools_that_no_compiled_mover_can_do_do_not_ask_for_any(indices, monkeypatch):
    """Numba is imported by the first call that could use it."""

    def asked():
        raise AssertionError("compiled movers were asked for")

    monkeypatch.setattr(bridge, "load", asked)
    x = np.arange(2 * 9 * 8 * 3).reshape(2, 9, 8, 3)
    xconv.max_pool(x, 2, return_indices=indices)
    xconv.max_pool(x.astype("float16"), 2, return_indices=indices)
    if not indices:
        xconv.reduce_window(x, "sum", 2)
        xconv.reduce_window(x.astype("float32"), "prod", 2)


@fast
def test_numpy_arrays_are_done_by_compiled_code():
    assert is_fast()
    assert "compiled: gathered, convolved" in str(xconv.explain(xconv.conv, X, W, algorithm="direct"))
    assert "compiled: gathered, winograd" in str(xconv.explain(xconv.conv, X, W, algorithm="winograd"))
    assert "compiled: gathered, running" in str(xconv.explain(xconv.max_pool, X, 2))


@fast
def test_a_setting_turns_it_off():
    with xconv.config(fast=False):
        assert not is_fast()
        assert "compiled" not in str(xconv.explain(xconv.conv, X, W))
    assert is_fast()


@fast
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_what_is_not_a_real_number_is_not(dtype):
    assert not xconv.explain(xconv.conv, X.astype(dtype), W.astype(dtype)).plan.problem.fast


@fast
@pytest.mark.parametrize("dtype", [">f4", ">f8", "longdouble"])
def test_nor_are_floats_that_the_processor_has_no_vectors_of(dtype):
    x, w = X.astype(dtype), W.astype(dtype)
    for call in (
        lambda: xconv.conv(x, w, padding=1),
        lambda: xconv.conv(X, w, padding=1),
        lambda: xconv.conv(x, W, B.astype(dtype), padding=1),
        lambda: xconv.max_pool(x, 2),
        lambda: xconv.max_pool(x, 2, return_indices=True)[1],
        lambda: xconv.avg_pool(x, 3, padding=1),
    ):
        y = call()
        with xconv.config(fast=False):
            assert_close(y, call())


@fast
@pytest.mark.parametrize(
    "pool",
    [
        lambda x: xconv.max_pool(x, 3, stride=1),
        lambda x: xconv.max_pool(x, 3, stride=1, nan="omit"),
        lambda x: xconv.avg_pool(x, 3, stride=1, padding=1),
        lambda x: xconv.lp_pool(x, 3, stride=1, p=3),
        lambda x: xconv.max_pool(x.transpose(0, 3, 1, 2), 3, layout="NCHW"),
    ],
)
def test_pools_keep_to_the_workspace(pool):
    x = numbers((4, 256, 256, 16))
    pool(x[:1])  # compiles
    tracemalloc.start()
    try:
        with xconv.config(workspace=2**22):
            y = pool(x)
        peak = tracemalloc.get_traced_memory()[1] - y.nbytes
    finally:
        tracemalloc.stop()
    assert peak < 2**22 + 2**20


@fast
def test_nor_are_four_spatial_axes():
    x, w = numbers((1, 4, 4, 4, 4, 2)), numbers((2, 2, 2, 2, 2, 3))
    assert not xconv.explain(xconv.conv, x, w).plan.problem.fast
    assert not xconv.explain(xconv.max_pool, x, 2).plan.problem.fast


@fast
def test_an_activation_of_the_callers_own_is_called_whatever_it_is_like():
    class Activation:
        bounds = (0.0, 1.0)

        def __call__(self, y):
            return y * 100

    assert_close(xconv.conv(X, W, activation=Activation()), 100 * xconv.conv(X, W))


@fast
def test_a_plan_follows_the_setting_of_its_calls():
    bound = xconv.plan(xconv.conv, X, W, B, padding=1, algorithm="direct")
    with xconv.config(fast=False):
        expected = bound(X)
    assert_close(bound(X), expected)
    with xconv.config(fast=False):
        np.testing.assert_array_equal(bound(X), expected)


@fast
def test_tunings_with_and_without_are_kept_apart():
    from xconv._remembered import question

    problem, traits = xconv.explain(xconv.conv, X, W).plan.problem, _namespace.NUMPY
    with xconv.config(fast=False):
        other = xconv.explain(xconv.conv, X, W).plan.problem
    assert question(problem, traits, bound=False) != question(other, traits, bound=False)


@fast
def test_a_subclass_of_numpys_arrays_is_done_as_well(tmp_path):
    stored = np.memmap(tmp_path / "x", "float32", "w+", shape=X.shape)
    stored[...] = X
    for call in (lambda x: xconv.conv(x, W, padding=1), lambda x: xconv.max_pool(x, 3, stride=2)):
        np.testing.assert_array_equal(call(stored), call(X))


# ----------------------------------------------------------------------------------------- missing, too old, broken


def test_without_numba_everything_works_in_silence(fresh, monkeypatch):
    installed(monkeypatch, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xconv.conv(X, W)
    assert not is_fast()
    assert bridge.state(wanted=True) == "not installed (pip install xconv[fast])"


@pytest.mark.parametrize("version", ["0.60.0", "0.9", "0.58.1rc1"])
def test_an_old_one_is_left_alone_in_silence(fresh, monkeypatch, version):
    installed(monkeypatch, version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xconv.conv(X, W)
    assert not is_fast()
    assert bridge.state(wanted=True) == f"numba {version} is too old, {bridge.LOWEST} is needed"


def test_a_broken_one_is_said_once(fresh, monkeypatch):
    installed(monkeypatch, "99.0")
    monkeypatch.setitem(sys.modules, "xconv._bridges.numba.twins", None)  # importing it fails
    assert bridge.state(wanted=True) == "numba 99.0, loaded by the first call on NumPy arrays"
    with pytest.warns(
        UserWarning, match=r"numba 99\.0 is installed but does not work .*config\(fast=False\)"
    ):
        y = xconv.conv(X, W)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(xconv.conv(X, W), y)
    assert bridge.state(wanted=True) == "numba 99.0 is broken"


def test_a_broken_one_that_is_not_wanted_is_not_even_looked_at(fresh, monkeypatch):
    installed(monkeypatch, "99.0")
    monkeypatch.setitem(sys.modules, "xconv._bridges.numba.twins", None)
    with warnings.catch_warnings(), xconv.config(fast=False):
        warnings.simplefilter("error")
        xconv.conv(X, W)
    assert bridge.state(wanted=False) == "numba 99.0, turned off by config(fast=False)"


@fast
def test_the_state_says_that_it_is_active():
    xconv.conv(X, W)
    assert bridge.state(wanted=True) == f"numba {metadata.version('numba')}, active"


# ----------------------------------------------------------------------------------- many at once, and the disk


PROGRAM = """
import numpy as np, xconv
x = np.ones((1, 9, 9, 5), "float32")
with xconv.config(threads=1):
    y = xconv.conv(x, np.ones((3, 3, 5, 4), "float32"), algorithm="direct")
    assert (y == 45).all() and xconv.max_pool(x, 2).sum() == 80
"""


@fast
def test_many_processes_may_compile_at_the_same_time(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-c", PROGRAM]
    started = [subprocess.Popen(run, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert kept  # compiled code is on the disk, and the next process takes it from there
    subprocess.run(run, env=environment, check=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == kept


@fast
def test_so_may_many_threads(tmp_path):
    program = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        f"program = {PROGRAM!r}\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    list(pool.map(lambda _: exec(program, {}), range(16)))\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@fast
def test_threads_that_call_at_once_do_not_disturb_each_other():
    calls = {
        "conv": lambda: xconv.conv(X, W, B, padding=1, activation="relu", algorithm="winograd"),
        "direct": lambda: xconv.conv(X, W, B, padding=1, algorithm="direct"),
        "depthwise": lambda: xconv.depthwise_conv(X, W[..., :1], padding=1, algorithm="depthwise"),
        "pool": lambda: xconv.max_pool(X, 3, stride=2, padding=1, return_indices=True)[1],
    }
    expected = {name: call() for name, call in calls.items()}
    start = threading.Barrier(len(calls))

    def repeat(name):
        start.wait()
        for _ in range(50):
            np.testing.assert_array_equal(calls[name](), expected[name])

    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(repeat, name) for name in calls]:
            done.result()
