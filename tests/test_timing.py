"""benchmarks/timing.py, probes.py and growth.py: the arithmetic around the clock is right."""

import sys

import numpy as np
import pytest

from descriptions import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # programs that are run as files import each other by plain names
import growth
import layers
import probes
import timing


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

    def order(self):
        return [name for name, _ in self.events]


def test_a_burst_rests_then_warms_up_then_counts():
    clock = Clock()
    pace = timing.Pace(rest=4, warmups=2, seconds=8, rounds=1, slow=100)
    samples = timing.burst(clock.engine("a", [7, 3, 2, 4, 1]), pace, clock.read, clock.sleep)
    assert samples == [2, 4, 1, 1]  # until the eighth second is over; warm-ups are not in it
    assert clock.events[:3] == [("rest", 4), ("a", 7), ("a", 3)]
    assert len(clock.events) == 1 + 2 + 4


def test_a_burst_has_a_largest_number_of_samples():
    clock = Clock()
    pace = timing.Pace(rest=0, warmups=1, seconds=1000, samples=5)
    assert timing.burst(clock.engine("a", [1]), pace, clock.read, clock.sleep) == [1] * 5


def test_a_call_longer_than_the_burst_warms_up_once_and_counts_once():
    clock = Clock()
    pace = timing.Pace(rest=0, warmups=2, seconds=1, rounds=1)
    assert timing.burst(clock.engine("a", [32, 16]), pace, clock.read, clock.sleep) == [16]
    assert clock.order() == ["rest", "a", "a"]


def test_a_slow_call_goes_one_round():
    clock = Clock()
    pace = timing.Pace(rest=1, warmups=1, seconds=1, rounds=3, slow=10)
    engines = {"a": clock.engine("a", [16]), "b": clock.engine("b", [8])}
    assert timing.compare(engines, pace, clock.read, clock.sleep) == {"a": 16, "b": 8}
    assert clock.order() == ["rest", "a", "a", *["rest", "b", "b"] * 3]


def test_engines_take_turns_in_bursts_and_the_median_is_over_all_rounds():
    clock = Clock()
    pace = timing.Pace(rest=1, warmups=1, seconds=2, rounds=3, slow=100)
    a = clock.engine("a", [1, 2, 1, 4, 1, 16])  # a warm-up and one call that counts, three times
    b = clock.engine("b", [1])
    assert timing.compare({"a": a, "b": b}, pace, clock.read, clock.sleep) == {"a": 4, "b": 1}
    assert clock.order() == ["rest", "a", "a", "rest", "b", "b", "b"] * 3


def test_a_rival_far_behind_the_fastest_rival_goes_one_round():
    clock = Clock()
    pace = timing.Pace(rest=1, warmups=0, seconds=1, rounds=2, slow=100, behind=1.5)
    costs = {"xconv": 8, "even": 6, "fast": 4, "behind": 7}
    engines = {name: clock.engine(name, [cost]) for name, cost in costs.items()}
    rivals = ["even", "fast", "behind"]
    samples = timing.sample(engines, pace, rivals, clock.read, clock.sleep)
    assert {name: seconds[0] for name, seconds in samples.items()} == costs
    assert {name: len(seconds) for name, seconds in samples.items()} == {
        **dict.fromkeys(("xconv", "even", "fast"), 2),
        "behind": 1,
    }
    calls = [name for name in clock.order() if name != "rest"]
    assert calls == ["xconv", "even", "fast", "behind", "xconv", "even", "fast"]


def test_a_disturbed_round_sends_no_rival_home():
    clock = Clock()
    pace = timing.Pace(rest=0, warmups=0, seconds=20, samples=3, rounds=2)
    engines = {"calm": clock.engine("calm", [0.5]), "disturbed": clock.engine("disturbed", [0.9, 0.6, 0.9])}
    samples = timing.sample(engines, pace, list(engines), clock.read, clock.sleep)
    assert {name: len(seconds) for name, seconds in samples.items()} == {"calm": 6, "disturbed": 6}


def test_the_usual_pace_is_the_documented_one():
    pace = timing.Pace(rest=0.06, warmups=2, seconds=0.15, samples=40, rounds=3, slow=1, behind=1.3)
    assert timing.Pace() == pace


def test_geometric_mean():
    assert timing.geometric_mean([2, 0.5]) == 1
    assert timing.geometric_mean(iter([1, 2, 4])) == pytest.approx(2)
    assert timing.geometric_mean([1e300, 1e300]) == pytest.approx(1e300)  # no product that overflows
    with pytest.raises(ValueError, match="at least one"):
        timing.geometric_mean([])


def test_memory_beyond_the_result():
    def call():
        kept = np.zeros(2**16, np.uint8)
        passing = np.zeros(2**20, np.uint8)
        del passing
        return kept

    assert 2**20 <= probes.memory_beyond_result(call) < 2**20 + 2**13


@pytest.fixture
def used(monkeypatch):
    """The numbers of threads that the probes ask for, in their order."""
    asked = []

    class Scope:
        def __init__(self, threads):
            self.threads = threads

        def __enter__(self):
            asked.append(self.threads)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(probes, "threads_for_xconv", Scope)
    return asked


def test_same_bits_sees_one_bit(used):
    def differing(step):
        return lambda: lambda: np.float32(1) + np.array([0, step * used[-1]], np.float32)

    assert probes.same_bits([differing(0), differing(0)])
    assert used == [1, 2, 1, 2]
    assert not probes.same_bits([differing(0), differing(2.0**-23)])


def test_minus_zero_has_other_bits(used):
    assert not probes.same_bits([lambda: lambda: np.array([0.0 if used[-1] == 1 else -0.0])])


def test_the_gain_of_a_thread_is_measured_with_one_and_with_two(used, monkeypatch):
    def compare(calls, pace):
        for call in calls.values():
            call()
        return {"one": 3.0, "two": 2.0}

    monkeypatch.setattr(probes, "compare", compare)
    assert probes.thread_gain(lambda: None, timing.Pace()) == 1.5
    assert used == [1, 2]


def test_growth_is_the_cost_of_a_pixel(monkeypatch):
    layer = layers.Layer(net="n", name="l", shape=(6, 6, 2), kernel=3, channels=2)
    assert growth.larger(layer).shape == (24, 24, 2)
    assert growth.pixels(layer, 16) == 16 * 4 * 4
    seconds = {"as it is": 1.0, "batch": 16.0, "size": 2 * 22 * 22 / (4 * 4)}

    def compare(calls, pace):
        assert {name: call().shape[:2] for name, call in calls.items()} == {
            "as it is": (1, 4),
            "batch": (16, 4),
            "size": (1, 22),
        }
        return seconds

    monkeypatch.setattr(growth, "compare", compare)
    found = growth.measure(layer, timing.Pace())
    assert (found.ms, found.batch, found.size) == (1000, 1, 2)
    assert not found.reached
    seconds["size"] /= 2
    assert growth.measure(layer, timing.Pace()).reached


def test_the_layers_of_the_growth_exist():
    _, nets = layers.load()
    for net, name in growth.LAYERS:
        assert name in [layer.name for layer in nets[net].layers]
