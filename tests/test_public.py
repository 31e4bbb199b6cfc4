"""The public surface: which names there are, how they are called and described, and what importing them does."""

import doctest
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import xconv
from descriptions import ROOT

DOORS = {
    "convolution": """
        conv conv1d conv2d conv3d depthwise_conv separable_conv conv_transpose conv_transpose1d conv_transpose2d
        conv_transpose3d conv_general unfold fold
    """,
    "pooling": """
        max_pool max_pool1d max_pool2d max_pool3d avg_pool avg_pool1d avg_pool2d avg_pool3d lp_pool adaptive_max_pool
        adaptive_avg_pool global_max_pool global_avg_pool global_lp_pool max_unpool reduce_window
    """,
    "dense": "dense bilinear",
    "filters": """
        convolve correlate gaussian_filter uniform_filter sobel laplace gaussian_laplace median_filter maximum_filter
        minimum_filter rank_filter percentile_filter
    """,
    "around them": """
        pad batch_norm fold_batch_norm relu relu6 leaky_relu prelu elu selu sigmoid hard_sigmoid tanh silu hard_swish
        mish gelu softplus softmax log_softmax
    """,
    "gradients": "vjp",
    "planning and settings": "explain plan tune config show_config",
}
NAMES = sorted(name for door in DOORS.values() for name in door.split())


def test_the_public_names_are_exactly_these():
    assert sorted(xconv.__all__) == sorted([*NAMES, "__version__"])
    assert len(set(xconv.__all__)) == len(xconv.__all__)
    for name in xconv.__all__:
        getattr(xconv, name)
    public = {name for name in vars(xconv) if not name.startswith("_")}
    assert public <= set(NAMES), f"public without being meant to be: {sorted(public - set(NAMES))}"


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert xconv.__version__ == project["version"]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_function_is_typed_and_says_where_it_lives(name):
    function = getattr(xconv, name)
    assert callable(function)
    assert function.__name__ == name
    assert function.__module__.startswith("xconv")
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, f"{parameter.name} has no type"


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_positional_only_and_options_keyword_only(name):
    for parameter in inspect.signature(getattr(xconv, name)).parameters.values():
        assert parameter.kind is not parameter.POSITIONAL_OR_KEYWORD, f"{parameter.name} goes both ways"


def described(docstring):
    """The parameter names that the section Parameters of a numpydoc docstring describes, as ``x1, x2 : array``.

    Without such a section, every word counts: a formula such as ``max(x, 0)`` is description enough.
    """
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if section is None:
        return set(re.findall(r"\w+", docstring))
    heads = [
        line.partition(" : ")[0] for line in section[1].splitlines() if line and not line.startswith(" ")
    ]
    return {name.strip("* ") for head in heads for name in head.split(",")}


def test_described_reads_numpydoc():
    docstring = """Do it to y.

Parameters
----------
x, w : array
    One, two.
stride, *rest
    As for conv.
**more : int

Returns
-------
z : array
"""
    assert described(docstring) == {"x", "w", "stride", "rest", "more"}
    assert described("max(x, 0)") == {"max", "x", "0"}


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_describes_every_parameter(name):
    function = getattr(xconv, name)
    docstring = inspect.getdoc(function)
    assert docstring
    if match := re.fullmatch(r"(\w+)[123]d", name):  # one sentence and a link to the general function
        assert f"`{match[1]}`" in docstring
    else:
        missing = set(inspect.signature(function).parameters) - described(docstring)
        assert not missing, f"not described: {sorted(missing)}"


@pytest.mark.parametrize("name", NAMES)
def test_every_function_is_in_the_documentation(name):
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{name}\b", page)


# --------------------------------------------------------------------------------------------- importing it

LOOK_AROUND = """
import json, os, signal, sys, threading, warnings
import numpy, array_api_compat.numpy

def state():
    return {
        "threads": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0,
        "environment": dict(os.environ),
        "warnings": repr(warnings.filters),
        "random": repr(numpy.random.get_state()),
        "errors": numpy.geterr(),
        "signals": repr([signal.getsignal(number) for number in signal.valid_signals()]),
    }

before, modules = state(), set(sys.modules)
import xconv
after = state()
roots = {name.partition(".")[0] for name in set(sys.modules) - modules}
print(json.dumps({
    "changed": [key for key in before if before[key] != after[key]],
    "imported": sorted(roots - set(sys.stdlib_module_names)),
    "libraries": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What a new process sees before and after ``import xconv``."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
    }
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK_AROUND],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {**json.loads(run.stdout), "files": [path.name for path in folder.iterdir()], "stderr": run.stderr}


def test_import_has_no_side_effects(imported):
    assert imported["changed"] == []
    assert imported["files"] == []
    assert imported["stderr"] == ""


def test_import_brings_what_the_project_depends_on_only(imported):
    """NumPy and array-api-compat, which this program has imported before, and threadpoolctl."""
    assert imported["imported"] == ["threadpoolctl", "xconv"]
    assert not {"torch", "jax", "dask", "cupy", "array_api_strict"} & set(imported["libraries"])


def test_numpy_arrays_bring_no_other_library():
    program = (
        "import numpy, xconv, sys; x = numpy.ones((1, 4, 4, 2)); w = numpy.ones((3, 3, 2, 2));"
        "xconv.max_pool(xconv.conv(x, w), 2);"
        "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'jax', 'dask', 'cupy'})"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "set()", run.stderr


def test_the_state_that_is_compared_would_show_a_change():
    broken = LOOK_AROUND.replace("import xconv", "os.environ['A'] = 'b'; numpy.random.seed(1)")
    run = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["changed"] == ["environment", "random"]


def test_results_of_numpy_arrays_are_numpy_arrays():
    assert type(xconv.relu(np.ones(3))) is np.ndarray


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_docstring_run(name):
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    example = parser.get_doctest(getattr(xconv, name).__doc__, {}, name, None, 0)
    assert runner.run(example).failed == 0
