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


def _keep_formulas(app, what, name, obj, options, lines):
    """Docstrings write V*_h and |x - y| as the papers do: escape what would be markup, keep formulas as laid out."""
    result, set_off, before = [], False, ""
    for line in lines:
        indented = line.startswith(" ")
        if line.strip():
            starts = indented and result and not result[-1] and before and not before.startswith(" ")
            if starts and not before.startswith(("- ", "* ")):
                set_off = True
                if not before.endswith("::"):
                    result += ["::", ""]
            set_off = set_off and indented
            before = line
        if set_off or line.lstrip().startswith(">>>"):
            result.append(line)
        else:
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"[*|](?=\S)|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
            result.append("".join(parts))
    lines[:] = result


def setup(app):
    app.connect("autodoc-process-docstring", _keep_formulas, priority=400)  # before napoleon reads the sections
