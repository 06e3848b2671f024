# SPDX-License-Identifier: BSD-3-Clause
"""Which streams plain pickle reads where Shoal is not installed, and which need it. docs/pickling.md lists the same.

All are dumped in one script and loaded by two others with `pickle.loads`: by one where `import shoal` fails, and by one
where it would work but nothing has imported it.
"""

import pathlib
import pickle
import subprocess
import sys

import pytest

import shoal

# name: (an expression of what is dumped, an expression over `it` that holds after loading)
ALONE = {
    "numbers and text": ("[None, True, 1, -(2**100), 1.5, 2j, 'text', b'bytes', bytearray(b'array')]", "len(it) == 9"),
    "containers": ("{'a': [1, (2,)], 'b': {3}, 'c': frozenset({4})}", "it['c'] == {4}"),
    "shared and recursive containers": ("(lambda a: (a.append(a), a)[1])([])", "it[0] is it"),
    "collections": ("[OrderedDict(a=1), defaultdict(list, b=[2]), deque([3]), Counter('aab')]", "it[3]['a'] == 2"),
    "dates and decimals": ("[datetime.datetime(2020, 1, 2), decimal.Decimal('1.5'), fractions.Fraction(1, 3)]", "it"),
    "instances of importable classes": (
        "[pathlib.Path('x'), argparse.Namespace(a=1), uuid.UUID(int=5)]",
        "it[1].a == 1",
    ),
    "importable classes and types": (
        "[pathlib.Path, int, type(None), type(...), collections.abc.Mapping]",
        "it[1] is int",
    ),
    "importable functions": (
        "[json.dumps, len, os.path.join, str.upper, dict.fromkeys, [1].index]",
        "it[0]([]) == '[]'",
    ),
    "partial objects and operators": ("[functools.partial(int, base=2), operator.itemgetter(1)]", "it[0]('101') == 5"),
    "methods of importable classes": ("[collections.Counter('aab').most_common, pathlib.Path('x').exists]", "it[0](1)"),
    "members of importable enums": ("[re.IGNORECASE, socket.AF_INET]", "it[0] is re.IGNORECASE"),
    "exceptions": ("[ValueError('x', 1), OSError(2, 'no'), KeyError('k')]", "it[1].errno == 2"),
    "exceptions with all that belongs to them": (
        "(lambda e, c: (setattr(e, '__cause__', c), setattr(e, '__context__', c), setattr(e, '__notes__', [1]), e)[3])"
        "(json.JSONDecodeError('no', 'doc', 1), NameError('n', name='n'))",
        "it.__notes__ == [1] and it.pos == 1 and it.__cause__ is it.__context__ and it.__cause__.name == 'n'",
    ),
    "memory views": ("[memoryview(b'ab'), memoryview(bytes(4)).cast('H')]", "it[0] == b'ab' and it[1].format == 'H'"),
    "weak references": (
        "(lambda value: [value, weakref.ref(value), weakref.WeakValueDictionary(a=value)])(collections.Counter('a'))",
        "it[1]() is it[0] and it[2]['a'] is it[0]",
    ),
    "what only the module types has a name for": (
        "[types.FunctionType, types.CellType, types.MappingProxyType({'a': 1}), types.MethodType(len, [1])]",
        "it[0] is types.FunctionType and it[2]['a'] == 1 and it[3]() == 1",
    ),
    "what has iterators": (
        "[range(3), iter([1, 2]), slice(1, 2), map(str, [1]), reversed([1, 2])]",
        "list(it[1]) == [1, 2]",
    ),
    "generic aliases": ("[list[int], int | None, typing.Optional[int], typing.Dict[str, int]]", "it[0] == list[int]"),
    "patterns": ("re.compile('a+', re.I)", "it.match('AA')"),
    "numpy arrays": ("[numpy.arange(5), numpy.float64(2.5), numpy.dtype('i4'), numpy.add]", "it[0].sum() == 10"),
    "modules by name": ("[os.path, [collections.abc]]", "it[0] is os.path and it[1][0] is collections.abc"),
    "loggers": ("logging.getLogger('some.name')", "it is logging.getLogger('some.name')"),
}

