"""The documentation is true: its examples run, its tables name things that exist, and nothing is left out."""

import ast
import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import pages
import xconv
from descriptions import ROOT
from xconv._algorithms import ALGORITHMS, FACTORED
from xconv._plan import ACCELERATOR_WORKSPACE, CPU_WORKSPACE

DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in pages.pages()}
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ examples


@pytest.mark.backends("numpy", "torch", "jax", "dask")  # examples of CuPy are compiled
@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")  # infinity and NaN are shown
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_do_what_they_say(page, backend):
    examples = [block for block in pages.blocks(PAGES[page]) if block.kind == pages.EXAMPLES]
    report = pages.run(examples, backend.name)
    assert not report, report


def test_the_examples_are_found():
    """Were fences no longer recognised, the test above would have nothing to fail on."""
    count = {
        page: sum(block.prompts for block in pages.blocks(path))
        for page, path in PAGES.items()
        if page.startswith("docs/") and page not in ("docs/api.md", "docs/index.md", "docs/migrating.md")
    }
    assert len(count) >= 8
    assert all(count.values()), count


PAGE = Path("page.md")


def blocks_of(text):
    return pages.blocks(PAGE, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\n>>> 1 + 1\n2\n>>> 1 + 1\n3\n```", r"line 4.*Expected:\s+3\s+Got:\s+2"),
        ("```python\n>>> a = 2\n```\n```python\n>>> a\n3\n```", r"line 5.*Expected:\s+3\s+Got:\s+2"),
        ("```python\n>>> 1 / 0\n```", "ZeroDivisionError"),
        ("```python\n>>> raise ValueError('a')\nTraceback (most recent call last):\nValueError: b\n```", "b"),
        ("1.\n   ```python\n   >>> 1\n   2\n   ```", r"Expected:\s+2\s+Got:\s+1"),
    ],
)
def test_a_wrong_example_is_found(text, complaint):
    assert re.search(complaint, pages.run(blocks_of(text), "numpy"), re.DOTALL)


def test_a_script_is_run_and_its_names_are_kept():
    assert not pages.run(blocks_of("```python\na = 1\n```\n\n```python\n>>> a\n1\n```"), "numpy")
    with pytest.raises(ZeroDivisionError):
        pages.run(blocks_of("```python\na = 1 / 0\n```"), "numpy")


def test_an_example_of_another_library_is_compiled_only():
    example = "```python\n>>> import cupy\n>>> 1 / 0\n```"
    assert not pages.run(blocks_of(example), "numpy")
    outcome = pages.run(blocks_of(example), "cupy")
    assert "No module" in outcome or "ZeroDivisionError" in outcome
    with pytest.raises(SyntaxError):
        pages.run(blocks_of("```python\n>>> import torch\n>>> f(\n```"), "numpy")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```py\n>>> 1\n```", "'py' is not known"),
        ("```\n>>> 1\n```", "'' is not known"),
        ("```text\n>>> 1\n```", "prompts in a block that is not run"),
        ("```python\n>>> 1\n", "left open"),
        ("```python\n>>> 1\n```python\n>>> 1\n```", "opens inside"),
        ("```python\n>>> import pandas\n```", "no session of the tests installs pandas"),
        ("```python\n>>> import torch\n>>> from jax import numpy\n```", "no session has two"),
    ],
)
def test_a_page_that_would_hide_an_example_is_refused(text, complaint):
    with pytest.raises(pages.PageError, match=complaint):
        pages.run(blocks_of(text), "numpy")


# -------------------------------------------------------------------------------------------------- tables


def calls(text):
    """The calls of functions of xconv in the code spans of a page: (span, function, names of the options)."""
    for span in SPAN.findall(text):
        try:
            tree = ast.parse(span, mode="eval").body
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
            if name in xconv.__all__:
                yield span, getattr(xconv, name), [keyword.arg for keyword in node.keywords]


def unknown_options(text):
    found = []
    for span, function, options in calls(text):
        found += [f"{span}: {name}" for name in options if name not in inspect.signature(function).parameters]
    return found


