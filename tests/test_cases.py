"""benchmarks/cases.toml holds the networks it names."""

import sys
from itertools import combinations_with_replacement
from math import prod

import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # programs that are run as files import each other by plain names
import layers
import report

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
    assert layer.kind in report.KINDS
    assert (layer.channels > 0) == (layer.kind != "pool")
    assert layer.shape[-1] % layer.groups == layer.channels % layer.groups == 0


def test_kinds_of_convolutions():
    facts = {"net": "n", "name": "l", "shape": (5, 5, 8), "channels": 8, "kernel": 3}
    kinds = [layers.Layer(groups=groups, **facts).kind for groups in (1, 2, 8)]
    assert kinds == ["conv", "grouped conv", "depthwise"]


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
