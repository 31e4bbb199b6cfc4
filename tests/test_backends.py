"""The backends folder, the adapters of tests/backends.py, and what conftest.py does with them."""

import ast
import json
import textwrap
from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import pytest

import descriptions
from descriptions import ExpectedFailure

ROOT = descriptions.ROOT

GOOD = """
namespace = "numpy"
requires = []
devices = ["cpu"]
lazy = false
sync = ""
"""

FAILURE = """
[[expected_failures]]
test = "tests/test_x.py::test_y"
reason = "because"
link = "https://example.org/1"
"""

# ------------------------------------------------------------------------------------------------ the files


@pytest.fixture
def load(tmp_path):
    def load_text(text):
        (tmp_path / "some.toml").write_text(text, encoding="utf-8")
        return descriptions.load("some", tmp_path)

    return load_text


def test_the_six_libraries_are_there():
    assert {"cupy", "dask", "jax", "numpy", "strict", "torch"} <= set(descriptions.names())


@pytest.mark.parametrize("name", descriptions.names())
def test_every_backend_file_is_well_formed(name):
    description = descriptions.load(name)
    assert description.name == name
    assert description.namespace


def test_torch_is_pinned_exactly():
    assert descriptions.load("torch").requires == ("torch==2.13.0",)


def test_a_good_file_is_read(load):
    description = load(GOOD + FAILURE)
    assert description.devices == ("cpu",)
    assert description.extras == description.installed == ()
    assert description.environment == {}
    assert description.expected_failures[0].reason == "because"


def test_an_extra_stands_for_what_pyproject_says(load):
    description = load(GOOD.replace("requires = []", 'requires = ["a>=1"]') + 'extras = ["fast"]')
    assert description.extras == ("fast",)
    assert description.installed == ("a>=1", *descriptions.EXTRAS["fast"])
    assert any(requirement.startswith("numba>=") for requirement in description.installed)


def test_a_backend_that_does_not_exist_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"backend must be one of cupy, dask.*; got backend='nunpy'"):
        descriptions.load("nunpy")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "colour = 'red'", "there is no key 'colour'"),
        (GOOD.replace('sync = ""', ""), "sync must be a str; got sync=None"),
        (GOOD.replace("false", "0"), "lazy must be a bool; got lazy=0"),
        (GOOD.replace('["cpu"]', "[]"), "devices must name at least one device"),
        (GOOD.replace('["cpu"]', "[1]"), "devices must hold strings"),
        (GOOD + "extras = 'fast'", "extras must be a list; got extras='fast'"),
        (GOOD + "extras = ['slow']", "extras must be of fast; got 'slow'"),
        (GOOD + "[environment]\nX = 1", "environment must hold strings"),
        (GOOD + FAILURE.replace("link", "url"), "expected_failures must hold test, reason and link"),
        (GOOD + FAILURE.replace("because", ""), "expected_failures must say its test, reason and link"),
        (GOOD + FAILURE.replace("https://example.org/1", "issue 1"), "link must be an address"),
    ],
)
def test_a_bad_file_is_refused(load, text, complaint):
    with pytest.raises(ValueError, match=f"some.toml: {complaint}"):
        load(text)


def test_an_expected_failure_covers_its_cases_and_no_other_test():
    failure = ExpectedFailure("tests/test_x.py::test_y", "because", "https://example.org/1")
    assert failure.covers("tests/test_x.py::test_y")
    assert failure.covers("tests/test_x.py::test_y[case]")
    assert not failure.covers("tests/test_x.py::test_yy")