def ours(text):
    """The last column of every table: the one about xconv."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return "\n".join(row.rstrip("| ").rpartition("|")[2] for row in rows)


def test_the_tables_of_migration_name_options_that_exist():
    table = ours(text_of("migrating.md"))
    assert len(list(calls(table))) > 60
    assert unknown_options(table) == []


def test_the_tables_of_filters_name_options_that_exist():
    table = ours(text_of("filters.md"))
    assert len(list(calls(table))) >= 15
    assert unknown_options(table) == []


def test_an_option_that_does_not_exist_is_found():
    table = "| `avg_pool2d(x)` | `avg_pool(pad(x, 1, how=2), 2, divisor_override=3)` |"
    names = [option.rpartition(" ")[2] for option in unknown_options(ours(table))]
    assert names == ["divisor_override", "how"]


def test_every_function_is_documented_once():
    listed = re.findall(r"^\.\. auto(?:function|class):: xconv\.(\w+)$", text_of("api.md"), re.MULTILINE)
    assert sorted(listed) == sorted(set(xconv.__all__) - {"__version__"})


def test_the_design_shows_the_floors_of_the_import_contract():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [c for c in project["tool"]["importlinter"]["contracts"] if c["id"] == "traffic"]
    floors = [set(re.split(r" [|:] ", layer)) for layer in contract["layers"]]
    table = text_of("design.md").partition("| modules | what they do |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert [set(SPAN.findall(row)) for row in rows] == floors


def test_the_columns_of_an_explanation_are_those_that_are_described():
    """The page shows a ranking with the numbers of one machine, and says of each column what it means."""
    page = text_of("explain.md")
    text = str(xconv.explain(xconv.conv, (1, 8, 8, 3), np.ones((3, 3, 3, 4))))
    (header,) = [line for line in text.splitlines() if line.startswith("  algorithm ")]
    assert page.count(f"\n{header}\n") == 2  # in the example that is run, and above the numbers
    described = {span for row in page.splitlines() if row.startswith("| `") for span in SPAN.findall(row)}
    assert set(header.split()) - {"algorithm"} <= described


@pytest.mark.parametrize("page", ["design.md", "recipes.md"])
def test_the_default_workspace_is_what_the_pages_say(page):
    cpu, accelerator = CPU_WORKSPACE // 2**20, ACCELERATOR_WORKSPACE // 2**20
    assert f"{cpu} MiB on a CPU, {accelerator} MiB on an accelerator" in " ".join(text_of(page).split())


# ---------------------------------------------------------------------------------------------- algorithms


def refusals(source):
    """Patterns of the reasons that a module's why_not can give: its strings, with anything in the braces."""
    tree = ast.parse(source)
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "why_not"]
    found = []
    for statement in function.body[1:]:  # after the docstring
        inside = {part for n in ast.walk(statement) if isinstance(n, ast.JoinedStr) for part in n.values}
        for node in ast.walk(statement):
            if isinstance(node, ast.JoinedStr):
                parts = [re.escape(p.value) if isinstance(p, ast.Constant) else r"\S+" for p in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
                found.append(re.escape(node.value))
    return found


def test_every_algorithm_has_a_page():
    assert {path.stem for path in (DOCS / "algorithms").glob("*.md")} == set(ALGORITHMS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_page_of_an_algorithm_shows_every_refusal(name):
    source = (ROOT / "xconv" / "_algorithms" / f"{name}.py").read_text(encoding="utf-8")
    page = (DOCS / "algorithms" / f"{name}.md").read_text(encoding="utf-8")
    missing = [reason for reason in refusals(source) if not re.search(reason, page)]
    assert not missing
    assert page.startswith(f"# {name}\n")
    assert "## It refuses\n" in page


def test_refusals_are_read_from_the_code():
    source = '''
def why_not(problem, traits):
    """Text."""
    if problem.taps > 1:
        return f"has {problem.taps} taps"
    return None if problem.stride == 1 else "needs stride (1)"
'''
    assert refusals(source) == [r"has\ \S+\ taps", r"needs\ stride\ \(1\)"]


# ----------------------------------------------------------------------------------------------- precision

SHAPES = {  # input and kernel
    "1x1, 256 to 256": ((1, 24, 24, 256), (1, 1, 256, 256)),
    "3x3, 64 to 64": ((1, 58, 58, 64), (3, 3, 64, 64)),
    "3x3, 256 to 256": ((1, 16, 16, 256), (3, 3, 256, 256)),
    "3x3, 512 to 512": ((1, 10, 10, 512), (3, 3, 512, 512)),
    "41x41, 1 to 1": ((1, 120, 120, 1), (41, 41, 1, 1)),
}
PROMISE = 5e-6  # for float32, in norm
LARGEST = {"winograd": 5e-5, "others": 7e-6}  # of one output


def errors_of(shape):
    """Errors of each algorithm that can do it, in float32: in norm, and the largest over the root mean square."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(size, dtype="float32") for size in SHAPES[shape])
    # (N, *out, C, *k), (*k, C, O) -> (N, *out, O)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype("float64"), w.shape[:2], axis=(1, 2))
    exact = np.tensordot(windows, w.astype("float64"), axes=((4, 5, 3), (0, 1, 2)))
    found = {}
    for algorithm in ALGORITHMS:
        if algorithm not in dict(xconv.explain(xconv.conv, x, w).plan.refusals):
            error = xconv.conv(x, w, algorithm=algorithm) - exact
            size = np.sqrt(np.mean(exact**2))
            found[algorithm] = np.sqrt(np.mean(error**2)) / size, np.abs(error).max() / size
    return found


def shown_errors():
    """The table of the algorithms page: {shape: {algorithm: error}}."""
    table = text_of("algorithms.md").partition("| float32 |")[2].partition("\n\n")[0].splitlines()
    shapes = [cell.strip() for cell in table[0].split("|")[:-1]]
    rows = [[cell.strip("` ") for cell in row.split("|")[1:-1]] for row in table[2:]]
    return {s: {row[0]: float(row[i]) for row in rows if row[i]} for i, s in enumerate(shapes, 1)}


def test_the_table_of_precision_has_every_algorithm():
    shown = shown_errors()
    assert list(shown) == list(SHAPES)
    assert set().union(*shown.values()) == set(ALGORITHMS) - set(FACTORED)  # those that a conv can have


@pytest.mark.parametrize("shape", SHAPES)
def test_the_table_of_precision_is_true(shape):
    """Within a factor of four, as libraries sum in orders of their own; and not above what is promised for all."""
    found, shown = errors_of(shape), shown_errors()[shape]
    assert found.keys() == shown.keys()
    for algorithm, (error, largest) in found.items():
        assert shown[algorithm] / 4 < error < shown[algorithm] * 4, algorithm
        assert error < PROMISE, algorithm
        assert largest < 4 * LARGEST.get(algorithm, LARGEST["others"]), algorithm


def test_the_bounds_of_precision_are_those_of_the_page():
    numbers = [f"{value:.0e}".replace("e-0", "e-") for value in (PROMISE, *LARGEST.values())]
    assert [number for number in numbers if number not in text_of("algorithms.md")] == []
