# SPDX-License-Identifier: BSD-3-Clause
"""Enums of every form by value: as they were defined, in a process that cannot import them and in their own."""

import enum
import pickle

import pytest

import shoal
from enum_cases import CASES
from test_by_value_classes import define_and_use


@pytest.mark.parametrize("name", CASES)
def test_defined_in_one_script_it_works_in_another(fresh_python, tmp_path, name):
    define_and_use(fresh_python, tmp_path, *CASES[name])


def test_an_enum_that_comes_home_is_the_same_and_unchanged():
    class Local(enum.Enum):
        A = 1
        B = 1

    Local.extra = 1
    stream = shoal.dumps([Local, Local.A])
    Local.extra = 2
    assert pickle.loads(stream) == [Local, Local.A]
    assert Local.extra == 2
    assert list(Local.__members__) == ["A", "B"]


def test_a_method_that_was_replaced_arrives(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    fresh_python(
        "import enum, pickle, shoal, sys\nclass E(enum.Enum):\n    A = 1\n    def f(self): return 1\n"
        "streams = [shoal.dumps(E.A)]\nE.f = lambda self: 2\nstreams.append(shoal.dumps(E.A))\n"
        "pickle.dump(streams, open(sys.argv[1], 'wb'))",
        file,
    )
    fresh_python(
        "import pickle, sys\nfirst, second = pickle.load(open(sys.argv[1], 'rb'))\n"
        "a = pickle.loads(first)\nassert a.f() == 1\nassert pickle.loads(second) is a and a.f() == 2",
        file,
    )
