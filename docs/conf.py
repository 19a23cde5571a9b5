"""Sphinx configuration: MyST pages that execute, and a reference read from the docstrings."""

import os
import re
import sys
import tomllib
from pathlib import Path

_metadata = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

project = "theoryrl"
author = "The theoryrl authors"
copyright = "2026, The theoryrl authors"
version = release = _metadata["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "jupyter_execute"]

# Pages execute on every build: an example that no longer runs fails it. `theoryrl` is found beside the interpreter.
os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc sections carry the types, with shapes
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "literal"  # `one backtick` is code in docstrings
suppress_warnings = ["ref.python"]  # a type such as "float, provable" is prose, not an ambiguous reference

os.environ["NO_COLOR"] = "1"  # the pages that show a terminal
os.environ["COLUMNS"] = "100"

html_theme = "pydata_sphinx_theme"
html_title = f"theoryrl {version}"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}


def _escape_formulas(app, what, name, obj, options, lines):
    """Docstrings write V*_h, |x - y| and r^ as the papers do; what would be markup between backticks is left alone."""
    literal = None  # indentation of the paragraph that opened a literal block
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None and not line.lstrip().startswith(">>>"):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"[*|](?=\S)|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "".join(parts)
            if line.rstrip().endswith("::"):
                literal = indent


def setup(app):
    app.connect("autodoc-process-docstring", _escape_formulas, priority=400)  # before napoleon reads the sections
