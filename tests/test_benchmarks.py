"""benchmarks/run.py and its report: tables, targets, files and the command line say what was measured."""

import json
import sys
from contextlib import nullcontext
from importlib.util import find_spec

import numpy as np
import pytest

from descriptions import ROOT
from measured import FAST, MACHINE, RESULTS, result, with_fast

sys.path.append(str(ROOT / "benchmarks"))
import engines
import layers
import limits
import measuring
import report
import result as kept
import run
import targets
import timing
from peers import PEERS, Contender

BATCHES, NETS = layers.load()


def test_every_peer_counts_in_its_faster_format():
    assert RESULTS[1].peers == {"torch": 9, "ONNX Runtime": 4, "JAX": 5}
    assert [r.fastest for r in RESULTS] == ["torch", "ONNX Runtime", "OpenCV"]


def test_ratios_are_to_the_fastest_peer():
    assert [r.plain_ratio for r in RESULTS] == [2, 0.5, 0.25]
    assert [r.bound_ratio for r in RESULTS] == [4, 1, 0.25]  # without weights there is nothing to bind


def test_a_row_has_every_engine():
    peers = ["torch", "ONNX Runtime", "JAX", "OpenCV"]
    assert report.head(peers).split() == [
        *("layer", "output", "xconv", "bound", "torch", "ORT", "JAX", "OpenCV", "plain", "bound"),
        *("GFLOP/s", "algorithm"),
    ]
    rows = [report.row(r, peers).split() for r in RESULTS]
    assert rows[0] == [
        "a",
        "1x4",
        "4.000",
        "2.000",
        "8.000*",
        "-",
        "-",
        "-",
        "2.00",
        "4.00",
        "250.0",
        "direct",
    ]
    assert rows[1][2:10] == ["8.000", "4.000", "9.000", "4.000*", "5.000", "-", "0.50", "1.00"]
    assert rows[2][2:] == ["8.000", "-", "3.000", "-", "-", "2.000*", "0.25", "-", "-", "direct"]
    assert report.head(peers).index("GFLOP/s") + 7 == report.row(RESULTS[0], peers).index("250.0") + 5


def test_a_table_is_summed_up():
    text = report.footer(RESULTS)
    assert "plain / bound: 0.63 / 1.00 over 3 layers (conv 1.00 / 2.00, pool 0.25 / 0.25)" in text
    assert "lowest 0.25 (p)" in text
    # a counts three times; only torch has every layer
    assert text.endswith("xconv 28.0 ms, bound 18.0 ms, torch 36.0 ms")


def test_a_run_is_summed_up():
    lines = report.summary([*RESULTS, result("a", 8, 9, 1)]).splitlines()
    assert (
        [line.split()[-9:] for line in lines[1:]]
        == [
            ["3", *["0.63", "/", "1.00", "1.00", "/", "9.00", "0.71", "/", "1.73"]][-9:],  # net
            ["2", *["1.00", "/", "2.00", "1.00", "/", "9.00", "1.00", "/", "3.30"]][-9:],  # conv
            ["pool", "1", *["0.25", "/", "0.25", "-", "0.25", "/", "0.25"]],
            ["3", *["0.63", "/", "1.00", "1.00", "/", "9.00", "0.71", "/", "1.73"]][-9:],
        ]
    )
    assert lines[2].split()[:3] == ["every", "conv", "2"]


def test_targets_name_the_layers_that_miss_a_floor():
    facts = {"net": "resnet50"}
    lines = targets.verdicts(
        [
            result("a", 1, 9, 4.5, **facts),
            result("b", 1, 18, 18, **facts),
            result("mlp", 1, 30, 3, net="vit_b_16", kind="dense"),  # of ViT only the stem is named
            result("d", 1, 30, 30, kind="depthwise"),
            result("p", 8, 60, kind="pool"),
        ]
    ).splitlines()
    found = {line[:44].strip(): line[44:].split() for line in lines if not line.startswith("    ")}
    assert found["dense layers of the named networks, bound"] == ["1.00", "-", "1.00", "1.00", "reached"]
    assert found["dense layers of the named networks, plain"] == ["0.71", "-", "0.71", "0.85", "missed"]
    assert found["dense layers of every network, bound"] == ["1.44", "-", "1.44", "1.00", "reached"]
    assert found["depthwise layers"] == ["0.30", "-", "0.30", "0.25", "reached"]
    assert found["pools"] == ["-", "0.15", "0.15", "0.25", "missed"]
    assert [line.strip() for line in lines if line.startswith("    ")] == [
        "below 0.60: 1 of 2: resnet50 b x1 0.50",
        "below 0.60: 1 of 3: resnet50 b x1 0.50",
        "below 0.25: none of 1",
        "below 0.25: 1 of 1: net p x8 0.15",
    ]


