# SPDX-License-Identifier: BSD-3-Clause
# alone: uses up memory
"""Nesting without end: a bound on memory, and PicklingError. Each takes seconds and gigabytes, in its own process."""

import io

import pytest

import shoal

ENDLESS = """
import resource, shoal, sys

class Endless:
    def __reduce__(self):
        return Endless, (Endless(),)

{limit}
try:
    shoal.dumps(Endless())
except shoal.PicklingError as error:
    text = str(error)
    assert "cannot pickle objects that are nested so deeply: {why}" in text, text
    assert "__reduce__ that makes a new object each time" in text and len(text) < 2000
    assert shoal.loads(shoal.dumps([[1]])) == [[1]]
    print("bounded", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 6 << 20)
"""


def test_a_reduce_that_makes_new_objects_for_ever_ends_in_a_pickling_error(fresh_python):
    assert fresh_python(ENDLESS.format(limit="", why="the limit is 1 GiB")).stdout.split() == ["bounded", "True"]


def test_without_memory_for_more_stack_it_is_a_pickling_error(fresh_python):
    limit = "resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))"
    assert fresh_python(ENDLESS.format(limit=limit, why="there is no memory")).stdout.split() == ["bounded", "True"]


class PartOfItself:
    def __reduce__(self):
        return PartOfItself, (self,)


class PartOfItsLists:
    def __reduce__(self):
        return PartOfItsLists, ([self],)


@pytest.mark.parametrize("kind", [PartOfItself, PartOfItsLists])
def test_an_object_that_is_part_of_what_it_is_made_from_is_told(kind):
    with pytest.raises(shoal.PicklingError, match="is part of what it is made from"):
        shoal.dumps(kind())
    assert shoal.loads(shoal.dumps([[1]])) == [[1]]


def test_what_comes_again_many_times_before_it_is_made_has_an_end():
    loops = [[] for _ in range(2000)]
    whole = tuple(loops)
    for loop in loops:
        loop.append(whole)
    loaded = shoal.loads(shoal.dumps(whole))
    assert len(loaded) == 2000 and all(loop[0] is loaded for loop in loaded)


def test_in_fast_mode_a_cycle_through_instances_is_seen_early():
    class Self:
        def __init__(self):
            self.me = (self,)

    pickler = shoal.Pickler(io.BytesIO())
    pickler.fast = True
    with pytest.raises(ValueError, match="cyclic"):
        pickler.dump(Self())
