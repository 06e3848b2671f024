# SPDX-License-Identifier: BSD-3-Clause
"""The members of a set that travels by value stand in an order that is a function of what is in them."""

import pickle
import textwrap

import pytest

import shoal

# name: script that defines `members`, whose hashes or addresses are others in each process
MEMBERS = {
    "dates and times": """
        from datetime import date, datetime, time, timedelta, timezone
        members = [date(2020, 1, day) for day in range(1, 9)] + [datetime(2020, 1, day) for day in range(1, 9)]
        members += [time(hour) for hour in range(9)] + [timedelta(days=day) for day in range(9)]
        members += [datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=hour))) for hour in range(9)]
    """,
    "numbers and names of other kinds": """
        import decimal, fractions, pathlib, re, uuid
        members = [decimal.Decimal(2 * n + 1) / 16 for n in range(9)] + [fractions.Fraction(n, 7) for n in range(9)]
        members += [uuid.UUID(int=n) for n in range(9)] + [pathlib.PurePath(name, "x") for name in "abcdefgh"]
        members += [re.compile(text) for text in "abcdefgh"] + [range(n, 9) for n in range(9)]
        set(members)
    """,
    "partial objects, operators and bound methods": """
        import functools, operator
        def f(*args): return args
        members = [functools.partial(f, n) for n in range(9)] + [functools.partial(int, base=n) for n in range(2, 9)]
        members += [operator.itemgetter(n) for n in range(9)] + [text.upper for text in "abcdefgh"]
    """,
    "classes of one place": """
        import asyncio, queue, threading
        def make(n):
            class C:
                value = n
                def get(self): return n
            return C
        members = [make(n) for n in range(9)]
        members += [asyncio.Queue, queue.Queue, asyncio.Event, threading.Event]
    """,
    "instances of classes of one place": """
        def make(n):
            class C:
                value = n
            return C
        members = [make(n)() for n in range(9)]
    """,
    "functions of one code": """
        def adder(n):
            def add(x, y=n): return x + n
            return add
        def twice(f):
            def inner(x): return f(f(x))
            return inner
        members = [adder(n) for n in range(9)] + [twice(twice(adder(n))) for n in range(9)]
    """,
    "instances that say what they are made of": """
        class Opaque:
            __slots__ = ("_Opaque__inside",)
            made = []
            def __init__(self, n): Opaque.made.append((self, n))
            def __reduce__(self): return Opaque, ([n for other, n in Opaque.made if other is self][0],)
        class Stated:
            def __init__(self, n): self.n, self.address = n, id(self)
            def __getstate__(self): return {"n": self.n}
        members = [Opaque(n) for n in range(9)] + [Stated(n) for n in range(9)]
    """,
    "sets and tuples of these": """
        from datetime import date
        members = [frozenset({date(2020, 1, day), date(2021, 1, day)}) for day in range(1, 9)]
        members += [(frozenset({(date(2022, 1, day),), "x", "y"}), day % 2) for day in range(1, 9)]
    """,
    "alike, but known already": """
        class It: pass
        members = [It() for n in range(9)]
        first = tuple(members)
    """,
}

DUMP = """
import random, shoal, sys
first = globals().get("first")
random.shuffle(members)
def it(): return first, members
members = set(members)
sys.stdout.write(shoal.dumps(it).hex())
"""


@pytest.mark.parametrize("name", MEMBERS)
def test_it_is_the_same_in_every_process(fresh_python, name):
    script = textwrap.dedent(MEMBERS[name]) + DUMP
    streams = {fresh_python(script, env={"PYTHONHASHSEED": str(seed)}).stdout for seed in range(4)}
    assert len(streams) == 1, f"{len(streams)} streams of {len(streams.pop())} characters"


def test_a_class_with_paths_in_it_is_the_same_in_every_process(fresh_python):
    script = """
        import pathlib, shoal, sys
        class It:
            where = pathlib.PurePath("a", "b")
            inside = {where, pathlib.PurePath("c")}
        sys.stdout.write(shoal.dumps(It).hex())
    """
    assert len({fresh_python(script, env={"PYTHONHASHSEED": str(seed)}).stdout for seed in range(3)}) == 1


def test_a_set_that_hooks_write_to_is_the_same_in_every_process(fresh_python):
    script = """
        import shoal, sys
        class Registry:
            def __init__(self): self.names = set()
        class Base:
            names, inside = set(), Registry()
            def __init_subclass__(cls):
                cls.names.update("abcdefgh")
                cls.inside.names.update("ijklmnop")
        class It(Base): pass
        sys.stdout.write(shoal.dumps(It).hex())
    """
    assert len({fresh_python(script, env={"PYTHONHASHSEED": str(seed)}).stdout for seed in range(3)}) == 1


TWO_ALIKE = """
    import sys, types, shoal
    hashes = sys.modules["hashes"] = types.ModuleType("hashes")
    class It:  # nothing tells two of these apart but their identity
        def __hash__(self):
            import hashes
            return hashes.known[id(self)]
    a, b = It(), It()
    first, second = (b, a) if sys.argv[1] == "swapped" else (a, b)
    hashes.known = {id(first): 1, id(second): 2}
    members = {a, b}
    assert list(members) == [first, second]
    def alone(): return members
    def earlier(): return b, members
    def later(): return members, b
    sys.stdout.write(shoal.dumps(globals()[sys.argv[2]]).hex())
"""


@pytest.mark.parametrize("use", ["alone", "earlier"])
def test_which_of_two_that_are_alike_comes_first_makes_no_difference(fresh_python, use):
    assert len({fresh_python(TWO_ALIKE, order, use).stdout for order in ("", "swapped")}) == 1


def test_unless_one_of_them_is_met_again_later(fresh_python):
    """The one case that remains: to know it, all of the stream would have to be known before it is written."""
    streams = {fresh_python(TWO_ALIKE, order, "later").stdout for order in ("", "swapped")}
    assert len(streams) == 2 and len({len(stream) for stream in streams}) == 1


def test_what_is_asked_may_change_what_is_walked_through():
    class Wild:
        def __init__(self, everything):
            self.everything = everything

        def __hash__(self):
            return 1

        def __reduce__(self):
            self.everything.append([object()] * 100)
            del self.everything[:1]
            return Wild, ([],)

    everything = [[1], [2], [3]]
    members = {(Wild(everything), n) for n in range(20)} | {Wild(everything) for _ in range(5)}
    made = pickle.loads(shoal.dumps(lambda: members))()
    assert len(made) == 25


def test_what_is_no_error_ends_the_dump():
    class Stop:
        def __reduce__(self):
            raise KeyboardInterrupt

    class Fails:
        def __reduce__(self):
            raise ValueError("no")

    for kind, error in ((Stop, KeyboardInterrupt), (Fails, ValueError)):
        members = {kind(), kind()}
        with pytest.raises(error):
            shoal.dumps(lambda members=members: members)
