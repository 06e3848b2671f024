# SPDX-License-Identifier: BSD-3-Clause
"""`import shoal` brings in what pickles need; the pool, and what it needs, comes when it is first asked for."""

import pytest

import shoal

CHECK = """
import sys
before = set(sys.modules)
{}
brought = {{name.partition(".")[0] for name in set(sys.modules) - before}}
assert not brought & {{"multiprocessing", "concurrent", "dataclasses", "inspect", "logging", "numpy"}}, brought
assert not {{"shoal._shared", "shoal.errors", "shoal.pool"}} & set(sys.modules)
"""


def test_importing_it_brings_in_no_pool(fresh_python):
    fresh_python(CHECK.format("import shoal"))


def test_neither_does_a_function_by_value(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    file.write_bytes(shoal.dumps(lambda x: [x for _ in range(3)]))
    fresh_python(CHECK.format(f"import pickle; assert pickle.load(open({str(file)!r}, 'rb'))(1) == [1, 1, 1]"))


@pytest.mark.parametrize("name", shoal.__all__)
def test_every_public_name_can_be_the_first_that_is_asked_for(fresh_python, name):
    fresh_python(f"import shoal; assert '{name}' in dir(shoal); shoal.{name}; assert '{name}' in vars(shoal)")


@pytest.mark.parametrize("name", ["cloudpickle", "errors", "executor", "future", "pool"])
def test_public_modules_are_attributes_without_an_import_of_their_own(fresh_python, name):
    fresh_python(f"import shoal, sys; assert shoal.{name} is sys.modules['shoal.{name}']")


def test_a_star_import_gives_all(fresh_python):
    fresh_python("from shoal import *\nwith Pool(1) as pool:\n    assert pool.apply(abs, (-1,)) == 1")


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'shoal' has no attribute 'Pond'"):
        shoal.Pond  # noqa: B018
    with pytest.raises(ImportError, match="Pond"):
        from shoal import Pond  # noqa: F401
