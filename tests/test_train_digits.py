"""examples/train_digits.py: its gradients are those of its loss, and training is repeatable. Images are made up."""

import re
import sys

import numpy as np
import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "examples"))
import train_digits


def made_up(n, seed=0):
    """Images of ten blurred patterns with noise, one pattern for each digit, and the digits."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).random((10, 8, 8, 1)) > 0.6
    labels = rng.integers(10, size=n)
    images = 0.8 * patterns[labels] + 0.2 * rng.random((n, 8, 8, 1))
    return images.astype(np.float32), labels


def trained(seed=0, epochs=2, name="numpy"):
    images, labels = made_up(256)
    library = train_digits.open_library(name)
    rng = np.random.default_rng(seed)
    return train_digits.train(library, images, labels, *made_up(64, seed=1), epochs, rng)


def loss(weights, images, targets):
    return -np.sum(targets * train_digits.log_probabilities(weights, images)) / len(images)


def test_the_gradients_of_the_network_are_finite_differences():
    rng = np.random.default_rng(5)
    weights = train_digits.initial_weights(rng, np.float64)
    for name in weights:  # away from zero, where ReLU has a kink
        weights[name] = weights[name] + 0.1 * rng.standard_normal(weights[name].shape)
    images, targets = rng.random((3, 8, 8, 1)), np.eye(10)[[3, 8, 0]]
    value, gradients = train_digits.loss_and_gradients(weights, images, targets)
    assert value == pytest.approx(loss(weights, images, targets), rel=1e-12)
    assert set(gradients) == set(weights)
    for name, w in weights.items():
        assert gradients[name].shape == w.shape
        direction = rng.standard_normal(w.shape)
        step = 1e-6 * direction
        above = loss({**weights, name: w + step}, images, targets)
        below = loss({**weights, name: w - step}, images, targets)
        slope = float(np.sum(gradients[name] * direction))
        assert slope == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-7), name


def test_adam_does_as_its_paper():
    """One weight, two steps, by hand: the first goes by the rate, against the gradient, however large that is."""
    state = {
        "weights": {"w": np.asarray([1.0])},
        "mean": {"w": np.zeros(1)},
        "square": {"w": np.zeros(1)},
    }
    state = train_digits.adam(state, {"w": np.asarray([4.0])}, 1, 0.1)
    np.testing.assert_allclose(state["weights"]["w"], [0.9])
    state = train_digits.adam(state, {"w": np.asarray([-2.0])}, 2, 0.1)
    mean = (0.9 * 0.4 + 0.1 * -2) / (1 - 0.9**2)
    square = (0.999 * 0.016 + 0.001 * 4) / (1 - 0.999**2)
    np.testing.assert_allclose(state["weights"]["w"], [0.9 - 0.1 * mean / np.sqrt(square)])


@pytest.fixture(scope="module")
def result():
    return trained()


def test_the_loss_falls(result):
    assert len(result.losses) == len(result.test_losses) == len(result.accuracies) == 2
    assert result.losses[1] < result.losses[0] < 3
    assert result.test_losses[1] < result.test_losses[0]
    assert result.accuracies[1] > 0.5
    np.testing.assert_allclose(np.sum(result.probabilities, axis=1), 1, rtol=1e-5)


def test_a_seed_gives_the_same_weights_bit_for_bit(result):
    again, other = trained(), trained(seed=1, epochs=1)
    for name, w in result.weights.items():
        assert w.dtype == np.float32
        assert w.tobytes() == again.weights[name].tobytes()
        assert w.tobytes() != other.weights[name].tobytes()


@pytest.mark.backends("strict", "torch", "dask")
def test_other_libraries_learn_the_same(backend):
    ours, theirs = trained(epochs=1), trained(epochs=1, name=backend.name)
    assert theirs.losses == pytest.approx(ours.losses, rel=1e-3)
    assert all(isinstance(w, np.ndarray) for w in theirs.weights.values())


def test_the_split_holds_out_a_quarter_of_every_digit():
    labels = np.random.default_rng(1).integers(10, size=1797)
    chosen, held_out = train_digits.split(labels, np.random.default_rng(0))
    assert sorted([*chosen, *held_out]) == list(range(1797))
    everywhere, there = np.bincount(labels), np.bincount(labels[held_out])
    assert np.all(np.abs(there - everywhere / 4) <= 1)
    assert list(held_out) != list(train_digits.split(labels, np.random.default_rng(1))[1])


def test_images_are_shifted_by_a_pixel_or_stay():
    images, _ = made_up(400)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moves = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    shifted = train_digits.shifted(images, np.random.default_rng(0))
    same = np.stack([np.all(move == shifted, axis=(1, 2, 3)) for move in moves])  # (9, 400)
    assert np.all(np.sum(same, axis=0) == 1)
    assert np.all(np.sum(same, axis=1) > 0)
    assert 200 < np.sum(same[4]) < 250  # half of them, and a ninth of the others


# ---------------------------------------------------------------------------------------------- the whole program


class StandIn:
    """What examples/digits.py gives, without scikit-learn and Matplotlib."""

    load = staticmethod(lambda: made_up(260))

    class Picture:
        def savefig(self, file):
            file.write_bytes(b"a picture")

    def draw(self, result, images, labels):
        assert len(images) == len(labels) == len(result.probabilities)
        return self.Picture()


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Call the program with arguments, in an empty folder, on made-up images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "digits", StandIn())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["train_digits.py", *arguments])
        train_digits.main()

    return call


def test_the_program_writes_weights_and_picture(program, tmp_path, capsys):
    program("--epochs", "1", "--seed", "3", "--weights", "mine.npz")
    printed = capsys.readouterr().out
    assert re.search(r"^epoch +1 of 1 .* test accuracy +\d+\.\d\d%$", printed, re.MULTILINE)
    assert "\r" not in printed  # no bar where there is no terminal
    assert (tmp_path / "digits.png").read_bytes() == b"a picture"

    with np.load(tmp_path / "mine.npz") as file:
        kept = dict(file)
    images, labels = made_up(260)
    rng = np.random.default_rng(3)
    chosen, held_out = train_digits.split(labels, rng)
    library = train_digits.open_library("numpy")
    result = train_digits.train(
        library, images[chosen], labels[chosen], images[held_out], labels[held_out], 1, rng
    )
    assert set(kept) == set(result.weights)
    assert all(np.array_equal(kept[name], w) for name, w in result.weights.items())
    read = np.exp(train_digits.log_probabilities(kept, images[held_out]))
    np.testing.assert_array_equal(read, result.probabilities)


def test_on_a_terminal_there_is_a_bar(program, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    program("--epochs", "1")
    printed = capsys.readouterr().out
    assert "\r[##########....................]  33%   epoch   1 of 1   loss" in printed
    assert "\r[##############################] 100%" in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--backend", "abacus"], "backend must be one of cupy, dask, .*got backend='abacus'"),
        (["--epochs", "0"], "must be at least 1; got 0"),
        (["--seed", "-1"], "must be at least 0; got -1"),
        (["--epochs", "many"], "invalid .* value: 'many'"),
        (["--weights", "nowhere/mine.npz"], "in a folder that exists; got nowhere"),
        (["--output", "digits.gif"], "--output must end in .png .*got digits.gif"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_done(program, tmp_path, capsys, arguments, complaint):
    with pytest.raises(SystemExit) as error:
        program(*arguments)
    assert error.value.code == 2
    assert re.search(complaint, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_missing_is_named_with_what_to_install(program, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit):
        program("--backend", "torch")
    assert re.search(r"backend torch needs torch==\d.*torch", capsys.readouterr().err)


def test_without_scikit_learn_it_says_what_to_install(program, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "digits", None)
    with pytest.raises(SystemExit):
        program()
    assert 'pip install "scikit-learn>=1.5"' in capsys.readouterr().err
