# SPDX-License-Identifier: BSD-3-Clause
"""What was found out about a type does not hold for another that has its address, even if version tags begin anew."""

import sys

import pytest

import shoal

ROUNDS = 300


def property_of_its_own():
    """Its class is described by its base."""
    found = type("P", (property,), {})(len)
    return type("C", (), {"p": found}), None


def instance():
    cls = type("C", (), {"__module__": "__main__"})
    made = cls()
    made.x = 1
    return made, None


def with_a_reducer():
    cls = type("C", (), {"__module__": "__main__", "__reduce__": lambda self: (int, ())})
    made = cls()
    made.x = 1
    return made, 0


@pytest.mark.parametrize("first", [instance, property_of_its_own])
def test_classes_in_the_place_of_others_are_looked_at_again(first):
    for _ in range(ROUNDS):
        for make in (first, with_a_reducer):
            sys._clear_type_cache()  # Python 3.10 gives the same tags again
            made, value = make()
            loaded = shoal.loads(shoal.dumps(made))
            assert value is None or loaded == value
            del made, loaded
