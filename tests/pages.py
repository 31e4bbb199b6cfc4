"""Reads the pages of the documentation: their fenced blocks, the libraries an example needs, and running examples.

A block fenced as ``python`` is an example. With prompts (``>>>``) its output is compared, as the module doctest does;
without, it is only run. The examples of one page share their names, from top to bottom. An example that imports an
array library other than NumPy is run by the tests of that library alone, and everywhere else it is compiled.
"""

from __future__ import annotations

import ast
import doctest
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import descriptions
from descriptions import ROOT

README = ROOT / "README.md"
EXAMPLES = "python"
LISTINGS = {"text", "console", "bash", "sh", "toml"}  # shown, never run
DIRECTIVES = {"{eval-rst}", "{toctree}"}

# The library of each backend by the name it is imported by: {"torch": "torch", "dask": "dask", ...}
LIBRARIES = {
    descriptions.load(name).namespace.partition(".")[0]: name
    for name in descriptions.names()
    if descriptions.load(name).namespace != "numpy"
}
ALWAYS_THERE = {*sys.stdlib_module_names, "numpy", "array_api_compat", "xconv"}


class PageError(Exception):
    """A page that these rules do not understand."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int  # of its first line of text, from 1
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def prompts(self) -> bool:
        """Whether it is a dialogue with prompts."""
        return any(line.lstrip().startswith(">>>") for line in self.text.splitlines())

    @property
    def sources(self) -> list[tuple[int, str]]:
        """Its statements, each with the line of the page where it begins."""
        if not self.prompts:
            return [(self.line, self.text)]
        examples = doctest.DocTestParser().get_examples(self.text, str(self))
        return [(self.line + example.lineno, example.source) for example in examples]

    def libraries(self) -> set[str]:
        """The backends whose library it imports. PageError for a library that nobody installs."""
        found = set()
        for line, source in self.sources:
            for name in _imported(ast.parse(source)):
                if name in LIBRARIES:
                    found.add(LIBRARIES[name])
                elif name not in ALWAYS_THERE:
                    raise PageError(f"{self.page.name}:{line}: no session of the tests installs {name}")
        return found


def _imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def pages() -> list[Path]:
    """The pages of docs/, and the README."""
    found = sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)
    return [*found, *([README] if README.exists() else [])]


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page. PageError for a fence that is left open or of a kind that is not known here."""
    lines = (page.read_text(encoding="utf-8") if text is None else text).splitlines()
    found: list[Block] = []
    opened: tuple[int, str, str, str] | None = None  # line, indent, fence, kind
    for number, line in enumerate(lines, 1):
        bare = line.lstrip(" ")
        fence = bare[: len(bare) - len(bare.lstrip("`~"))]
        if opened is None:
            if len(fence) >= 3:
                kind = bare[len(fence) :].strip()
                opened = number, line[: len(line) - len(bare)], fence, kind
                if kind not in {EXAMPLES} | LISTINGS | DIRECTIVES:
                    raise PageError(f"{page.name}:{number}: a fence of the kind {kind!r} is not known")
        elif fence.startswith(opened[2]) and bare.strip() == fence:
            start, indent, _, kind = opened
            body = "".join(f"{inner.removeprefix(indent)}\n" for inner in lines[start : number - 1])
            found.append(Block(page, start + 1, kind, body))
            opened = None
        elif len(fence) >= 3 and bare != fence:
            raise PageError(f"{page.name}:{number}: a fence opens inside the one of line {opened[0]}")
    if opened is not None:
        raise PageError(f"{page.name}:{opened[0]}: the fence is left open")
    for block in found:
        if block.kind != EXAMPLES and block.prompts:
            raise PageError(f"{block}: prompts in a block that is not run")
    return found


def run(examples: list[Block], backend: str) -> str:
    """Run the examples of one page, with those of other libraries compiled only; what went wrong, as text."""
    names: dict[str, Any] = {"__name__": "__main__"}
    report = io.StringIO()
    for block in examples:
        needs = block.libraries()
        if len(needs) > 1:
            raise PageError(f"{block}: needs {sorted(needs)}, and no session has two array libraries")
        if needs <= {backend}:
            names = _dialogue(block, names, report) if block.prompts else _script(block, names)
        else:
            for line, source in block.sources:
                compile("\n" * (line - 1) + source, str(block.page), "exec")
    return report.getvalue()


def _dialogue(block: Block, names: dict[str, Any], report: io.StringIO) -> dict[str, Any]:
    parser = doctest.DocTestParser()
    test = parser.get_doctest(block.text, names, block.page.name, str(block.page), block.line - 1)
    doctest.DocTestRunner().run(test, out=report.write, clear_globs=False)
    return test.globs


def _script(block: Block, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), names)
    return names