def test_at_the_limit_a_convolution_takes_what_is_counted_of_it():
    """Products as they are, or fewer by Winograd's algorithm; bytes on top. Nothing is run, and pools stay."""
    speed = limits.Speed(flops=1e11, bytes=1e10)
    _, nets = layers.load()
    first = next(layer for layer in nets["resnet50"].layers if layer.name == "layer1.0.conv3")
    results = [
        result(first.name, 1, 50, 40, net="resnet50"),
        result("layer1.0.conv2", 8, 50, 40, net="resnet50"),
        result("maxpool", 1, 5, net="resnet50", kind="pool"),
    ]
    alone, fewer, pool = limits.at_the_limit(results, speed, moved=False)
    expected = 1e3 * 2 * 56 * 56 * 64 * 256 / speed.flops
    assert alone.ms["xconv"] == alone.ms["xconv bound"] == pytest.approx(expected)
    assert alone.peers == results[0].peers
    sums = 1e3 * 8 * 2 * 56 * 56 * 64 * 64 * 9 / speed.flops
    assert sums / 4 < fewer.ms["xconv bound"] < sums / 2
    assert pool.ms == results[2].ms
    slower, *_ = limits.at_the_limit(results[:1], speed, moved=True)
    passes = 1e3 * 4 * 56 * 56 * (64 + 256) / speed.bytes  # the input read and the result written, at least
    assert slower.ms["xconv"] >= alone.ms["xconv"] + passes


def test_the_stem_of_vit_is_named():
    (named, *_) = targets.TARGETS
    assert named.has(result("stem", 1, 1, net="vit_b_16"))
    assert not named.has(result("stem", 1, 1, net="mobilenet_v2"))
    assert not named.has(result("maxpool", 1, 1, net="resnet50", kind="pool"))


def test_a_long_list_of_misses_is_cut():
    text = targets.verdicts([result(f"l{i}", 1, 100 + i, net="unet") for i in range(20)])
    assert f"20 of 20: unet l19 x1 0.08, unet l18 x1 0.08, {'unet l17'}" in text
    assert f"and {20 - targets.SHOWN} more" in text


def test_memory_bits_and_threads_are_summed_up():
    text = targets.verdicts(
        [
            result(
                "a", 1, 9, memory={"xconv": 2**20, "xconv bound": 3 * 2**19}, same_bits=True, thread_gain=1.8
            ),
            result("b", 8, 9, memory={"xconv": 2**26}, same_bits=False, thread_gain=1.25),
            result("c", 8, 9),
        ]
    )
    assert "memory beyond the result: at most 64.0 MiB (net b x8, xconv); asked 64 MiB: reached" in text
    assert "identical bits on 1 of 2 cases; not on net b x8" in text
    assert "2 cases over 5 ms: 1.25x at least (net b x8), geometric mean 1.50x; asked 1.7x" in text
    assert "below 1.7: 1 of 2: net b x8 1.25" in text
    fast = {"fast_same_bits": False, "fast_thread_gain": 1.5}
    text = targets.verdicts([result("a", 1, 9, same_bits=True, thread_gain=2.0, **fast)])
    assert "\none thread and two give identical bits on 1 of 1 cases\n" in text
    assert "[fast] one thread and two give identical bits on 0 of 1 cases; not on net a x1" in text
    assert "[fast] two threads instead of one, 1 cases over 5 ms: 1.50x at least" in text
    text = targets.verdicts(
        [result("a", 1, 9, memory={"xconv": 2**26 + 1, "xconv bound": 1}, same_bits=True)]
    )
    assert "missed by 1 of 2 calls" in text
    assert text.endswith("identical bits on 1 of 1 cases")


@pytest.mark.parametrize("results", [RESULTS, FAST, [*RESULTS, *FAST]])
def test_what_is_saved_can_be_read(tmp_path, results):
    kept.save(results, MACHINE, tmp_path / "r.json")
    assert kept.read(tmp_path / "r.json") == (results, MACHINE)
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_the_latest_results_can_be_read():
    results, about = kept.read(ROOT / "benchmarks" / "results" / "all.json")
    assert min(r.plain_ratio for r in results) > 0
    assert {"cpu", "commit", "threads"} <= set(about)


