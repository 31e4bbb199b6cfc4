"""benchmarks/run.py --fast: compiled movers beside NumPy alone, in engines, tables, targets and files."""

import json
import sys
from contextlib import nullcontext
from importlib.metadata import version

import numpy as np
import pytest

import xconv
from descriptions import ROOT
from measured import FAST, MACHINE, RESULTS, result, with_fast
from xconv._config import settings

sys.path.append(str(ROOT / "benchmarks"))
import engines
import layers
import measuring
import report
import result as kept
import run
import targets
import timing
from peers import Contender


def test_ratios_of_compiled_movers_are_to_the_same_peer():
    assert [r.has_fast for r in (*RESULTS, *FAST)] == [False] * 3 + [True] * 3
    assert [r.fast_ratio for r in FAST] == [4, 2, 1]
    assert [r.fast_bound_ratio for r in FAST] == [8, 4, 1]
    assert [r.bound_ratio for r in FAST] == [r.bound_ratio for r in RESULTS]
    assert FAST[0].peers == RESULTS[0].peers  # they are not peers themselves


def test_a_row_has_compiled_movers_where_they_are_asked_for():
    assert report.head(["torch"], fast=True).split() == [
        *("layer", "output", "xconv", "bound", "[fast]", "[f]bound", "torch"),
        *("plain", "bound", "[fast]", "[f]bound", "GFLOP/s", "algorithm,", "of", "[fast]"),
    ]
    rows = [report.row(r, ["torch"], fast=True).split() for r in FAST]
    assert rows[0][2:7] == ["4.000", "2.000", "2.000", "1.000", "8.000*"]
    assert rows[0][7:] == ["2.00", "4.00", "4.00", "8.00", "500.0", "direct,", "winograd"]
    assert rows[1][-1] == "direct"  # the same is not said twice
    assert rows[2][2:6] == ["8.000", "-", "2.000", "-"]
    assert rows[2][7:11] == ["0.25", "-", "1.00", "-"]
    assert report.head(["torch"], fast=True).index("GFLOP/s") + 7 == report.row(
        FAST[0], ["torch"], fast=True
    ).index("500.0") + len("500.0")


def test_compiled_movers_are_summed_up_beside_numpy_alone():
    numpy, fast, sums = report.footer(FAST).splitlines()
    assert numpy == report.footer(RESULTS).splitlines()[0]
    assert "[fast] plain / bound: 2.00 / 3.17 over 3 layers (conv 2.83 / 5.66, pool 1.00 / 1.00)" in fast
    assert fast.endswith("lowest 1.00 (p)")
    assert sums.endswith("xconv 28.0 ms, bound 18.0 ms, [fast] 10.0 ms, [f]bound 6.0 ms, torch 36.0 ms")
    numpy, fast = report.summary(FAST).split("\n\n")
    assert numpy == report.summary(RESULTS)
    assert fast.splitlines()[0].split() == ["[fast]", "plain", "/", "bound", "layers", "batch", "1"]
    assert fast.splitlines()[-1].split() == ["everything", "3", "2.00", "/", "3.17"]


def test_targets_of_compiled_movers():
    """Every row of the table: its layers, its mean, its floor."""
    large = {"net": "resnet50", "window": [3, 3], "channels": 64}
    lines = targets.verdicts(
        [
            with_fast(result("a", 1, 9, 9, **large), 9, 3),  # 3 times as fast
            with_fast(result("b", 8, 9, 9, **large), 9, 6),  # 1.5
            with_fast(result("narrow", 1, 9, 9, **large | {"channels": 63}), 9, 12),  # 0.75
            with_fast(result("strided", 1, 9, 9, **large, stride=2), 9, 9),
            with_fast(result("volume", 1, 9, 9, **large | {"window": [3, 3, 3]}), 9, 9),
            with_fast(result("mlp", 1, 9, net="vit_b_16", kind="dense"), 9 / 2),  # 2
            with_fast(result("d", 1, 9, 9, kind="depthwise"), 9, 9 / 0.85),
            with_fast(result("p", 1, 9, kind="pool"), 9 / 0.5),
        ]
    ).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("[fast]"))
    found = {line[:44].strip(): line[44:].split()[-3:] for line in lines[start:] if line[0] != " "}
    named, every = (3 * 1.5 * 0.75) ** (1 / 5), (3 * 1.5 * 0.75 * 2) ** (1 / 6)
    assert found == {
        "[fast] dense, named networks, bound": [f"{named:.2f}", "1.50", "missed"],
        "[fast] dense, every network, bound": [f"{every:.2f}", "1.50", "missed"],
        "[fast] 3x3, stride 1, 64 channels, bound": ["2.12", "2.00", "reached"],
        "[fast] depthwise layers": ["0.85", "0.80", "reached"],
        "[fast] pools": ["0.50", "0.80", "missed"],
    }
    assert [line.strip() for line in lines[start:] if line[0] == " "] == [
        "below 0.80: 1 of 5: resnet50 narrow x1 0.75",
        "below 0.80: 1 of 6: resnet50 narrow x1 0.75",
        "below 2.00: 1 of 2: resnet50 b x8 1.50",
        "below 0.80: none of 1",
        "below 0.80: 1 of 1: net p x1 0.50",
    ]


