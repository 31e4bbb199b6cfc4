"""`config`: what holds where, and for whom."""

import asyncio
import contextvars
import threading

import numpy as np
import pytest

import xconv
from xconv._config import DEFAULTS, settings


def test_by_default_nothing_is_set():
    assert settings() == DEFAULTS == (None, None, None, "default", True)


def test_each_setting_holds_inside_and_not_outside():
    for name, value in {"threads": 3, "workspace": 2**20, "cache": 2**18, "precision": "strict"}.items():
        with xconv.config(**{name: value}) as entered:
            assert settings() == DEFAULTS._replace(**{name: value})
            assert repr(entered) == f"config({name}={value!r})"
        assert settings() == DEFAULTS


def test_blocks_nest_and_an_inner_one_changes_only_what_it_sets():
    with xconv.config(threads=3, workspace=2**20):
        with xconv.config(precision="strict", threads=1):
            assert settings() == (1, 2**20, None, "strict", True)
            with xconv.config(precision="default", cache=2**16, fast=False):
                assert settings() == (1, 2**20, 2**16, "default", False)
        assert settings() == (3, 2**20, None, "default", True)


def test_none_leaves_a_setting_as_it_is():
    nothing = xconv.config(threads=None, workspace=None, precision=None, cache=None, fast=None)
    assert repr(nothing) == "config()"
    with xconv.config(threads=3, precision="strict"), nothing:
        assert settings() == (3, None, None, "strict", True)


def test_the_same_settings_can_be_entered_again_also_inside_themselves():
    again = xconv.config(threads=2)
    with again:
        with xconv.config(threads=5), again:
            assert settings().threads == 2
        assert settings().threads == 2
    with again:
        assert settings().threads == 2
    assert settings() == DEFAULTS


def test_an_error_leaves_the_block_too():
    with pytest.raises(ZeroDivisionError), xconv.config(threads=2):
        raise ZeroDivisionError
    assert settings() == DEFAULTS


def test_another_thread_has_settings_of_its_own():
    seen = []
    with xconv.config(threads=2):
        thread = threading.Thread(target=lambda: seen.append(settings()))
        thread.start()
        thread.join()
        inherited = threading.Thread(
            target=contextvars.copy_context().run, args=(lambda: seen.append(settings()),)
        )
        inherited.start()
        inherited.join()
    assert seen == [DEFAULTS, DEFAULTS._replace(threads=2)]


def test_tasks_do_not_meet():
    async def work(threads, others):
        with xconv.config(threads=threads):
            others.release()
            for _ in range(5):
                await asyncio.sleep(0)
                assert settings().threads == threads
        return settings().threads

    async def main():
        gate = asyncio.Semaphore(0)
        with xconv.config(threads=9):
            found = await asyncio.gather(*(work(i, gate) for i in range(1, 5)))
        assert found == [9] * 4

    asyncio.run(main())
    assert settings() == DEFAULTS


def test_settings_reach_the_plan():
    x, w = np.zeros((1, 64, 64, 8), "float32"), np.zeros((3, 3, 8, 8), "float32")
    with xconv.config(workspace=2**16):
        assert xconv.explain(xconv.conv, x, w).plan.workspace == 2**16

    def tiles():
        return xconv.explain(xconv.max_pool, x, 3).plan.tiles

    with xconv.config(cache=2**14):
        small = tiles()
    with xconv.config(cache=2**24):
        assert small > tiles()


@pytest.mark.parametrize("algorithm", ["winograd", "fft"])
def test_strict_precision_excludes_what_rounds_more_than_a_sum(algorithm):
    x, w = np.zeros((1, 64, 64, 8), "float32"), np.zeros((3, 3, 8, 8), "float32")
    reason = "only direct sums are allowed (integers, or precision='strict')"
    assert xconv.explain(xconv.conv, x, w, algorithm=algorithm).algorithm == algorithm
    with xconv.config(precision="strict"):
        explanation = xconv.explain(xconv.conv, x, w)
        assert dict(explanation.plan.refusals)[algorithm] == reason
        with pytest.raises(ValueError, match="algorithm must") as caught:
            xconv.conv(x, w, algorithm=algorithm)
    assert str(caught.value) == (
        f"algorithm must be able to do this problem, but {reason}; got algorithm='{algorithm}'\n"
        f"  in conv(x: float32[1, 64, 64, 8], w: float32[3, 3, 8, 8], algorithm='{algorithm}')"
    )
    xconv.conv(x, w, algorithm=algorithm)  # what has been planned strictly is not kept for others


WRONG = {
    "threads-0": ({"threads": 0}, ValueError, "threads must be a positive number of threads; got threads=0"),
    "threads-negative": (
        {"threads": -2},
        ValueError,
        "threads must be a positive number of threads; got threads=-2",
    ),
    "threads-float": (
        {"threads": 2.0},
        TypeError,
        "threads must be an int, a number of threads; got threads=2.0",
    ),
    "threads-bool": (
        {"threads": True},
        TypeError,
        "threads must be an int, a number of threads; got threads=True",
    ),
    "workspace-0": (
        {"workspace": 0},
        ValueError,
        "workspace must be a positive number of bytes; got workspace=0",
    ),
    "workspace-float": (
        {"workspace": 1e6},
        TypeError,
        "workspace must be an int, a number of bytes; got workspace=1000000.0",
    ),
    "cache-0": ({"cache": 0}, ValueError, "cache must be a positive number of bytes; got cache=0"),
    "cache-text": ({"cache": "1M"}, TypeError, "cache must be an int, a number of bytes; got cache='1M'"),
    "precision": (
        {"precision": "high"},
        ValueError,
        "precision must be 'default' or 'strict'; got precision='high'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_set_is_refused(name):
    options, error, text = WRONG[name]
    with pytest.raises(error, match="must be") as caught:
        xconv.config(**options)
    (option,) = options.items()
    assert str(caught.value) == f"{text}\n  in config({option[0]}={option[1]!r})"
    assert settings() == DEFAULTS


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'blas'"):
        xconv.config(blas=1)
    with pytest.raises(TypeError, match="positional"):
        xconv.config(4)
