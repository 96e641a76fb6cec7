"""How Sphinx builds the documentation: `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

from lightning_elche.version import VERSION

project = "lightning-elche"
author = "The lightning-elche developers"
copyright = "2026, The lightning-elche developers"
release = VERSION

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links to sections, as on the pages of a repository

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"show-inheritance": True}
autodoc_inherit_docstrings = False  # a hook without words of its own is one of Lightning's
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes as a list
# The summary of a class says what an argument is; a `__init__` without text of its own is enough.
napoleon_include_init_with_doc = False

default_role = "code"  # single backticks in docstrings

# No inventories are fetched: the documentation is built without a network.
intersphinx_mapping = {}

html_theme = "furo"
html_title = f"lightning-elche {VERSION}"
html_show_sphinx = False
