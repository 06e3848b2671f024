# SPDX-License-Identifier: BSD-3-Clause
"""The same stream for the same definition: in every process, for every hash seed, and after a load and another dump."""

import pickle
import sys
import textwrap

import pytest

import shoal

# name: script that defines `it`
DEFINITIONS = {
    "lambda": "it = lambda x: x + 1",
    "globals and closures": """
        a, b = 1, "text"
        def make(n, s):
            def f(x, y="default", *, z=("t", 1)): return a, b, n, s, x, y, z
            return f
        it = make(5, "closure")
    """,
    "what names the module besides a function of it": """
        import functools, typing
        N, P = typing.NewType("N", int), typing.ParamSpec("P")
        def f(x: N): return x
        @functools.lru_cache
        def cached(x): return x
        it = [N, P, f, cached]
    """,
    "sets in code": """
        def it(x):
            def inner(y): return y in {"p", "q", "r", ("s", 1), 2.5, None}
            return x in {"a", "b", "c", "d", "e", "f"} or inner(x) or x in {frozenset({"z"})}
    """,
    "sets in a closure and among globals": """
        words = {"alpha", "beta", "gamma", "delta", "epsilon"}
        def make(s, t): return lambda: (s, t, words)
        it = make({"one", "two", "three", "four"}, frozenset({"x", "yy", "zzz"}))
    """,
    "sets of mixed members": """
        import fractions
        class A: pass
        class B: pass
        def f(): return 1
        third = fractions.Fraction(1, 3)
        members = {None, "text", 1, 2.5, (1, "two"), (2, "one"), frozenset({"x", 3, b"y"}), A, B, f, third}
        class Holder:
            kinds = {A, B, int, str, "name", 7}
            many = frozenset({A, B, None, ("p", 1), ("q", 2.5)})
        def it(): return members, Holder
    """,
    "an instance whose values are names": """
        class It:
            kind = "name"
            def __init__(self):
                self.name = "x"
                self.x = "".join(["na", "me"])
                self.y = ["x", "y", {"kind": "kind"}]
        it = [It(), It(), "x", "y"]
    """,
    "wraps": """
        import functools
        def deco(f):
            @functools.wraps(f)
            def inner(*args, **kwargs): return f(*args, **kwargs)
            inner.attribute = "attribute"
            return inner
        @deco
        @deco
        def it(x: int, y: "str" = "wraps") -> None: "it"
    """,
    "equal strings that are one object or several": """
        name = "attribute_name"
        other = "".join(["attribute", "_name"])
        def it(x="attribute_name"): return name, other, x, "attribute_name"
        it.attribute_name = name
        it.other = other
    """,
    "equal tuples that are one object or several": """
        t = (1, "two", 3.0)
        u = tuple([1, "two", 3.0])
        def it(x=(1, "two", 3.0)): return t, u, x
    """,
    "equal code that is two objects": """
        def define():
            space = {"__name__": "__main__"}
            exec("def f(x): return x, [x]", space)
            return space["f"]
        it = define(), define()
    """,
    "recursion": """
        def make():
            def even(n): return n == 0 or odd(n - 1)
            def odd(n): return n != 0 and even(n - 1)
            return even, odd
        def main(): return make, main, other
        def other(): return main
        it = make(), main
    """,
    "classes, comprehensions and annotations in a function": """
        from __future__ import annotations
        class Item: pass
        def it(x: list[int]) -> dict[str, int]:
            class C:
                y: int = 1
                def m(self) -> str: return [[i, j] for i in x for j in {"s", "t"}]
            def g(*, k: int = 2): return {k: v for k, v in zip("ab", "cd")}
            return C, g
    """,
    "generators and coroutines": """
        import asyncio, xml, xml.dom.minidom
        async def co(): return await asyncio.sleep(0), xml.dom.minidom.parseString
        def gen(): yield from (x async for x in co())
        it = co, gen
    """,
    "a module made by hand": """
        import types
        it = types.ModuleType("m")
        exec("x = 1\\ndef get(): return x\\ndef put(v):\\n    global x\\n    x = v", vars(it))
    """,
    "methods": """
        import types
        def f(self): return self
        it = types.MethodType(f, [1]), types.MethodType(lambda self: self, "text")
    """,
    "defined by text that linecache knows": """
        import linecache
        text = "def it(x):\\n    # why\\n    return [x\\n    ]\\n\\nother = 1\\n"
        linecache.cache["<cell>"] = (len(text), None, text.splitlines(True), "<cell>")
        exec(compile(text, "<cell>", "exec"))
    """,
}

