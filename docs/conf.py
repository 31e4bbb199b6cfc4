"""Sphinx settings: pages in Markdown, the reference from the docstrings."""

import importlib.metadata

project = "xconv"
author = "The xconv authors"
copyright = f"2026, {author}"
release = importlib.metadata.version("xconv")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
nitpicky = False

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
