"""benchmarks/: cases.toml holds the networks it names, and the arithmetic around the clock is right."""

import json
import sys
from contextlib import nullcontext
from itertools import combinations_with_replacement
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # programs that are run as files import each other by plain names
import engines
import layers
import report
import run
import timing

BATCHES, NETS = layers.load()
EVERY = [layer for net in NETS.values() for layer in net.layers]

# As published: convolutions, transposed ones; billions of multiply-adds in convolutions, and in all of these layers.
# MobileNetV2 counts 0.3 in its paper; ViT-B/16 counts 17.56 with the 0.72 of its attention products.
COUNTS = {
    "resnet50": (53, 0, 4.09, 4.09),
    "vgg16": (13, 0, 15.35, 15.47),
    "alexnet": (5, 0, 0.656, 0.714),
    "mobilenet_v2": (52, 0, 0.300, 0.301),
    "unet": (19, 4, None, None),
    "vit_b_16": (1, 0, 0.1156, 17.56 - 0.715),
    "monai_unet": (19, 4, None, None),
    "wav2vec2": (8, 0, None, None),
}

# Published parameters; how many of them each output channel of a convolution has (bias, or scale and shift of a batch
# norm, or all three); and those of layers that are not timed. Dense and transposed layers have a bias.
PARAMETERS = {
    "resnet50": (25_557_032, 2, 0),
    "vgg16": (138_357_544, 1, 0),
    "alexnet": (61_100_840, 1, 0),
    "mobilenet_v2": (3_504_872, 2, 0),
    # The last convolution has a bias only. The norms of the decoder are those of its convolutions.
    "unet": (7_763_041, 2, -1),
    # Class token, positions, and 25 layer norms.
    "vit_b_16": (86_567_656, 1, 768 + 197 * 768 + 25 * 2 * 768),
    # Bias and norm, but no norm in the skip connections (which down1 to down4 count twice) and behind the last layer;
    # norms of the transposed convolutions; 17 slopes.
    "monai_unet": (4_808_917, 3, -2 * (16 + 32 + 64 + 128 + 256) - 2 * 2 + 2 * (64 + 32 + 16 + 2) + 17),
    # The first seven convolutions have no bias but one group norm; the last has a norm of its weights. 26 layer norms,
    # and the vector that stands for what is masked.
    "wav2vec2": (94_371_712, 1, -7 * 512 + 2 * 512 + 128 + 2 * 512 + 25 * 2 * 768 + 768),
}


def convolutions(net, op="conv"):
    return [layer for layer in NETS[net].layers if layer.op == op]


def macs(chosen):
    return sum(layer.times * layer.macs for layer in chosen) / 1e9


def test_every_network_is_checked_here():
    assert set(NETS) == set(COUNTS) == set(PARAMETERS)
    assert BATCHES == [1, 8, 32]


@pytest.mark.parametrize("net", COUNTS)
def test_a_network_has_its_published_number_of_convolutions(net):
    convs, transposed, *_ = COUNTS[net]
    assert sum(layer.times for layer in convolutions(net)) == convs
    assert sum(layer.times for layer in convolutions(net, "conv_transpose")) == transposed


@pytest.mark.parametrize("net", [net for net in COUNTS if COUNTS[net][2]])
def test_a_network_has_its_published_multiply_adds(net):
    *_, in_convolutions, in_all = COUNTS[net]
    assert macs(convolutions(net)) == pytest.approx(in_convolutions, rel=0.01)
    assert macs(NETS[net].layers) == pytest.approx(in_all, rel=0.01)


@pytest.mark.parametrize("net", PARAMETERS)
def test_a_network_has_its_published_parameters(net):
    published, of_a_channel, elsewhere = PARAMETERS[net]
    count = elsewhere
    for layer in NETS[net].layers:
        if layer.weight_shape is not None:
            extra = of_a_channel if layer.op == "conv" else 1
            count += layer.times * (prod(layer.weight_shape) + extra * layer.channels)
    assert count == published


@pytest.mark.parametrize("net", NETS)
def test_every_layer_takes_what_another_one_gives(net):
    given = {NETS[net].input, *(layer.output_shape for layer in NETS[net].layers)}
    joined = {  # a decoder's input and the encoder's, side by side
        (*a[:-1], a[-1] + b[-1]) for a, b in combinations_with_replacement(given, 2) if a[:-1] == b[:-1]
    }
    features = {shape[-1] for shape in given} | {prod(shape) for shape in given}
    for layer in NETS[net].layers:
        if layer.op == "dense":  # acts on flattened images, single vectors or rows of them
            assert layer.shape[-1] in features, layer
        else:
            assert layer.shape in given | joined, layer


def test_one_second_of_sound_is_forty_nine_frames():
    assert NETS["wav2vec2"].layers[6].output_shape == (49, 512)


def test_no_layer_is_written_twice():
    for net in NETS.values():
        names = [layer.name for layer in net.layers]
        problems = [(line.op, line.shape, line.kernel, line.channels, line.stride) for line in net.layers]
        assert len(set(names)) == len(names), net.name
        assert len(set(problems)) == len(problems), net.name


