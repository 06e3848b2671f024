# SPDX-License-Identifier: BSD-3-Clause
"""shoal.explain of much: plain values beyond the first are passed over in C, and the tree is as without that."""

import collections
import datetime
import pickle
import random

import pytest

import shoal
from shoal import _explain_stream
from shoal.explain import explain_stream


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def rows(count):
    return [
        {"id": i, "name": f"row {i}", "value": i * 1.5, "tags": ["a", "b"], "none": (None, True)} for i in range(count)
    ]


def tree(depth, make):
    return make(tree(depth - 1, make), tree(depth - 1, make)) if depth else 1


LARGE = {
    "ints": lambda: list(range(50_000)),
    "strings": lambda: [f"s{i}" for i in range(50_000)],
    "rows": lambda: rows(20_000),
    "instances": lambda: [Thing(x=i, y=str(i)) for i in range(20_000)],
    "pairs": lambda: tuple((i, str(i)) for i in range(50_000)),
    "dict": lambda: {f"key {i}": [i, {"a": i}] for i in range(20_000)},
    "set": lambda: {(i, str(i)) for i in range(20_000)},
    "tree of lists": lambda: [tree(15, lambda *pair: list(pair)), 1],
    "tree of dicts": lambda: [tree(15, lambda left, right: {"left": left, "right": right}), 1],
    "tree of instances": lambda: [tree(15, lambda left, right: Thing(left=left, right=right)), 1],
    "dates": lambda: [datetime.date.fromordinal(i + 1) for i in range(20_000)],
}


@pytest.mark.parametrize("dumps", [shoal.dumps, pickle.dumps], ids=["shoal", "pickle"])
@pytest.mark.parametrize("name", sorted(LARGE))
def test_most_of_many_plain_values_are_passed_over(name, dumps, monkeypatch):
    made = 0

    class Counting(_explain_stream.Reader):
        def push(self, part):
            nonlocal made
            made += 1
            super().push(part)

    monkeypatch.setattr(_explain_stream, "Reader", Counting)
    value = LARGE[name]()
    stream = dumps(value)
    (whole,) = explain_stream(stream)
    assert whole.size == len(stream)
    assert whole.detail == f"of {len(value):,}"
    assert made < 20_000


def random_value(rnd, depth):
    """Of everything: what is passed over, what is not, and what is large."""
    if depth == 0 or rnd.random() < 0.3:
        atoms = [1, 300, 1.5, "abc", None, b"xy", 10**30, "q" * rnd.choice([5, 300, 3000]), Thing, len, (), [], {}]
        return rnd.choice([*atoms, lambda: depth, datetime.date(2020, 1, 1), Thing(a=1), rnd])
    count = rnd.choice({3: [1, 2, 4, 9], 2: [3, 250, 450]}.get(depth, [0, 1, 3]))
    one = random_value(rnd, depth - 1)
    same = rnd.random() < 0.5
    values = [one if same else random_value(rnd, depth - 1) for _ in range(count)]
    kind = rnd.choice(["list", "tuple", "dict", "ordered", "thing", "set"])
    if kind == "list":
        return values
    if kind == "tuple":
        return tuple(values)
    if kind == "set":
        return {rnd.choice([i, str(i), (i, i)]) for i in range(count)}
    if kind == "thing":
        return Thing(**{f"a{i}": value for i, value in enumerate(values)})
    keyed = [(rnd.choice([i, f"k{i}", (i, "z")]), value) for i, value in enumerate(values)]
    return dict(keyed) if kind == "dict" else collections.OrderedDict(keyed)


def totals(stream):
    try:
        parts = explain_stream(stream)
    except shoal.UnpicklingError:
        return "no pickle"
    return [(part.kind, part.detail, part.size) for part in parts]


@pytest.mark.parametrize("seed", range(20))
def test_the_whole_is_the_same_as_if_each_value_were_looked_at(seed, monkeypatch):
    rnd = random.Random(seed)
    value = random_value(rnd, 3)
    streams = [shoal.dumps(value), shoal.dumps(value, 2), shoal.dumps(value, 4)]
    for stream in streams[:3]:
        damaged = bytearray(stream)
        for _ in range(rnd.choice([1, 3])):
            damaged[rnd.randrange(len(damaged))] = rnd.randrange(256)
        streams.append(bytes(damaged))
    passing = [totals(stream) for stream in streams]
    monkeypatch.setattr(_explain_stream, "_skip_plain", lambda data, at, *others: (at, 0, 0, 0))
    assert passing == [totals(stream) for stream in streams]
    assert [whole[0][2] for whole in passing[:3]] == [len(stream) for stream in streams[:3]]


def test_what_is_large_or_by_value_is_listed_wherever_it_is():
    values = list(range(5000))
    values[3000] = "x" * 10_000
    values[4000] = lambda: "told"
    whole = shoal.explain(values)
    assert [part.kind for part in whole][:2] == ["str", "function"]
    assert [part.why for part in whole][:2] == ["item 3000", "item 4000"]


def test_a_pickle_from_elsewhere_tells_why_something_is_by_value_as_far_as_names_do():
    def local():
        pass

    def named(module, name):
        made = type(local)(local.__code__, {"__name__": module}, name)
        made.__module__, made.__qualname__ = module, name
        return made

    cases = {
        named("__main__", "f"): "defined in __main__",
        named("__main__", "f.<locals>.g"): "defined in __main__, in a function",
        named("gone", "f.<locals>.g"): "defined in a function of gone",
        named("gone", "<lambda>"): "a lambda of gone",
        named("gone", "f"): "registered by value, or not to be found as gone.f",
    }
    for function, reason in cases.items():
        (part,) = explain_stream(shoal.dumps(function))
        assert (part.by, part.reason) == ("value", reason)
        assert reason in part.line()


def test_a_mention_of_something_passed_over_is_told_as_shared():
    first = [[i] for i in range(5000)]
    whole = shoal.explain([first, first[4000]])
    mention = next(part for part in whole if part.by == "shared")
    assert mention.kind in ("list", "object") and mention.same_as.kind == "list"


@pytest.mark.parametrize("at, large, memo", [(-1, 10, 0), (4, 10, 0), (0, -1, 0), (0, 10, -1)])
def test_places_outside_of_the_pickle_are_refused(at, large, memo):
    with pytest.raises(ValueError, match="outside"):
        _explain_stream._skip_plain(memoryview(b"abc"), at, large, memo, set())


def test_passing_never_reads_beyond_the_end():
    stream = b"K\x01" * 20 + b"J\x01\x00\x00\x00\x8c\x04abcd\x95" + bytes(8) + b"X\x02\x00\x00\x00ab" + b"h\x00" * 20
    for end in range(len(stream) + 1):
        for start in range(0, end, 3):
            at, values, _, _ = _explain_stream._skip_plain(memoryview(stream[:end]), start, 100, 1, set())
            assert start <= at <= end and values % 2 == 0
