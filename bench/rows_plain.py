# SPDX-License-Identifier: BSD-3-Clause
"""Rows for what C pickle can do as well: plain data, small objects, and the pickle benchmarks of pyperformance."""

import collections
import dataclasses
import datetime
import fractions
import functools
import importlib.util
import json
import operator
import pathlib
import types

import frame
import picklers
from picklers import Subject


class Point:
    """Importable, so that it travels by reference and only its instances count."""

    def __init__(self, x, y, label):
        self.x, self.y, self.label = x, y, label

    def __eq__(self, other):
        return isinstance(other, Point) and vars(self) == vars(other)


Pair = collections.namedtuple("Pair", "first second")

# ---- Plain data


def list_of_dicts() -> list:
    return [
        {"id": number, "name": f"user {number}", "score": number * 0.5, "active": number % 3 == 0, "tags": ["a", "b"]}
        for number in range(10_000)
    ]


def ints() -> list:
    return list(range(1_000_000))


def strings() -> list:
    return [f"string number {number}" for number in range(100_000)]


def documents() -> list:
    """What a web service gets as JSON: nested, the same keys over and over, text that is not all ASCII."""
    return [
        {
            "order": number,
            "customer": {"name": f"Zoë {number}", "address": {"street": f"{number} Main St", "city": "Zürich"}},
            "lines": [{"sku": f"A-{number}-{line}", "count": line, "price": 9.99 * line} for line in range(1, 6)],
            "paid": number % 2 == 0,
            "note": None,
        }
        for number in range(3_000)
    ]


def instances() -> list:
    return [Point(number, -number, f"p{number % 100}") for number in range(20_000)]


# With the goal of `loads`; that of `dumps` is 1.5 for each. Building the objects alone, without decoding anything,
# takes C pickle's time for ints but for a fifth of it.
PLAIN = {
    "list-of-dicts": (list_of_dicts, 1.3),
    "1e6-ints": (ints, 1.05),
    "1e5-strings": (strings, 1.3),
    "documents": (documents, 1.3),
    "20000-instances": (instances, 1.3),
}
FAMILY_GOALS = {"dumps/plain": 2.0, "loads/plain": 1.35}


# ---- Small objects: here the fixed cost of a call shows.


def same_call(copy: functools.partial, value: functools.partial) -> bool:
    return (copy.func, copy.args, copy.keywords) == (value.func, value.args, value.keywords)


def numpy_array():
    try:
        import numpy
    except ImportError:
        raise frame.SkipRow("needs numpy") from None
    return numpy.arange(1000.0)


SMALL = {
    "none": Subject(lambda: None, operator.is_),
    "tuple": Subject(lambda: (1, 2.0, "abc"), operator.eq),
    "importable-function": Subject(lambda: json.dumps, operator.is_),
    "call": Subject(lambda: (json.dumps, (1,), {}), operator.eq),
    "partial": Subject(lambda: functools.partial(json.dumps, 1), same_call),
    "fraction": Subject(lambda: fractions.Fraction(2, 3), operator.eq),
    "datetime": Subject(lambda: datetime.datetime(2024, 2, 29, 12, 30), operator.eq),
    "namedtuple": Subject(lambda: Pair(1, 2), operator.eq),
    "point": Subject(lambda: Point(1, 2, "a"), operator.eq),
    "numpy-8-kB": Subject(numpy_array, lambda copy, value: copy.tolist() == value.tolist()),
}


def out_of_band_dumps(make_codec):
    codec, array, buffers = make_codec(), numpy_array(), []
    if len(codec.dumps(array, picklers.PROTOCOL, buffer_callback=buffers.append)) > 500 or len(buffers) != 1:
        raise AssertionError("the array does not travel out of band")

    def run(count: int) -> None:
        for _ in range(count):
            codec.dumps(array, 5, buffer_callback=buffers.append)
            buffers.clear()

    return frame.ready(run)


def out_of_band_loads(make_codec):
    codec, array, buffers = make_codec(), numpy_array(), []
    stream = codec.dumps(array, picklers.PROTOCOL, buffer_callback=buffers.append)

    def run(count: int) -> None:
        for _ in range(count):
            codec.loads(stream, buffers=buffers)

    return frame.ready(run)


# ---- pyperformance. Its own functions run, on its own data; they take the pickler as an argument.

# How often each calls the pickler in one loop (on each of three values in `pickle` and `unpickle`).
PYPERFORMANCE = {"pickle": 60, "pickle_dict": 5, "pickle_list": 10, "unpickle": 60, "unpickle_list": 10}


def pyperformance_cases() -> dict:
    place = importlib.util.find_spec("pyperformance")
    if place is None or place.origin is None or importlib.util.find_spec("pyperf") is None:
        raise frame.SkipRow("needs pyperformance")
    path = pathlib.Path(place.origin).parent / "data-files/benchmarks/bm_pickle/run_benchmark.py"
    spec = importlib.util.spec_from_file_location("bm_pickle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BENCHMARKS


def pyperformance_calls(make_codec, name: str):
    function, _ = pyperformance_cases()[name]
    codec, options = make_codec(), types.SimpleNamespace(protocol=picklers.PROTOCOL)

    def run(count: int) -> frame.Span:
        span = frame.Span()
        with span:
            seconds = function(count, codec, options)
        return dataclasses.replace(span, seconds=seconds)  # its own clock, as it leaves out what it makes first

    return frame.ready(run)


def add_to(registry: frame.Registry) -> None:
    def compare(name, calls, *args, **fields):
        sides = [functools.partial(calls, codec, *args) for codec in (picklers.shoal_codec, picklers.pickle_codec)]
        registry.add(
            name, ours=sides[0], theirs=sides[1], peer="pickle", group="pickle", rounds=21, processes=3, **fields
        )

    directions = {"dumps": picklers.dumps_calls, "loads": picklers.loads_calls}
    for direction, calls in directions.items():
        for name, (make, loads_goal) in PLAIN.items():
            goal = 1.5 if direction == "dumps" else loads_goal
            subject = Subject(make, operator.eq)
            compare(f"{direction}/{name}", calls, subject, unit="ms", goal=goal, family=f"{direction}/plain")
    for direction, calls in directions.items():
        for name, subject in SMALL.items():
            compare(f"small/{direction}/{name}", calls, subject, goal=1.0)
    compare("small/dumps/numpy-out-of-band", out_of_band_dumps, goal=1.0)
    compare("small/loads/numpy-out-of-band", out_of_band_loads, goal=1.0)
    for name, inner_calls in PYPERFORMANCE.items():
        compare(f"pyperformance/{name}", pyperformance_calls, name, operations=inner_calls, goal=1.0)
    for family, goal in FAMILY_GOALS.items():
        registry.family_goals[family] = goal
