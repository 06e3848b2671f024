# SPDX-License-Identifier: BSD-3-Clause
"""What the methods of a class by value see around them is what the source has, also where the class is already.

A second process, the echo, keeps what it loads and answers with the value of an expression over it.
"""

import pickle
import subprocess
import sys

import pytest

import shoal

ECHO = """
import pickle, sys
kept = {}
while True:
    try:
        stream, expression = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    it = pickle.loads(stream)
    try:
        answer = eval(expression)
    except Exception as error:
        answer = repr(error)
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def ask():
    with subprocess.Popen([sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as echo:

        def ask(obj, expression):
            pickle.dump((shoal.dumps(obj), expression), echo.stdin)
            echo.stdin.flush()
            return pickle.load(echo.stdout)

        yield ask
        echo.stdin.close()


def define(source):
    """The namespace of a script: its classes are not importable anywhere."""
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(source, namespace)
    return namespace


def test_a_global_that_changed_at_the_source_is_seen(ask):
    script = define("factor = 2\nclass C:\n    def f(self):\n        return factor")
    assert ask(script["C"](), "it.f()") == 2
    script["factor"] = 3
    assert ask(script["C"](), "it.f()") == 3
    script["factor"] = [3, {"a": 4}]
    assert ask(script["C"](), "it.f()") == [3, {"a": 4}]
    script["factor"][1]["a"] = 5
    assert ask(script["C"](), "it.f()") == [3, {"a": 5}]


def test_what_a_method_did_to_a_global_is_not_seen_by_the_next_task(ask):
    script = define(
        "count = 0\nclass C:\n    def f(self):\n        global count\n        count += 1\n        return count"
    )
    for _ in range(3):
        assert ask(script["C"]().f, "(it(), it())") == (1, 2)


def test_helpers_and_methods_go_on_sharing_their_globals(ask):
    script = define(
        """
count, step = 0, 1
def increase():
    global count
    count += step
class C:
    def f(self):
        increase()
        return count
"""
    )
    assert ask(script["C"](), "(it.f(), it.f())") == (1, 2)
    script["step"] = 10
    assert ask(script["C"](), "(it.f(), it.f())") == (10, 20)
    exec("def increase():\n    global count\n    count -= step", script)
    assert ask(script["C"](), "(it.f(), it.f())") == (-10, -20)


@pytest.mark.parametrize("kind", ["classmethod", "staticmethod", "property", "wrapper"])
def test_methods_of_every_kind_are_looked_at(ask, kind):
    script = define(
        f"""
factor = 2
def wrapper(function):
    return lambda self: function(self)
class C:
    @{kind}
    def f(*arguments):
        return factor
"""
    )
    expression = "it.f" if kind == "property" else "it.f()"
    assert ask(script["C"](), expression) == 2
    script["factor"] = 3
    assert ask(script["C"](), expression) == 3


def test_a_closure_variable_that_changed_at_the_source_is_seen(ask):
    script = define(
        """
def make():
    factor = 2
    def change(to):
        nonlocal factor
        factor = to
    class C:
        def f(self):
            return factor, __class__ is type(self)
    return C, change
C, change = make()
"""
    )
    assert ask(script["C"](), "it.f()") == (2, True)
    script["change"](3)
    assert ask(script["C"](), "it.f()") == (3, True)


def test_with_equal_surroundings_nothing_is_touched(ask):
    script = define(
        """
import os
factor, table = 2, {"a": [1, 2.5, "x"]}
def helper():
    return factor
class C:
    attribute = 1
    def f(self):
        return helper(), factor, table, os.sep, C
"""
    )
    C = script["C"]
    assert ask(C(), "kept.update(cls=type(it), f=type(it).f) or setattr(type(it), 'attribute', 5)") is None
    assert ask(C(), "(type(it) is kept['cls'], type(it).f is kept['f'], it.attribute)") == (True, True, 5)
    script["factor"] = 3
    assert ask(C(), "(type(it) is kept['cls'], it.f()[0], it.attribute)") == (True, 3, 5)


@pytest.mark.parametrize("base", ["Base", "object"])
def test_a_dataclass_is_not_touched_and_sent_on_as_it_came(ask, base):
    """Each __repr__ has a set of what is under way; sets of simple members can be compared."""
    script = define(
        f"""
import dataclasses
words, none = {{"a", None, 1, True}}, frozenset()
class Base:
    def f(self):
        return words, none
@dataclasses.dataclass
class Data({base}):
    x: int = 0
    y: list = dataclasses.field(default_factory=list)
"""
    )
    sent = ask(script["Data"], "kept.update(vars(it)) or __import__('shoal').dumps(it)")
    assert ask(script["Data"], "[name for name in kept if kept[name] is not vars(it)[name]]") == []
    assert ask(script["Data"], "__import__('shoal').dumps(it)") == sent == shoal.dumps(script["Data"])
    script["words"].add("b")
    assert ask(script["Base"](), "sorted(map(str, it.f()[0]))") == ["1", "None", "a", "b"]


def test_a_method_that_was_replaced_where_it_is_stays(ask):
    script = define(
        "factor = 2\nclass C:\n    def f(self):\n        return factor\n    def g(self):\n        return factor"
    )
    assert ask(script["C"](), "setattr(type(it), 'f', lambda self: 'mine')") is None
    assert ask(script["C"](), "type(it).g.__globals__.update(factor=5)") is None
    assert ask(script["C"](), "(it.f(), it.g())") == ("mine", 2)


def test_the_source_itself_is_never_changed(ask):
    script = define("factor = 2\nclass C:\n    def f(self):\n        return factor")
    C, method = script["C"], script["C"].f
    stream = shoal.dumps(C())
    script["factor"] = 3
    for loads in (pickle.loads, shoal.loads):
        assert type(loads(stream)) is C
    assert C.f is method and C().f() == 3


def test_in_a_pool_methods_see_what_functions_see():
    script = define("factor = 2\nclass C:\n    def f(self):\n        return factor\ndef f():\n    return factor")
    shoal.dumps(script["C"])  # known before the workers are: they have a copy of it
    with shoal.Pool(1) as pool:
        for factor in (2, 3, 4):
            script["factor"] = factor
            assert pool.apply(script["f"]) == factor
            assert pool.apply(script["C"]().f) == factor
    assert script["C"].f.__globals__ is script


def test_an_instance_as_a_global_is_always_the_sources(ask):
    script = define(
        """
class Config:
    rate = None
config = Config()
config.rate = 1
class C:
    def f(self):
        return config.rate
"""
    )
    assert ask(script["C"](), "it.f()") == 1
    script["config"].rate = 2
    assert ask(script["C"](), "it.f()") == 2