if find_spec("matplotlib"):  # in no session of the tests; a run draws its results only when it is asked to
    import plot
    from matplotlib.figure import Figure

    def test_a_picture_is_drawn(tmp_path):
        plot.draw([*RESULTS, result("a", 8, 9, 1, net="other")], MACHINE, tmp_path / "r.png")
        assert (tmp_path / "r.png").read_bytes()[1:4] == b"PNG"

    def texts(results):
        """The letters in the picture of one layer, each with its place on the axis of ratios."""
        axes = Figure().add_subplot()
        plot._letters(axes, results, ["b"], 0.5)
        return {text.get_text(): text.get_position()[0] for text in axes.texts}

    def test_every_peer_is_a_letter_beside_compiled_movers(tmp_path):
        plot.draw([*FAST, with_fast(result("a", 8, 9, 1), 3, 2)], MACHINE, tmp_path / "r.png")
        assert (tmp_path / "r.png").read_bytes()[1:4] == b"PNG"
        assert set(plot.LETTERS) == set(PEERS)
        # torch at 4 / 9 is too slow for a picture that begins at 0.5
        assert texts([FAST[1]]) == {"X": pytest.approx(1), "J": pytest.approx(0.8)}

    def test_every_kind_has_a_colour():
        assert set(plot.COLOURS) == set(report.KINDS)

    def test_networks_are_arranged_in_columns_of_even_height():
        assert plot.arrange({"a": 10, "b": 20}) == [["a", "b"]]
        assert plot.arrange({"a": 10, "b": 40, "c": 12, "d": 20}) == [["a", "c"], ["b"], ["d"]]


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    measured = []

    def measure(peers, layer, batch, without, extras, fast):
        measured.append((layer.name, batch, sorted(without)))
        least = {"xconv": 99, "xconv[fast] bound": 1, "torch NCHW": 9, "JAX NHWC": 91, "JAX NCHW": 90}
        return result(layer.name, batch, 9, net=layer.net, least=least)

    monkeypatch.setattr(run, "measure", measure)
    _, chosen = run.command_line(["--layer", "layer1.0.conv", "--batch", "8,1"])
    whole = list(run.run({}, chosen))
    assert [(r.layer[-1], r.batch) for r in whole] == [(name, batch) for batch in (1, 8) for name in "123"]
    # what was ten times slower than the fastest is left out where there are more samples
    assert {(batch, *without) for _, batch, without in measured} == {(1,), (8, "JAX NHWC")}
    measured.clear()
    assert list(run.run({}, chosen, earlier=whole[:4])) == whole
    assert [(name[-1], batch) for name, batch, _ in measured] == [("2", 8), ("3", 8)]


def test_only_a_run_of_the_same_code_can_be_resumed(tmp_path, capsys):
    path = tmp_path / "r.json"
    assert run.to_resume(path, MACHINE) == []
    kept.save(RESULTS, MACHINE, path)
    assert run.to_resume(path, MACHINE | {"threads": "2 for every engine, load 7"}) == RESULTS
    with pytest.raises(SystemExit, match="commit was b, is c"):
        run.to_resume(path, MACHINE | {"commit": "c"})
    with pytest.raises(SystemExit, match="JAX was none, is 3"):
        run.to_resume(path, MACHINE | {"JAX": "3, 2 threads"})
    with pytest.raises(SystemExit, match="numba was none, is 1"):  # which is there with --fast
        run.to_resume(path, MACHINE | {"numba": "1"})


@pytest.mark.parametrize(
    "line, chosen",
    [
        ("", [("resnet50", [1])]),
        ("--all", [(net, BATCHES) for net in NETS]),
        ("--all --batch 8", [(net, [8]) for net in NETS]),
        ("--net vgg16 --net alexnet --batch 8,1", [("vgg16", [1, 8]), ("alexnet", [1, 8])]),
    ],
)
def test_the_command_line_chooses_layers(line, chosen):
    options, cases = run.command_line(line.split())
    assert [(layer, batch) for _, batch, layer in cases] == [
        (layer, batch) for net, batches in chosen for batch in batches for layer in NETS[net].layers
    ]
    assert options.peers == list(PEERS)