@pytest.mark.parametrize("layer", EVERY, ids=lambda layer: f"{layer.net}-{layer.name}")
def test_a_layer_is_well_formed(layer):
    assert min(layer.times, layer.stride, layer.kernel, *layer.shape, *layer.output_shape) >= 1
    assert layer.kind in report.COLOURS
    assert (layer.channels > 0) == (layer.kind != "pool")
    assert layer.shape[-1] % layer.groups == layer.channels % layer.groups == 0


@pytest.mark.parametrize(
    "line",
    [
        '{ name = "a", shape = [4], op = "convolve" }',
        '{ name = "a", shape = [4], strides = 2 }',
        '{ name = "a" }',
    ],
)
def test_a_misspelt_line_is_refused(line, tmp_path):
    file = tmp_path / "cases.toml"
    file.write_text(f'batches = [1]\n[net]\ntitle = "t"\ninput = [4]\nlayers = [{line}]\n', encoding="utf-8")
    with pytest.raises((TypeError, ValueError, KeyError), match=r"op must|strides|shape"):
        layers.load(file)


def test_output_sizes_of_a_transposed_convolution():
    facts = {"net": "n", "name": "l", "op": "conv_transpose", "shape": (5, 1), "channels": 2}
    line = layers.Layer(kernel=3, stride=2, padding=1, **facts)
    assert line.output_shape == (9, 2)
    assert layers.Layer(kernel=3, stride=2, padding=1, output_padding=1, **facts).output_shape == (10, 2)
    assert line.macs == 5 * 3 * 1 * 2


class Clock:
    """A clock that only stands still, rests, or goes on by what a call costs."""

    def __init__(self):
        self.now = 0.0
        self.events = []

    def read(self):
        return self.now

    def sleep(self, seconds):
        self.events.append(("rest", seconds))
        self.now += seconds

    def engine(self, name, costs):
        """A call that takes the next of ``costs``, and the last one from then on."""
        costs = list(costs)

        def call():
            self.events.append((name, cost := costs.pop(0) if len(costs) > 1 else costs[0]))
            self.now += cost

        return call


def test_a_burst_rests_then_warms_up_then_counts():
    clock = Clock()
    pace = timing.Pace(rest=4, warmups=2, seconds=8, rounds=1)
    samples = timing.burst(clock.engine("a", [64, 32, 2, 4, 1]), pace, clock.read, clock.sleep)
    assert samples == [2, 4, 1, 1]  # until the eighth second is over; warm-ups are not in it
    assert clock.events[:3] == [("rest", 4), ("a", 64), ("a", 32)]
    assert len(clock.events) == 1 + 2 + 4


def test_a_call_longer_than_the_burst_still_counts_once():
    clock = Clock()
    pace = timing.Pace(rest=0, warmups=0, seconds=1, rounds=1)
    assert timing.burst(clock.engine("a", [16]), pace, clock.read, clock.sleep) == [16]


def test_engines_take_turns_in_bursts_and_the_median_is_over_all_rounds():
    clock = Clock()
    pace = timing.Pace(rest=1, warmups=1, seconds=2, rounds=3)
    a = clock.engine("a", [8, 2, 8, 4, 8, 16])  # a warm-up and one call that counts, three times
    b = clock.engine("b", [1])
    assert timing.compare({"a": a, "b": b}, pace, clock.read, clock.sleep) == {"a": 4, "b": 1}
    order = [name for name, _ in clock.events]
    assert order == ["rest", "a", "a", "rest", "b", "b", "b"] * 3


def test_the_usual_pace_is_the_documented_one():
    assert timing.Pace() == timing.Pace(rest=0.06, warmups=2, seconds=0.3, rounds=3)


def test_geometric_mean():
    assert timing.geometric_mean([2, 0.5]) == 1
    assert timing.geometric_mean(iter([1, 2, 4])) == pytest.approx(2)
    assert timing.geometric_mean([1e300, 1e300]) == pytest.approx(1e300)  # no product that overflows
    with pytest.raises(ValueError, match="at least one"):
        timing.geometric_mean([])


def result(layer, batch, xconv, torch, **others):
    """xconv's milliseconds, and torch's in two formats."""
    facts = {
        "kind": "conv",
        "times": 1,
        "gflop": 0.5,
        "output": [batch, 4],
        "algorithm": "direct",
        "error": 0.0,
    }
    ms = {"xconv": xconv, "torch NCHW": torch[0], "torch NHWC": torch[1]}
    return report.Result(net="net", layer=layer, batch=batch, ms=ms, **facts | others)


RESULTS = [
    result("a", 1, 2, (9, 8), times=3),
    result("b", 1, 4, (4, 5)),
    result("p", 1, 8, (2, 3), kind="pool"),
]


def test_the_faster_memory_format_of_torch_counts():
    assert [r.ratio for r in RESULTS] == [4, 1, 0.25]


