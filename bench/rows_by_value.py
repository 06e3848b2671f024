# SPDX-License-Identifier: BSD-3-Clause
"""Rows for functions and classes by value, against cloudpickle.

They are made in a namespace that says it is __main__ and that no process can import: neither pickler can send them by
reference.
"""

import functools
import sys
import types
from collections.abc import Callable

import frame
import picklers
from picklers import Subject

CODECS = picklers.shoal_codec, picklers.cloudpickle_codec

SOURCE = """
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

small = Small(4)

@dataclasses.dataclass
class Data:
    x: int
    y: float = 0.0
    name: str = ""

data = Data(1)

def loops(values, limit=10):
    total = 0
    for value in values:
        try:
            if value % 2:
                total += int(value)
        except (TypeError, ValueError):
            continue
        while total > limit * 100:
            total -= limit
    squares = [value * value for value in range(total) if value < limit]
    return sum(squares), {value: str(value) for value in squares}
"""

NUMPY_SOURCE = """
import numpy as np

def uses_numpy(x):
    return np.sqrt(np.asarray(x) ** 2).sum() + np.linalg.norm(x)
"""


@functools.cache
def namespace(source: str = SOURCE) -> dict:
    made: dict = {"__name__": "__main__"}
    exec(compile(source, "<benchmark>", "exec"), made)
    return made


# Each with a use of it that tells whether it came back whole.
BY_VALUE: dict[str, tuple[str, Callable]] = {
    "lambda": ("simple", lambda function: function(41) == 42),
    "closure": ("closure", lambda function: function(4) == 11),
    "five-globals": ("five_globals", lambda function: function(1) == 16),
    "class": ("Small", lambda cls: cls(4).scaled() == 8),
    "class-instance": ("small", lambda instance: instance.scaled() == 8),
    "dataclass": ("Data", lambda cls: cls(1) == cls(1, 0.0, "") and "name=''" in repr(cls(1))),
    "dataclass-instance": ("data", lambda instance: instance.name == "" and instance == type(instance)(1)),
    "loops": ("loops", lambda function: function([1, 2, 3])[0] == 14),
}


def by_value(name: str):
    return namespace()[BY_VALUE[name][0]]


def subject(name: str, make: Callable | None = None) -> Subject:
    works = BY_VALUE[name][1]
    return Subject(make or functools.partial(by_value, name), lambda copy, _: works(copy))


# ---- Freshly made functions. Equal code counts as the same code in a cache (cloudpickle's is such a one), so each gets
# ---- line numbers of its own.


def shifted(code: types.CodeType, lines: int) -> types.CodeType:
    constants = tuple(
        shifted(constant, lines) if isinstance(constant, types.CodeType) else constant for constant in code.co_consts
    )
    return code.replace(co_firstlineno=code.co_firstlineno + lines, co_consts=constants)


class Maker:
    """Makes a function anew at each call: a code object that nobody has seen, and so for those inside it."""

    def __init__(self, function: types.FunctionType):
        self.function, self.made = function, 0

    def __call__(self) -> types.FunctionType:
        self.made += 1
        code, function = shifted(self.function.__code__, self.made), self.function
        return types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__)


# ---- A function that uses numpy, in a process that has loaded much

LOADED_MODULES = 2000


def uses_numpy() -> types.FunctionType:
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise frame.SkipRow("needs numpy") from None
    function = namespace(NUMPY_SOURCE)["uses_numpy"]
    packages, count = 40, LOADED_MODULES - len(sys.modules)
    for number in range(count):
        package = f"loaded_package_{number % packages}"
        name = package if number < packages else f"{package}.module_{number // packages}"
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__package__ = package
    return function


NUMPY = Subject(uses_numpy, lambda copy, _: copy([3.0, 4.0]) == 12.0)


def add_to(registry: frame.Registry) -> None:
    def compare(name, calls, subject, goal):
        ours, theirs = (functools.partial(calls, codec, subject) for codec in CODECS)
        registry.add(
            name, ours=ours, theirs=theirs, peer="cloudpickle", group="pickle", rounds=21, processes=3, goal=goal
        )

    for name in BY_VALUE:
        # `loops`, warm, is there to be compared with its first dumps.
        compare(f"dumps/{name}", picklers.dumps_calls, subject(name), None if name == "loops" else 10.0)
    compare("dumps/numpy-function", picklers.dumps_calls, NUMPY, 30.0)
    for name in BY_VALUE:
        compare(f"loads/{name}", picklers.loads_calls, subject(name), 4.0)
    compare("loads/numpy-function", picklers.loads_calls, NUMPY, 4.0)
    for name, goal in (("lambda", None), ("loops", 20.0)):
        fresh = subject(name, Maker(by_value(name)))
        compare(f"first-dumps/{name}", picklers.first_dumps_calls, fresh, goal)
        compare(f"first-loads/{name}", picklers.first_loads_calls, fresh, 4.0)