@pytest.mark.parametrize(
    "line, says",
    [
        ("--net resnet51", "choose from"),
        ("--batch 1,x", "positive whole numbers"),
        ("--batch 0", "positive whole numbers"),
        ("--threads 0", "positive whole numbers"),
        ("--layer nothing", "no layer of resnet50"),
        ("--json no/such/folder/a.json", "no folder"),
        ("--peers torch,numpy", "got numpy"),
        ("--resume", "needs --json"),
    ],
)
def test_a_wrong_command_line_is_refused(line, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        run.command_line(line.split())
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_a_missing_package_is_named():
    with pytest.raises(SystemExit, match=r"need no_such_package .*nox -s bench"):
        run.need("no_such_package")


def test_a_missing_peer_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "peers.scipy_ndimage", raising=False)
    with pytest.raises(SystemExit, match=r"need scipy .*nox -s bench"):
        run.open_peers(["SciPy"], 1)


@pytest.fixture
def hurried(monkeypatch):
    """No waiting."""
    for name in ("PACE", "LESS_OFTEN"):
        monkeypatch.setattr(measuring, name, timing.Pace(rest=0, warmups=0, seconds=0, rounds=1))


@pytest.mark.backends("torch")
def test_a_run_prints_tables_and_writes_json(hurried, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measuring, "LONG", 0.0)  # so that every case is run with one thread and with two
    file = tmp_path / "r.json"
    line = f"--net mobilenet_v2 --layer block17 --batch 1,2 --peers torch --json {file}"
    assert run.main(line.split()) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\nblock17.project ") == 2
    assert " for every engine, load " in printed.out
    assert "dense layers of every network, bound" in printed.out
    assert "identical bits on 2 of 2 cases" in printed.out
    assert "[  2/2] mobilenet_v2 block17.project, batch 2" in printed.err
    table = json.loads(file.read_text(encoding="utf-8"))
    assert [line["batch"] for line in table["results"]] == [1, 2]
    assert set(table["results"][0]["ms"]) == {"xconv", "xconv bound", "torch NCHW", "torch NHWC"}
    assert table["results"][0]["memory"].keys() == {"xconv", "xconv bound"}
    assert min(line["thread_gain"] for line in table["results"]) > 0
    monkeypatch.setattr(run, "measure", lambda *_: pytest.fail("measured again"))
    assert run.main([*line.split(), "--resume"]) == 0
    assert "resumed: 2 results" in capsys.readouterr().out
    assert json.loads(file.read_text(encoding="utf-8"))["results"] == table["results"]


def test_a_peer_far_too_slow_is_not_timed_again(monkeypatch):
    layer = layers.Layer(net="n", name="l", shape=(4, 4, 2), kernel=3, channels=2)
    clock = iter([0, 2, 2, 21.5, 21.5, 42])  # 2 seconds, 19.5 and 20.5, when the results are compared
    timed = []

    def sample(calls, pace, rivals):
        timed.append((sorted(calls), rivals))
        return {name: [2.0, 3.0, 4.0] for name in calls}

    class Peer:
        scope = nullcontext
        supports = staticmethod(lambda layer: True)

        def contenders(self, layer, arrays):
            call = engines.plain_call(layer, arrays)
            return {name: Contender(call, np.asarray) for name in ("a", "b", "c")}

    monkeypatch.setattr(measuring, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measuring, "sample", sample)
    found = measuring.measure({"torch": Peer()}, layer, batch=2, extras=False)
    ours = [name for name in found.ms if name.startswith("xconv")]
    assert timed == [(sorted([*ours, "torch a", "torch b"]), ["torch a", "torch b"])]
    assert found.ms == dict.fromkeys([*ours, "torch a", "torch b"], 3000) | {"torch c": 20500}
    assert found.least == dict.fromkeys([*ours, "torch a", "torch b"], 2000) | {"torch c": 20500}
    assert found.error == 0
    assert found.same_bits is None
    assert not found.memory


@pytest.mark.backends("torch")
def test_a_wrong_result_stops_the_run_before_it_is_timed(hurried, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "sample", lambda *_: pytest.fail("timed"))
    monkeypatch.setattr(measuring, "relative_error", lambda *_: float("nan"))
    file = tmp_path / "r.json"
    with pytest.raises(SystemExit, match=r"vit_b_16 head, batch 1: xconv and torch are nan apart"):
        run.main(["--net", "vit_b_16", "--layer", "head", "--peers", "torch", "--json", str(file)])
    assert not file.exists()
