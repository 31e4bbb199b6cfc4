"""Array libraries are named in the cellar and the bridges only, and the check that says so can fail."""

import pytest

import house


def test_array_libraries_are_named_in_the_cellar_only():
    assert house.complaints(house.ROOT / "xconv") == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch", [(1, "torch")]),
        ("import torch.nn as nn", [(1, "torch")]),
        ("from jax import numpy", [(1, "jax")]),
        ("from array_api_compat import is_dask_array", [(1, "dask")]),
        ("x = 1\nif name == 'cupy': pass", [(2, "cupy")]),
        ("def f(x):\n    return x.torch()", [(2, "torch")]),
        ("def f(*, dask=None): pass", [(1, "dask")]),
        ("f(dask=1)", [(1, "dask")]),
        ("x = f'{y} is a JAX array'", [(1, "JAX")]),
        ("def f():\n    '''As torch does.'''\n    return 1", []),
        ("'''As torch does.'''", []),
        ("class A:\n    'As torch does.'", []),
        ("x = 1  # torch", []),
        ("x = 'torchlight'", []),
    ],
)
def test_names_are_found_in_code_and_not_in_docstrings(source, found):
    assert house.named_libraries(source) == found


def test_the_cellar_and_the_bridges_may_name_them(tmp_path):
    package = tmp_path / "xconv"
    for name in ("_namespace.py", "_bridges/torch.py", "_conv.py", "_algorithms/_namespace.py"):
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import torch\n", encoding="utf-8")
    assert house.complaints(package) == [
        "xconv/_algorithms/_namespace.py:1: torch is named outside _namespace.py and _bridges/",
        "xconv/_conv.py:1: torch is named outside _namespace.py and _bridges/",
    ]