def test_tables_say_what_was_measured():
    assert report.row(RESULTS[0]).split() == ["a", "1x4", "2.000", "8.000", "4.00", "250.0", "direct"]
    assert "geometric mean 1.00 over 3 layers (conv 2.00, pool 0.25); lowest 0.25 (p)" in report.footer(
        RESULTS
    )
    assert "xconv 18.0 ms, torch 30.0 ms" in report.footer(RESULTS)  # a counts three times
    lines = report.summary([*RESULTS, result("a", 8, 1, (9, 9))]).splitlines()
    assert [line.split()[-2:] for line in lines[1:-1]] == [
        ["1.00", "9.00"],  # net
        ["2.00", "9.00"],  # conv
        ["0.25", "-"],  # pool, at batch 1 only
        ["1.00", "9.00"],
    ]
    assert lines[-1] == f"all batch sizes together: {9**0.25:.2f}"


def test_what_is_saved_can_be_read(tmp_path):
    report.save(RESULTS, {"cpu": "a", "commit": "b"}, tmp_path / "r.json")
    assert report.read(tmp_path / "r.json") == (RESULTS, {"cpu": "a", "commit": "b"})


@pytest.mark.parametrize(
    "line, chosen",
    [
        ("", [("resnet50", [1])]),
        ("--all", [(net, BATCHES) for net in NETS]),
        ("--all --batch 8", [(net, [8]) for net in NETS]),
        ("--net vgg16 --net alexnet --batch 1,8", [("vgg16", [1, 8]), ("alexnet", [1, 8])]),
    ],
)
def test_the_command_line_chooses_layers(line, chosen):
    _, cases = run.command_line(line.split())
    assert [(layer, batch) for _, batch, layer in cases] == [
        (layer, batch) for net, batches in chosen for batch in batches for layer in NETS[net].layers
    ]


@pytest.mark.parametrize(
    "line, says",
    [
        ("--net resnet51", "choose from"),
        ("--batch 1,x", "positive whole numbers"),
        ("--batch 0", "positive whole numbers"),
        ("--threads 0", "positive whole numbers"),
        ("--layer nothing", "no layer of resnet50"),
        ("--json no/such/folder/a.json", "no folder"),
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


# The smallest layer of every kind and rank, so that each way of calling torch is taken once.
SMALLEST = {}
for candidate in sorted(EVERY, key=lambda layer: layer.macs or prod(layer.shape), reverse=True):
    SMALLEST[candidate.op, candidate.kind, len(candidate.shape)] = candidate


@pytest.mark.backends("torch")
@pytest.mark.parametrize("layer", SMALLEST.values(), ids=lambda layer: f"{layer.net}-{layer.name}")
def test_engines_agree(layer):
    import torch

    arrays = engines.operands(layer, batch=2)
    call, _ = engines.xconv_call(layer, arrays)
    calls = engines.torch_calls(torch, layer, arrays)
    assert len(calls) == (2 if layer.op != "dense" and len(layer.shape) > 2 else 1)
    for other in calls.values():
        assert engines.relative_error(layer, call(), other()) <= run.LIMIT
        assert engines.relative_error(layer, call() * np.float32(1.001), other()) > run.LIMIT
        assert engines.relative_error(layer, call()[:1], other()) == float("inf")


@pytest.fixture
def hurried(monkeypatch):
    """No waiting, and a threadpoolctl that does nothing: the test sessions do not have it."""
    pools = [{"user_api": "blas", "internal_api": "someblas", "version": "1.2"}]
    fake = SimpleNamespace(threadpool_info=lambda: pools, threadpool_limits=lambda *_, **__: nullcontext())
    monkeypatch.setitem(sys.modules, "threadpoolctl", fake)
    monkeypatch.setattr(run, "PACE", timing.Pace(rest=0, warmups=0, seconds=0, rounds=1))


@pytest.mark.backends("torch")
def test_a_run_prints_tables_and_writes_json(hurried, tmp_path, capsys):
    arguments = [
        "--net",
        "mobilenet_v2",
        "--layer",
        "block17",
        "--batch",
        "1,2",
        "--json",
        str(tmp_path / "r.json"),
    ]
    assert run.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.count("block17.project ") == 2
    assert "someblas 1.2" in printed.out
    assert "all batch sizes together" in printed.out
    assert "[  2/2] mobilenet_v2 block17.project, batch 2" in printed.err
    table = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [line["batch"] for line in table["results"]] == [1, 2]
    assert set(table["results"][0]["ms"]) == {"xconv", "torch NCHW", "torch NHWC"}


@pytest.mark.backends("torch")
def test_a_wrong_result_stops_the_run_before_it_is_timed(hurried, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "compare", lambda *_: pytest.fail("timed"))
    monkeypatch.setattr(run, "relative_error", lambda *_: float("nan"))
    with pytest.raises(SystemExit, match=r"vit_b_16 head, batch 1: nan off torch"):
        run.main(["--net", "vit_b_16", "--layer", "head", "--json", str(tmp_path / "r.json")])
    assert report.read(tmp_path / "r.json")[0] == []