def test_without_compiled_movers_nothing_is_asked_of_them():
    assert "[fast]" not in targets.verdicts(RESULTS)
    # a file that was begun without them: the others count
    assert "of 1: net p x1 0.25" in targets.verdicts([RESULTS[0], with_fast(RESULTS[2], 8)])


def test_a_file_from_before_compiled_movers_can_be_read(tmp_path):
    kept.save(RESULTS, MACHINE, tmp_path / "r.json")
    table = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    for line in table["results"]:
        for name in ("window", "stride", "channels", "fast_algorithm", "fast_same_bits", "fast_thread_gain"):
            del line[name]
    (tmp_path / "r.json").write_text(json.dumps(table), encoding="utf-8")
    assert kept.read(tmp_path / "r.json") == (RESULTS, MACHINE)


def test_compiled_movers_must_be_there_when_they_are_asked_for():
    with pytest.raises(SystemExit, match=r"--fast needs compiled movers.*not installed"):
        run.main(["--fast", "--no-extras"])  # numba is hidden where these tests run


@pytest.mark.backends("fast")
def test_the_compiler_of_compiled_movers_is_named():
    assert engines.need_compiled_movers() == version("numba")


@pytest.mark.backends("torch")
def test_a_run_with_compiled_movers_keeps_both(monkeypatch, tmp_path, capsys):
    for name in ("PACE", "LESS_OFTEN"):
        monkeypatch.setattr(measuring, name, timing.Pace(rest=0, warmups=0, seconds=0, rounds=1))
    monkeypatch.setattr(measuring, "LONG", 0.0)
    monkeypatch.setattr(run, "need_compiled_movers", lambda: "9.9")
    file = tmp_path / "r.json"
    line = f"--net mobilenet_v2 --layer block17 --peers torch --fast --json {file}"
    assert run.main(line.split()) == 0
    printed = capsys.readouterr().out
    assert "[fast] plain / bound " in printed
    assert "[fast] dense, every network, bound" in printed
    assert "[fast] one thread and two give identical bits on 1 of 1 cases" in printed
    ((found,), about) = kept.read(file)
    ours = {"xconv", "xconv bound", "xconv[fast]", "xconv[fast] bound"}
    assert set(found.ms) == ours | {"torch NCHW", "torch NHWC"}
    assert found.memory.keys() == ours
    assert found.fast_thread_gain > 0
    assert found.fast_algorithm
    assert (found.window, found.stride, found.channels) == ([1, 1], 1, 320)
    assert about["numba"] == "9.9"


def test_engines_hold_their_setting_when_they_are_made_and_called(monkeypatch):
    """And leave the setting outside as it is."""
    seen = []

    def conv(*_, **__):
        seen.append(settings())
        return np.zeros(1)

    def plan(function, *_, **__):
        seen.append(settings())
        return function

    monkeypatch.setattr(xconv, "conv", conv)
    monkeypatch.setattr(xconv, "plan", plan)
    layer = layers.Layer(net="n", name="l", shape=(4, 4, 2), kernel=3, channels=2)
    for fast, names in ((False, ["xconv", "xconv bound"]), (True, ["xconv[fast]", "xconv[fast] bound"])):
        for outside in (False, True):
            seen.clear()
            with xconv.config(fast=outside):
                calls = engines.xconv_calls(layer, engines.operands(layer, 1), fast=fast)
                with xconv.config(threads=3):  # as the probes do it
                    for call in calls.values():
                        call()
                assert settings().fast == outside
            assert list(calls) == names
            assert [(s.fast, s.threads) for s in seen] == [(fast, None), (fast, 3), (fast, 3)]


def test_a_wrong_result_of_compiled_movers_stops_the_run(monkeypatch):
    monkeypatch.setattr(measuring, "sample", lambda *_: pytest.fail("timed"))

    def wrong(layer, arrays, *, fast=False):
        call = engines.plain_call(layer, arrays)
        return {engines.FAST: lambda: 1.001 * call()} if fast else {engines.PLAIN: call}

    class Peer:
        scope = nullcontext
        supports = staticmethod(lambda layer: True)

        def contenders(self, layer, arrays):
            return {"": Contender(engines.plain_call(layer, arrays), np.asarray)}

    layer = layers.Layer(net="n", name="l", shape=(4, 4, 2), kernel=3, channels=2)
    monkeypatch.setattr(measuring, "xconv_calls", wrong)
    with pytest.raises(SystemExit, match=r"n l, batch 2: xconv and xconv\[fast\] are 1\.0e-03 apart"):
        measuring.measure({"p": Peer()}, layer, 2, extras=False, fast=True)
