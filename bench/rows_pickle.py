# SPDX-License-Identifier: BSD-3-Clause
"""Rows for the pickler: plain data against C pickle, functions and classes by value against cloudpickle.

Both sides are called in the same way, `dumps(value, 5)` and `loads(stream)`; each loads the stream that it wrote.
"""

import functools
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import frame

PROTOCOL = 5


class Point:
    """Importable, so that it travels by reference and only its instances count."""

    def __init__(self, x, y, label):
        self.x, self.y, self.label = x, y, label

    def __eq__(self, other):
        return isinstance(other, Point) and vars(self) == vars(other)


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


PLAIN = {
    "list-of-dicts": list_of_dicts,
    "1e6-ints": ints,
    "1e5-strings": strings,
    "documents": documents,
    "20000-instances": instances,
}

# ---- By value. Run in a namespace that says it is __main__ and that no process can import: neither pickler can then
# ---- send these by reference.

BY_VALUE_SOURCE = """
import dataclasses

first, second, third, fourth, fifth = 1, 2, 3, 4, 5

simple = lambda x: x + 1

def make_closure(a, b):
    def closure(x):
        return a * x + b
    return closure

closure = make_closure(2, 3)

def five_globals(x):
    return first + second + third + fourth + fifth + x

class Small:
    scale = 2

    def __init__(self, x):
        self.x = x

    def scaled(self):
        return self.x * self.scale

@dataclasses.dataclass
class Data:
    x: int
    y: float = 0.0
    name: str = ""
"""


@functools.cache
def by_value_namespace() -> dict:
    namespace: dict = {"__name__": "__main__"}
    exec(compile(BY_VALUE_SOURCE, "<benchmark>", "exec"), namespace)
    return namespace


# Each with a use of it that tells whether it came back whole.
BY_VALUE: dict[str, tuple[str, Callable]] = {
    "lambda": ("simple", lambda function: function(41) == 42),
    "closure": ("closure", lambda function: function(4) == 11),
    "five-globals": ("five_globals", lambda function: function(1) == 16),
    "class": ("Small", lambda cls: cls(4).scaled() == 8),
    "dataclass": ("Data", lambda cls: cls(1) == cls(1, 0.0, "") and "name=''" in repr(cls(1))),
}


def by_value(name: str):
    return by_value_namespace()[BY_VALUE[name][0]]


# ---- The picklers: functions that import them, so that each side loads its own only.


def shoal_codec():
    import shoal

    return shoal.dumps, shoal.loads


def pickle_codec():
    return pickle.dumps, pickle.loads


def cloudpickle_codec():
    try:
        import cloudpickle
    except ImportError:
        raise frame.SkipRow("needs cloudpickle") from None
    return cloudpickle.dumps, cloudpickle.loads


def check(is_right: bool) -> None:
    if not is_right:
        raise AssertionError("what comes back differs from what was written")


def dumps_calls(codec, make: Callable, is_right: Callable) -> AbstractContextManager[frame.Rounds]:
    (dumps, loads), value = codec(), make()
    check(is_right(loads(dumps(value, PROTOCOL)), value))
    return frame.ready(frame.each(dumps, value, PROTOCOL))


def loads_calls(codec, make: Callable, is_right: Callable) -> AbstractContextManager[frame.Rounds]:
    (dumps, loads), value = codec(), make()
    stream = dumps(value, PROTOCOL)
    check(is_right(loads(stream), value))
    return frame.ready(frame.each(loads, stream))


def subjects() -> Iterator[tuple]:
    """Name, how to make it, how to tell that its copy is right, peer, codec of the peer, unit."""
    for name, make in PLAIN.items():
        yield name, make, lambda copy, value: copy == value, "pickle", pickle_codec, "ms"
    for name, (_, works) in BY_VALUE.items():
        is_right = functools.partial(lambda works, copy, value: works(copy), works)
        yield name, functools.partial(by_value, name), is_right, "cloudpickle", cloudpickle_codec, "us"


def add_to(registry: frame.Registry) -> None:
    for direction, calls in (("dumps", dumps_calls), ("loads", loads_calls)):
        for name, make, is_right, peer, codec, unit in subjects():
            registry.add(
                f"{direction}/{name}",
                ours=functools.partial(calls, shoal_codec, make, is_right),
                theirs=functools.partial(calls, codec, make, is_right),
                peer=peer,
                unit=unit,
            )