def defined_tests(path: Path) -> set[str]:
    """The names of the test functions of a file, as node ids."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = [(f"{node.name}::", node.body)] if isinstance(node, ast.ClassDef) else [("", [node])]
        for prefix, body in inside:
            found |= {prefix + one.name for one in body if isinstance(one, ast.FunctionDef)}
    return {f"{path.relative_to(ROOT).as_posix()}::{name}" for name in found}


def test_defined_tests_finds_this_one():
    assert "tests/test_backends.py::test_defined_tests_finds_this_one" in defined_tests(Path(__file__))


@pytest.mark.parametrize("name", descriptions.names())
def test_every_expected_failure_names_a_real_test(name):
    for failure in descriptions.load(name).expected_failures:
        test = failure.test.partition("[")[0]
        path = ROOT / test.partition("::")[0]
        assert path.is_file(), f"there is no file {path}"
        assert test in defined_tests(path)


# ------------------------------------------------------------------------------------------------ arrays

ARRAYS = {
    "float64": np.arange(12.0).reshape(3, 4),
    "float32": np.arange(12.0, dtype=np.float32).reshape(3, 4),
    "complex128": np.arange(4) * (1 + 2j),
    "int8": np.arange(-3, 3, dtype=np.int8),
    "bool": np.asarray([True, False]),
    "no axes": np.asarray(2.0),
    "one element": np.ones((1, 1)),
    "empty": np.zeros((0, 3)),
    "transposed": np.arange(12.0).reshape(3, 4).T,
    "reversed": np.arange(5.0)[::-1],
    "strided": np.arange(10.0)[::3],
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_come_back_as_they_went(backend, case):
    array = ARRAYS[case]
    there = backend.asarray(array)
    assert there.shape == array.shape
    back = backend.numpy(there)
    assert type(back) is np.ndarray
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array, strict=True)


def test_numpy_refuses_what_is_not_an_array_of_the_backend(backend):
    foreign = [[1.0], 1.0, None, np.float64(1.0)]
    if backend.description.namespace != "numpy":
        foreign.append(np.ones(3))
    for thing in foreign:
        with pytest.raises(AssertionError, match="is not a"):
            backend.numpy(thing)


def test_has_knows_the_dtypes(backend):
    assert backend.has("float32")
    assert backend.has("float64")
    assert backend.has("complex128")
    assert not backend.has("float17")
    assert not backend.has("str_")


@pytest.mark.backends("strict")
def test_strict_has_no_extensions(backend):
    assert not hasattr(backend.xp, "linalg")
    assert not hasattr(backend.xp, "fft")
    assert not backend.has("float16")


@pytest.mark.backends("numpy", "fast")
def test_numpy_arrays_are_read_only_views(backend):
    array = np.arange(6.0)[::-2]
    there = backend.asarray(array)
    assert there.strides == array.strides
    with pytest.raises(ValueError, match="read-only"):
        there[0] = 1.0
    array[0] = 7.0  # the caller's own array stays as it was


@pytest.mark.backends("dask")
def test_dask_arrays_are_cut_along_every_axis(backend):
    there = backend.asarray(np.zeros((5, 2, 1, 0)))
    assert there.chunks == ((3, 2), (1, 1), (1,), (0,))


# ------------------------------------------------------------------------------------------------- calls


def test_call_converts_arrays_and_passes_the_rest(backend):
    def function(x, nothing, window, /, *, scale, name):
        assert nothing is None
        assert window == (2, 3)
        assert name == "max"
        return x * scale, -x

    x = np.arange(4.0)
    double, minus = backend.call(function, x, None, (2, 3), scale=np.asarray(2.0), name="max")
    np.testing.assert_array_equal(double, 2 * x, strict=True)
    np.testing.assert_array_equal(minus, -x, strict=True)
    np.testing.assert_array_equal(backend.call(lambda x: x + x, x), 2 * x, strict=True)


def test_call_lets_errors_out(backend):
    def function(x):
        raise ValueError("stride must be positive")

    with pytest.raises(ValueError, match="stride must be positive"):
        backend.call(function, np.ones(3))


def test_call_refuses_a_result_of_another_library(backend):
    with pytest.raises(AssertionError, match="is not a"):
        backend.call(lambda x: [1.0, 2.0], np.ones(3))


@pytest.mark.backends("numpy", "torch", "cupy")
def test_call_catches_a_function_that_writes_to_its_input(backend):
    def function(x):
        x += 1.0
        return x

    with pytest.raises((AssertionError, ValueError), match=r"changed an array|read-only"):
        backend.call(function, np.ones(3))


@pytest.mark.backends("dask")
@pytest.mark.parametrize(
    "reading",
    [
        lambda x: x.compute(),
        lambda x: x.persist(),
        lambda x: np.asarray(x),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * float(x[0, 0]),
        lambda x: x[x > 0],
    ],
    ids=["compute", "persist", "asarray", "bool", "float", "mask"],
)
def test_dask_may_not_compute_during_a_call(backend, reading):
    with pytest.raises((AssertionError, ValueError), match=r"lazy must stay lazy|declares shape"):
        backend.call(reading, np.ones((4, 4)))


@pytest.mark.backends("dask")
def test_dask_must_declare_what_it_computes(backend):
    import dask.array as da

    def lies_about_dtype(x):
        return da.map_blocks(lambda block: block.astype(np.float32), x, dtype=np.float64, meta=np.empty((0,)))

    def lies_about_shape(x):
        return da.map_blocks(lambda block: block[:1], x, dtype=np.float64)

    with pytest.raises(AssertionError, match="declares dtype"):
        backend.call(lies_about_dtype, np.ones(4))
    with pytest.raises(AssertionError, match="declares shape"):
        backend.call(lies_about_shape, np.ones(4))


@pytest.mark.backends("jax")
def test_jax_runs_every_call_eagerly_and_traced(backend):
    import jax

    seen = []

    def function(x, /, *, scale):
        seen.append((isinstance(x, jax.core.Tracer), isinstance(scale, jax.core.Tracer)))
        return x * scale

    backend.call(function, np.ones(3), scale=np.ones(3))
    assert seen == [(False, False), (True, True)]


@pytest.mark.backends("jax")
def test_jax_must_not_read_values(backend):
    import jax

    with pytest.raises(jax.errors.ConcretizationTypeError):
        backend.call(lambda x: x if x.sum() > 0 else -x, np.ones(3))


@pytest.mark.backends("jax")
def test_jax_must_give_the_same_under_jit(backend):
    import jax

    def differs(x):
        return x + 1.0 if isinstance(x, jax.core.Tracer) else x

    def differs_in_dtype(x):
        return x.astype("float32") if isinstance(x, jax.core.Tracer) else x

    with pytest.raises(AssertionError, match="largest error"):
        backend.call(differs, np.ones(3))
    with pytest.raises(AssertionError, match="dtype"):
        backend.call(differs_in_dtype, np.ones(3))


# ---------------------------------------------------------------------------------------------- conftest.py


@pytest.fixture
def suite(pytester, monkeypatch):
    """A suite elsewhere, run with this suite's conftest.py on a backend "some" that is described by `text`."""

    def run(text, tests, *arguments):
        folder = pytester.mkdir("backends")
        folder.joinpath("some.toml").write_text(text, encoding="utf-8")
        monkeypatch.setattr(descriptions, "FOLDER", folder)
        original = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
        # Every process of the run reads the folder from here.
        elsewhere = f"import pathlib\ndescriptions.FOLDER = pathlib.Path({str(folder)!r})\n"
        pytester.makeconftest(original + elsewhere)
        pytester.makeini("[pytest]\nmarkers = backends: as in pyproject.toml")
        pytester.makepyfile(test_x=textwrap.dedent(tests))
        return pytester.runpytest_inprocess("--backend", "some", "-rxX", "-p", "no:cacheprovider", *arguments)

    return run


