# SPDX-License-Identifier: BSD-3-Clause
"""The site that `./run docs` makes: built without a warning, and nothing public is missing from its API reference."""

import importlib
import inspect
import re
import sys

import pytest

from tree import BUILD, TOP, run

SHOAL = importlib.import_module("shoal")


@pytest.fixture(scope="module")
def site():
    run(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", TOP / "docs", BUILD / "docs")
    return BUILD / "docs"


@pytest.fixture(scope="module")
def documented(site):
    return set(re.findall(r'id="(shoal\.[\w.]+)"', (site / "api.html").read_text()))


def test_it_is_built_without_a_warning(site):
    assert (site / "index.html").exists()


def test_every_public_name_is_in_the_reference(documented):
    names = {name for name in SHOAL.__all__ if not inspect.ismodule(getattr(SHOAL, name))}
    assert not {f"shoal.{name}" for name in names} - documented


def test_so_is_every_name_of_cloudpickle(documented):
    module = importlib.import_module("shoal.cloudpickle")
    names = {name for name in module.__all__ if not inspect.ismodule(getattr(module, name))}
    assert not {f"shoal.cloudpickle.{name}" for name in names} - documented


def test_so_is_every_error(documented):
    errors = vars(importlib.import_module("shoal.errors"))
    own = {
        name
        for name, value in errors.items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == "shoal.errors"
    }
    own = {name for name in own if not name.startswith("_")}
    assert own
    assert not {f"shoal.{name}" for name in own} - documented


def test_every_page_can_be_reached_from_the_first(site):
    index = (site / "index.html").read_text()
    pages = [path.relative_to(TOP / "docs").with_suffix(".html") for path in (TOP / "docs").rglob("*.md")]
    assert not [str(page) for page in pages if page.stem != "index" and f'href="{page}"' not in index]


def test_it_loads_nothing_from_elsewhere(site):
    foreign = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="(?:https?:)?//')
    assert not [page.name for page in site.rglob("*.html") if foreign.search(page.read_text())]