# name: definitions, the expression, the check
NEED_SHOAL = {
    "lambdas": ("", "lambda x: x + 1", "it(1) == 2"),
    "functions of a script": ("def f(n):\n    return n * k\nk = 3", "f", "it(2) == 6"),
    "classes of a script": ("class C:\n    x = 4", "C", "it.x == 4"),
    "their instances": ("class C:\n    def __init__(self):\n        self.x = 4", "C()", "it.x == 4"),
    "code": ("def f():\n    return 7", "f.__code__", "eval(it) == 7"),
    "cells": ("def f():\n    x = 5\n    return lambda: x", "f().__closure__[0]", "it.cell_contents == 5"),
    "modules by value": ("m = types.ModuleType('made'); m.x = 6", "m", "it.x == 6"),
    "importable objects that hold one": ("", "functools.partial(lambda x: x, 8)", "it() == 8"),
}

IMPORTS = """
import argparse, collections, collections.abc, datetime, decimal, fractions, functools, json, logging, numpy, operator
import os, pathlib, re, socket, sys, types, typing, uuid, weakref
from collections import Counter, OrderedDict, defaultdict, deque
"""

DUMP = """
import pickle, shoal
cases = pickle.load(open(sys.argv[1], "rb"))
streams = {}
for name, (definitions, expression, check) in cases.items():
    exec(definitions)
    streams[name] = [shoal.dumps(eval(expression), protocol) for protocol in range(6)]
pickle.dump(streams, open(sys.argv[2], "wb"))
"""

# argument 1: 1 where Shoal is to be found
LOAD = """
import importlib.machinery, importlib.util, pickle
if sys.argv[1] != "1":
    sys.path[:] = [path for path in sys.path if importlib.machinery.PathFinder.find_spec("shoal", [path]) is None]
assert (importlib.util.find_spec("shoal") is not None) == (sys.argv[1] == "1")
cases = pickle.load(open(sys.argv[2], "rb"))
results = {}
for name, streams in pickle.load(open(sys.argv[3], "rb")).items():
    for name_of_module in [each for each in sys.modules if each.partition(".")[0] == "shoal"]:
        del sys.modules[name_of_module]
    results[name] = found = []
    for stream in streams:
        try:
            it = pickle.loads(stream)
            found.append("loaded" if eval(cases[name][2]) else f"wrong: {it!r}")
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
pickle.dump(results, open(sys.argv[4], "wb"))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The streams of each case, and what became of them in a process without and in one with Shoal."""
    directory = tmp_path_factory.mktemp("streams")
    cases = {name: ("", *case) for name, case in ALONE.items()} | NEED_SHOAL
    (directory / "cases").write_bytes(pickle.dumps(cases))

    def run(source, name, *arguments):
        (directory / "script.py").write_text(IMPORTS + source)
        command = [sys.executable, "script.py", *map(str, arguments), name]
        subprocess.run(command, cwd=directory, check=True, timeout=60)
        return pickle.loads((directory / name).read_bytes())

    streams = run(DUMP, "streams", "cases")
    return streams, *(run(LOAD, f"loaded{found}", found, "cases", "streams") for found in (0, 1))


@pytest.mark.parametrize("name", ALONE)
def test_these_streams_need_no_shoal(outcome, name):
    streams, without, with_shoal = (each[name] for each in outcome)
    assert not [stream for stream in streams if b"shoal" in stream]
    assert without == with_shoal == ["loaded"] * 6


@pytest.mark.parametrize("name", NEED_SHOAL)
def test_these_streams_import_shoal_by_themselves(outcome, name):
    _, without, with_shoal = (each[name] for each in outcome)
    assert with_shoal == ["loaded"] * 6
    assert without == ["ModuleNotFoundError: No module named 'shoal'"] * 6


def test_the_streams_of_this_process_are_the_same():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert b"shoal" not in shoal.dumps([1, "x", {2.5: None}, pytest.raises, ValueError("x")], protocol)
        assert b"shoal._rebuild" in shoal.dumps(lambda: 1, protocol)


def test_the_documentation_names_each_kind():
    text = (pathlib.Path(__file__).parents[2] / "docs/pickling.md").read_text()
    section = text[text.index("## Streams without Shoal") : text.index("## Dispatch tables")]
    missing = [name for name in (*ALONE, *NEED_SHOAL) if name not in section]
    assert not missing, f"docs/pickling.md does not mention {missing}"
