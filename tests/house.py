"""The rule of the house that an import contract cannot see: only the cellar and the bridges name an array library.

``python tests/house.py`` checks the code, docstrings and comments aside. Standard library only.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from descriptions import ROOT

LIBRARIES = ("cupy", "dask", "jax", "torch")
WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(LIBRARIES)})(?![a-z0-9])", re.IGNORECASE)


def allowed(path: Path, package: Path) -> bool:
    """Whether this file may name array libraries: ``_namespace.py``, and everything in ``_bridges/``."""
    inside = path.relative_to(package)
    return inside.parts[0] == "_bridges" or inside == Path("_namespace.py")


def named_libraries(source: str) -> list[tuple[int, str]]:
    """Line and word of every array library that the code of a module names: in a name, an attribute, or a string."""
    tree = ast.parse(source)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        if node in docstrings:
            continue
        for _, value in ast.iter_fields(node):
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and (match := WORD.search(text)):
                    found.append((getattr(node, "lineno", 0), match[1]))
    return sorted(set(found))


def complaints(package: Path) -> list[str]:
    """Every place in the package that breaks the rule, as ``file:line: …``."""
    return [
        f"{path.relative_to(package.parent)}:{line}: {word} is named outside _namespace.py and _bridges/"
        for path in sorted(package.rglob("*.py"))
        if not allowed(path, package)
        for line, word in named_libraries(path.read_text(encoding="utf-8"))
    ]


def main() -> int:
    """Print every complaint; 1 if there is any."""
    found = complaints(ROOT / "xconv")
    print("\n".join(found) if found else "house: array libraries are named in the cellar only")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