def test_an_expected_failure_must_fail(suite):
    text = GOOD + FAILURE.replace("tests/test_x.py::test_y", "test_x.py::test_y")
    result = suite(
        text,
        """
        import pytest

        @pytest.mark.parametrize("case", [1, 2])
        def test_y(backend, case):
            assert case == 1

        def test_z(backend):
            assert True
        """,
    )
    result.assert_outcomes(failed=1, xfailed=1, passed=1)
    result.stdout.fnmatch_lines(["XFAIL test_x.py::test_y[[]2[]] - because (https://example.org/1)"])


def test_a_test_without_backend_runs_on_numpy_only(suite):
    tests = """
        import pytest

        def test_alone():
            assert True

        def test_with(backend):
            assert True

        @pytest.mark.backends("some")
        def test_here():
            assert True
        """
    suite(GOOD, tests).assert_outcomes(passed=2, deselected=1)


def test_a_mark_must_name_a_backend(suite):
    result = suite(
        GOOD,
        """
        import pytest

        @pytest.mark.backends("other")
        def test_x(backend):
            assert True
        """,
    )
    result.stderr.fnmatch_lines(["*no such backend*other*"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD.replace("numpy", "not_installed"), "*backend some needs not_installed: No module named*"),
        (GOOD + "colour = 'red'", "*backend some: some.toml: there is no key 'colour'*"),
        (GOOD + "extras = ['fast']", "*backend some needs numba>=*: import of numba halted*"),
    ],
)
def test_a_backend_that_cannot_be_used_ends_the_run(suite, text, complaint):
    result = suite(text, "def test_x(backend): assert True")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([complaint])


def test_compiled_code_is_there_only_where_it_is_asked_for(backend):
    bridge = import_module("xconv._bridges.numba")
    if "fast" in backend.description.extras:
        assert bridge.load() is not None
        assert bridge.state(wanted=True).startswith(f"numba {metadata.version('numba')}")
    else:  # whether or not it is installed
        assert bridge.load() is None
        assert "not installed" in bridge.state(wanted=True)
        with pytest.raises(ImportError, match="numba"):
            import_module("numba")


def test_a_lazy_backend_needs_a_guard(suite):
    text = GOOD.replace("false", "true").replace("numpy", "array_api_compat.numpy")
    result = suite(text, "def test_x(backend): backend.call(lambda: None)")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*some is lazy, and tests/backends.py has no guard for it*"])


OUTCOMES = """
import pytest

def test_passes(backend): assert True
def test_fails(backend): assert False
def test_skips(backend): pytest.skip("no")
def test_y(backend): assert False
@pytest.fixture
def broken(): raise RuntimeError
def test_errs(backend, broken): assert True
def test_elsewhere(): assert True
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_every_outcome_is_written_down(suite, pytester, processes):
    arguments = ["--outcomes", "folder/some.json"]
    if processes:
        pytest.importorskip("xdist")
        arguments += ["-n", str(processes)]
    failure = FAILURE.replace("tests/test_x.py::test_y", "test_x.py::test_y")
    suite(GOOD + failure, OUTCOMES, *arguments)
    table = json.loads((pytester.path / "folder" / "some.json").read_text(encoding="utf-8"))
    assert table["backend"] == "some"
    assert table["outcomes"] == {
        "test_x.py::test_errs": "failed",
        "test_x.py::test_fails": "failed",
        "test_x.py::test_passes": "passed",
        "test_x.py::test_skips": "skipped",
        "test_x.py::test_y": "xfailed",
    }
