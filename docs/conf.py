"""Sphinx settings: pages in Markdown, the reference from the docstrings."""

import importlib.metadata
import re

project = "xconv"
author = "The xconv authors"
copyright = f"2026, {author}"
release = importlib.metadata.version("xconv")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # `conv` in a docstring is a link

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "none"  # the docstrings say more: shapes
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

html_theme = "alabaster"
html_theme_options = {
    "description": "Convolution, pooling and dense layers on any array",
    "fixed_sidebar": True,
}
html_title = f"xconv {release}"


def escape_stars(app, what, name, obj, options, lines):
    """A star as in ``(N, *spatial, C)`` is no emphasis: escape it, but not in literals or where a line starts."""
    for i, line in enumerate(lines):
        pieces = re.split(r"(`+[^`]*`+)", line)
        pieces[::2] = [re.sub(r"(?<=\S )\*(?=\w)|(?<=\()\*(?=\w)", r"\\*", piece) for piece in pieces[::2]]
        lines[i] = "".join(pieces)


def setup(app):
    """Run before napoleon, which has priority 500."""
    app.connect("autodoc-process-docstring", escape_stars, priority=400)
