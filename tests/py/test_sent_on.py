# SPDX-License-Identifier: BSD-3-Clause
"""What another process received and sends on has the bytes that it came in, for every case of the case tables.

Each case is defined, loaded and sent on in processes that know nothing of it: children of one that has only Shoal.
"""

import pickle
import sys
import textwrap

import pytest

import by_value_cases
import by_value_function_cases
import class_cases
import enum_cases
import exception_cases
import object_cases
import test_determinism

FUNCTIONS = by_value_function_cases.CASES | (by_value_function_cases.CASES_3_12 if sys.version_info >= (3, 12) else {})
EDGES = {
    "functions and classes of a module by value, functions first": """
        import types
        m = types.ModuleType("m")
        exec("z = 1\\ny = 2\\ndef get(): return y, other()\\ndef other(): return z, get\\na = 5", vars(m))
        exec("class C:\\n    def f(self): return a, C, D\\nclass D: pass", vars(m))
        it = m.get, m.C, m
    """,
    "a module by value that a function names": """
        import types
        m = types.ModuleType("m")
        exec("z = 1\\ny = 2\\ndef get(): return y, z\\nclass C:\\n    def f(self): return a\\na = 5", vars(m))
        def it(): return m.z, m.C, m.get
    """,
    "names of modules and functions as attributes, and as values besides": """
        import contextlib, functools, json, operator
        @contextlib.contextmanager
        def manager(x): yield x
        @manager(1)
        def decorated(): return 1
        x, y, many = __name__, "decorated", {"dumps": json.dumps, "add": operator.add, "json": json}
        def it(y="it", x="__main__"): return decorated, x, y, many
        it.name, it.it, it.module, it.doc = it.__name__, it.__qualname__, it.__module__, "name"
    """,
    "marks of dataclasses": """
        import dataclasses
        kinds = [dataclasses._FIELD, dataclasses._FIELD_CLASSVAR, dataclasses._FIELD_INITVAR]
        def f(): return kinds
        it = [dataclasses._FIELD], f
    """,
    "decorated three times": """
        import functools
        def deco(f):
            @functools.wraps(f)
            def inner(*a): return f(*a)
            return inner
        @deco
        @deco
        @deco
        def it(a: "a", b: int = 3): "it"
    """,
    "generic classes of every kind": """
        import abc, collections, dataclasses, enum, typing
        T = typing.TypeVar("T")
        class P(typing.Protocol[T]):
            def f(self) -> T: ...
        class G(typing.Generic[T]):
            def f(self, x: T) -> "G[T]": return self
        class TD(typing.TypedDict, total=False):
            a: int
            b: "str"
        class NT(typing.NamedTuple):
            a: int = 1
            b: str = "a"
        nt = collections.namedtuple("nt", "a b", defaults=[1])
        class Abstract(abc.ABC):
            @abc.abstractmethod
            def f(self): ...
        Abstract.register(int)
        class E(enum.Flag):
            A = 1
            B = 2
            AB = A | B
        it = P, G, G[int], TD, NT, NT(), nt, nt(1), Abstract, E, E.AB, P[int], E.A | E.B
    """,
    "a metaclass that keeps a list": """
        class M(type):
            made = []
            def __new__(m, n, b, ns, kw=1):
                c = super().__new__(m, n, b, ns)
                c.kw = kw
                m.made.append(n)
                return c
            def __init__(c, n, b, ns, kw=1): super().__init__(n, b, ns)
        class A(metaclass=M, kw=2):
            def f(self): return __class__, M
        class B(A, kw="x"):
            __slots__ = "x", "__y"
        it = B, A, M
    """,
}
TABLES = {
    "edges": EDGES,
    "values": by_value_cases.CASES,
    "functions": FUNCTIONS,
    "classes": class_cases.CASES,
    "enums": enum_cases.CASES,
    "exceptions": exception_cases.CASES,
    "objects": object_cases.CASES,
    "determinism": test_determinism.DEFINITIONS,
}
# What arrives is another thing than what was sent, there or by its own saying.
BECOMES_ANOTHER = {
    "text file": "a file arrives as what is in it",
    "files": "a file arrives as what is in it",
    "iterators": "an iterator over a dict arrives as one over a list",
    "a class that says itself how it is made": "its __reduce__ counts",
    "typing objects": "typing makes Optional[Key] and Key | None one object, where both have the same arguments",
}
# A class that lives keeps the methods it has, and a function of the second stream is another one than its method.
OF_A_CLASS_AND_BESIDE_IT = {
    "siblings share their cell through containers and classes",
    "the class cell of super",
    "bound methods",
    "partial",
    "class and function that their own parameters name",
    "functions and classes of a module by value, functions first",
    "a module by value that a function names",
}

WALK = """
import asyncio, collections, contextlib, dataclasses, enum, functools, os, pickle, sys, typing  # once for all children
import numpy, shoal
cases, kept = pickle.load(open(sys.argv[1], "rb")), set(globals()) | {"kept"}

def in_a_child(work, *arguments):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b""
        try:
            answer = pickle.dumps(work(*arguments))
        except BaseException:
            import traceback
            answer = pickle.dumps(traceback.format_exc())
        finally:
            with open(writer, "wb") as file:
                file.write(answer)
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return pickle.loads(answer)

def forget():
    for name in set(globals()) - kept:
        del globals()[name]

def define(source):
    forget()
    exec(compile(source, "<case>", "exec"), globals())
    return [shoal.dumps(it), shoal.dumps(it)]

def send_on(stream):
    forget()
    first = pickle.loads(stream)
    streams = [shoal.dumps(first)]
    second = shoal.loads(stream)
    streams.append(shoal.dumps(second))
    third = shoal.loads(streams[0])
    return streams + [shoal.dumps(third)]

for name in ("in_a_child", "forget", "define", "send_on"):
    kept.add(name)
found = []
for name, source in cases.items():
    here = in_a_child(define, source)
    there = in_a_child(send_on, here[0]) if type(here) is list else here
    found.append((name, there if type(there) is str else [stream == here[0] for stream in here[1:] + there]))
pickle.dump(found, open(sys.argv[1], "wb"))
"""


def sources(table):
    for name, case in table.items():
        if isinstance(case, str):
            yield name, textwrap.dedent(case)
        elif len(case) < 3 or sys.version_info >= case[2]:
            yield name, textwrap.dedent(case[0])


@pytest.mark.parametrize("name", TABLES)
def test_streams_stay_the_same_when_they_are_sent_on(fresh_python, tmp_path, name):
    file = tmp_path / "cases"
    file.write_bytes(pickle.dumps(dict(sources(TABLES[name]))))
    fresh_python(WALK, file, timeout=110)
    for case, same in pickle.loads(file.read_bytes()):
        assert type(same) is list, f"{case}: {same}"
        if case not in BECOMES_ANOTHER:
            assert same[:2] == [True, True], case  # dumped again where it was defined, and where it was loaded
        if case not in BECOMES_ANOTHER and case not in OF_A_CLASS_AND_BESIDE_IT:
            assert same[2:] == [True, True], case  # loaded twice, and once more from what was sent on