DUMP = """
import pickle, shoal, sys
sys.stdout.write(shoal.dumps(it).hex())
"""
AGAIN = """
import pickle, shoal, sys
stream = bytes.fromhex(sys.argv[1])
noise = [f"noise{i}" for i in range(1000)], sys.intern("attribute_name"), {"text", "closure"}
again = shoal.dumps(pickle.loads(stream))
assert again == stream, (stream, again)
assert shoal.dumps(shoal.loads(again)) == stream
sys.stdout.write(again.hex())
"""


@pytest.mark.parametrize("name", DEFINITIONS)
def test_in_every_process_and_after_a_load_and_another_dump(fresh_python, name):
    define = textwrap.dedent(DEFINITIONS[name])
    seeds = ["0", "1", "2", "12345", "random"]
    streams = [fresh_python(define + DUMP, env={"PYTHONHASHSEED": seed}).stdout for seed in seeds]
    assert len(set(streams)) == 1
    for seed in ("3", "random"):
        again = fresh_python(AGAIN, streams[0], env={"PYTHONHASHSEED": seed}).stdout
        assert again == streams[0]


IN_EACH_PROTOCOL = """
import shoal, sys
print(*(shoal.dumps(it, protocol).hex() for protocol in range(6)))
"""
EACH_AGAIN = """
import pickle, shoal, sys
for protocol, line in enumerate(sys.argv[1:]):
    stream = bytes.fromhex(line)
    assert shoal.dumps(pickle.loads(stream), protocol) == stream, protocol
"""


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if "set" in name])
def test_sets_stand_in_one_order_in_each_protocol(fresh_python, name):
    define = textwrap.dedent(DEFINITIONS[name])
    seeds = ["0", "1", "2", "3"]
    lines = {fresh_python(define + IN_EACH_PROTOCOL, env={"PYTHONHASHSEED": seed}).stdout for seed in seeds}
    assert len(lines) == 1
    fresh_python(EACH_AGAIN, *lines.pop().split(), env={"PYTHONHASHSEED": "4"})


def test_whatever_is_interned_or_referred_to_at_the_moment():
    def define():
        space = {"__name__": "space", "captured": "".join(["cap", "tured value"])}
        source = "def f(x='captured value', *, y=('a', 'b')): return captured, x, {'a', 'b', 'c'}\nf.key = captured"
        exec(compile(source, "file", "exec"), space)
        return space["f"]

    first = define()
    stream = shoal.dumps(first)
    held = [first.__code__, first.__defaults__, first.__globals__["captured"], *first.__code__.co_consts]
    sys.intern(first.__globals__["captured"])
    assert shoal.dumps(first) == stream
    del held
    assert shoal.dumps(define()) == stream
    first("x")
    for _ in range(100):  # specialized bytecode
        first()
    assert shoal.dumps(first) == stream
    assert shoal.dumps(pickle.loads(stream)) == stream


def test_a_function_that_ran_gives_the_bytes_of_one_that_did_not():
    source = "def f(n):\n    t = 0\n    for i in range(n):\n        t += len([i]) + i * 2\n    return str(t)"
    ran, new = {}, {}
    exec(compile(source, "file", "exec"), ran)
    for _ in range(2000):
        ran["f"](20)
    exec(compile(source, "file", "exec"), new)
    assert shoal.dumps(ran["f"].__code__) == shoal.dumps(new["f"].__code__)


def test_traced_code_gives_the_bytes_of_the_code_that_was_written():
    source = "def f(n):\n    return [i for i in range(n)]"
    traced, new = {}, {}
    exec(compile(source, "file", "exec"), traced)
    before = sys.gettrace()
    sys.settrace(lambda *event: None)
    try:
        traced["f"](3)
        stream = shoal.dumps(traced["f"].__code__)
    finally:
        sys.settrace(before)
    exec(compile(source, "file", "exec"), new)
    assert stream == shoal.dumps(new["f"].__code__)
