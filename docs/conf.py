# SPDX-License-Identifier: BSD-3-Clause
"""How Sphinx makes the site out of these pages: `./run docs`."""

import inspect

import shoal

project = "Shoal"
author = "The Shoal authors"
project_copyright = "The Shoal authors"
version = release = shoal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"Shoal {version}"
html_show_sphinx = False
myst_heading_anchors = 4
autodoc_default_options = {
    "members": True,
    "inherited-members": "Exception,BaseException,OSError",  # those of others, but not what every exception has
    "show-inheritance": True,
}
autodoc_member_order = "groupwise"
autodoc_typehints = "none"
add_module_names = False


def list_what_is_not_listed(app, document, source):
    """A page that the index does not name joins the user guide; a name that the API page lacks is added at its end."""
    if document == "index":
        pages = app.env.found_docs - set(source[0].split()) - {"index"}
        source[0] = source[0].replace("\nguide/tuning\n", "\n".join(["\nguide/tuning", *sorted(pages), ""]))
    if document == "api":
        named = set(source[0].split())
        others = [name for name in shoal.__all__ if name not in named and not inspect.ismodule(getattr(shoal, name))]
        directives = [f".. {directive(getattr(shoal, name))}:: {name}" for name in others]
        lines = ["", "## More", "", "```{eval-rst}", ".. currentmodule:: shoal", *directives, "```", ""]
        source[0] += "\n".join(lines) if others else ""


def directive(value):
    if not inspect.isclass(value):
        return "autofunction" if callable(value) else "autodata"
    return "autoexception" if issubclass(value, BaseException) else "autoclass"


def setup(app):
    app.connect("source-read", list_what_is_not_listed)
