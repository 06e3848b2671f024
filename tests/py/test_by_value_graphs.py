# SPDX-License-Identifier: BSD-3-Clause
"""Random programs: whatever functions and classes they define arrive by value, and do there what they do here.

A program defines values, functions, closures that share cells, and classes, which use each other in any order, cycles
included. All of it is dumped together, loaded in the same process and in one that has nothing of it, and asked the same
questions in all three places. One new process answers for a whole batch of programs.
"""

import os
import pickle
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

import shoal

# What is asked: runs here and in the new process.
QUESTIONS = '''
import enum

def told(value, depth=3):
    """A description without addresses."""
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [told(item, depth - 1) if depth else "..." for item in value]
    if isinstance(value, dict):
        return "dict", [(key, told(item, depth - 1) if depth else "...") for key, item in value.items()]
    if isinstance(value, enum.Enum):
        return type(value).__qualname__, value.name, told(value.value, depth - 1)
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    if type(value).__module__ == "__main__":
        return type(value).__qualname__
    return repr(value)

def of_class(cls):
    names = [name for name in vars(cls) if not name.startswith("__") and name != "_abc_impl"]
    facts = [cls.__qualname__, [base.__qualname__ for base in cls.__mro__], names, vars(cls).get("__slots__")]
    if issubclass(cls, enum.Enum):
        return facts[:2] + [told(list(cls)), list(cls.__members__)]
    obj = cls()
    facts += [told(obj.ask(2)), told(obj.shown), hasattr(obj, "__dict__"), told(cls.made(1))]
    return facts + [cls.kept is obj.kept]

def answers(everything):
    said = []
    # Classes first: at home they are the living ones, whose functions do not see what the copies of these count.
    for name, value in sorted(everything.items(), key=lambda item: not isinstance(item[1], type)):
        if isinstance(value, type):
            said.append((name, of_class(value)))
        elif callable(value):
            said.append((name, told(value(2)), told(value.__defaults__), value.__qualname__, value.__doc__))
            said.append(told(value(1)))
        else:
            said.append((name, told(value)))
    said.append([a is b for a in everything.values() for b in everything.values() if type(a) is list is type(b)])
    return said
'''
FRESH = (
    QUESTIONS
    + """
import pickle, sys
print([answers(pickle.loads(stream)) for stream in pickle.load(sys.stdin.buffer)])
"""
)

NAMES = st.integers(0, 11).map("n{}".format)


@st.composite
def definitions(draw, name):
    used = draw(st.lists(NAMES, max_size=3))
    asked = "".join(f", {other}" for other in used)
    calls = "".join(
        f", {other}(depth - 1) if depth and callable({other}) and not isinstance({other}, type) else 0"
        for other in used
    )
    kind = draw(st.sampled_from(["value", "function", "nested", "closures", "class", "slots", "data", "enum"]))
    base = draw(st.sampled_from(["", "(Base)", "(Base, kept=(1, 2))"]))
    number = draw(st.integers(-5, 5))
    if kind == "value":
        return f"{name} = [{number}, 'text {number}', {{'key': ({number}.5, None)}}]\n"
    if kind == "function":
        return f"def {name}(depth, step={number}, *more):\n    'says {number}'\n    return [step{asked}{calls}]\n"
    if kind == "nested":
        return (
            f"def {name}(depth):\n    class Inner:\n        held = [{number}{asked}]\n        def get(self): "
            f"return __class__.held, [value for value in (lambda: [{number}{calls}])()]\n    return Inner().get()\n"
        )
    if kind == "closures":
        return (
            f"def make_{name}(count):\n    log = []\n    def {name}(depth):\n        nonlocal count\n"
            f"        if depth == 2:\n            count += 1\n            log.append(count)\n"
            f"        return [count, {name} is other()[0]{asked}]\n"
            f"    def other(depth=0): return {name}, count, len(log)\n    return {name}, other\n"
            f"{name}, {name}_other = make_{name}({number})\n"
        )
    body = (
        f"    kept = [{number}]\n    @property\n    def shown(self): return [{number}{asked}]\n"
        f"    @classmethod\n    def made(cls, depth): return cls.__name__, __class__ is cls\n"
        f"    def ask(self, depth): return [self.shown{calls}]\n"
    )
    if kind == "class":
        return f"class {name}{base}:\n{body}"
    if kind == "slots":
        return f"class {name}:\n    __slots__ = ('a', '__private')\n{body}"
    if kind == "data":
        fields = f"    x: int = {number}\n    y: list = dataclasses.field(default_factory=list)\n"
        return f"@dataclasses.dataclass\nclass {name}:\n{fields}{body}"
    return f"class {name}(enum.Enum):\n    FIRST = {number}\n    SECOND = ({number}, 'x')\n    ALIAS = {number}\n"


HEAD = """
import dataclasses, enum
class Base:
    def __init_subclass__(cls, kept=None, **rest): super().__init_subclass__(**rest)
"""


@st.composite
def programs(draw):
    names = [f"n{i}" for i in range(12)]
    return HEAD + "".join(draw(definitions(name)) for name in names)


def run_program(source):
    namespace = {"__name__": "__main__"}
    exec(compile(source, "<program>", "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.startswith("n")}


def questions():
    namespace = {"__name__": "questions"}
    exec(QUESTIONS, namespace)
    return namespace["answers"]


@pytest.mark.timeout_s(300)
@pytest.mark.parametrize("protocol", range(2, 6))
@hypothesis.settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
)
@hypothesis.given(sources=st.lists(programs(), min_size=8, max_size=8))
def test_any_program_does_the_same_where_it_arrives(protocol, sources):
    answers, streams, expected = questions(), [], []
    for source in sources:
        everything = run_program(source)
        streams.append(shoal.dumps(everything, protocol))
        again = shoal.dumps(everything, protocol)
        assert again == streams[-1]
        at_home = repr(answers(shoal.loads(streams[-1])))  # its classes are ours, and what these call
        wanted = answers(run_program(source))
        assert at_home == repr(wanted)
        expected.append(wanted)
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        input=pickle.dumps(streams),
        capture_output=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == repr(expected)
