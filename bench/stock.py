# SPDX-License-Identifier: BSD-3-Clause
"""Every stock type that pickle can send, dumps and loads, against C pickle: `python bench/stock.py [NAME...]`.

Unlike the rows of run.py all is measured in one process: these are two hundred comparisons of a microsecond each, and
what counts is only that none of ours is slower. The two take turns, some hundred short rounds each, and the least time
of each side is compared: noise only adds.

Leaves with 1 if a ratio is under 1.0 (`--at-least X`).
"""

import argparse
import array
import ast
import collections
import configparser
import datetime
import decimal
import email.message
import enum
import fractions
import functools
import http
import ipaddress
import itertools
import json
import operator
import pathlib
import pickle
import random
import re
import signal
import statistics
import string
import sys
import time
import types
import typing
import urllib.parse
import uuid
import zoneinfo
from collections.abc import Callable

PROTOCOL = 5
UTC = datetime.timezone.utc


def raised(function: Callable[[], object]) -> BaseException:
    """As it comes from the interpreter: with a name, and what was wrong; but without a traceback and its frames."""
    try:
        function()
    except BaseException as error:
        return error.with_traceback(None)
    raise AssertionError("nothing was raised")


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Bits(enum.Flag):
    ONE = 1
    TWO = 2


class Slots:
    __slots__ = ("x", "y")


class Plain:
    pass


class WithReduce:
    def __reduce__(self):
        return WithReduce, ()


class WithState:
    def __getstate__(self):
        return (1, 2)

    def __setstate__(self, state):
        pass


class OwnError(Exception):
    pass


class ListChild(list):
    pass


class DictChild(dict):
    pass


class StrChild(str):
    pass


Pair = collections.namedtuple("Pair", "first second")


def slots() -> Slots:
    obj = Slots()
    obj.x, obj.y = 1, "b"
    return obj


def plain() -> Plain:
    obj = Plain()
    obj.x, obj.y = 1, "b"
    return obj


def numpy_value(make: Callable) -> Callable[[], object]:
    def value():
        import numpy

        return make(numpy)

    return value


def with_note() -> BaseException:
    error = ValueError("bad")
    error.extra = 5
    return error


DATA: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "True": lambda: True,
    "...": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "int": lambda: 12345,
    "int-negative": lambda: -5,
    "int-64-bit": lambda: 1 << 62,
    "int-1000-bit": lambda: 1 << 1000,
    "float": lambda: 2.5,
    "complex": lambda: 1 + 2j,
    "str": lambda: "some text",
    "str-wide": lambda: "süß \u20ac \U0001f600" * 5,
    "str-10k": lambda: "x" * 10_000,
    "str-10k-wide": lambda: "\u20ac" * 10_000,
    "bytes": lambda: b"some bytes",
    "bytes-100k": lambda: b"x" * 100_000,
    "bytearray": lambda: bytearray(b"some bytes"),
    "bytearray-100k": lambda: bytearray(100_000),
    "PickleBuffer": lambda: pickle.PickleBuffer(b"some bytes"),
    "PickleBuffer-writable": lambda: pickle.PickleBuffer(bytearray(b"some bytes")),
    "PickleBuffer-100k": lambda: pickle.PickleBuffer(b"x" * 100_000),
    "PickleBuffer-1M": lambda: pickle.PickleBuffer(bytearray(1_000_000)),
    "list": lambda: [1, 2, 3],
    "list-empty": list,
    "tuple": lambda: (1, 2, 3),
    "tuple-empty": tuple,
    "tuple-nested": lambda: ((1, 2), (3, (4, 5))),
    "dict": lambda: {"a": 1, "b": 2},
    "dict-of-ints": lambda: {number: number for number in range(20)},
    "set": lambda: {1, 2, 3},
    "set-of-str": lambda: set(string.ascii_letters),
    "frozenset": lambda: frozenset((1, 2, 3)),
    "range": lambda: range(5),
    "slice": lambda: slice(1, 2, 3),
    "list-iterator": lambda: iter([1, 2, 3]),
    "array": lambda: array.array("d", [1.0, 2.0]),
    "array-1000": lambda: array.array("i", range(1000)),
    "deque": lambda: collections.deque([1, 2, 3]),
    "deque-maxlen": lambda: collections.deque([1, 2, 3], 5),
    "defaultdict": lambda: collections.defaultdict(list, {1: [2]}),
    "OrderedDict": lambda: collections.OrderedDict(a=1, b=2),
    "Counter": lambda: collections.Counter("abracadabra"),
    "ChainMap": lambda: collections.ChainMap({"a": 1}, {"b": 2}),
    "UserDict": lambda: collections.UserDict(a=1),
    "namedtuple": lambda: Pair(1, 2),
    "SimpleNamespace": lambda: types.SimpleNamespace(a=1, b=2),
    "list-child": lambda: ListChild([1, 2]),
    "dict-child": lambda: DictChild(a=1),
    "str-child": lambda: StrChild("abc"),
    "instance": plain,
    "instance-slots": slots,
    "instance-empty": Plain,
    "instance-reduce": WithReduce,
    "instance-state": WithState,
    "enum": lambda: Colour.RED,
    "int-enum": lambda: Level.HIGH,
    "flag": lambda: Bits.ONE | Bits.TWO,
    "http-status": lambda: http.HTTPStatus.OK,
    "signal": lambda: signal.SIGINT,
    "regex-flag": lambda: re.IGNORECASE,
    "datetime": lambda: datetime.datetime(2024, 2, 29, 12),
    "datetime-utc": lambda: datetime.datetime(2024, 2, 29, 12, tzinfo=UTC),
    "date": lambda: datetime.date(2024, 2, 29),
    "time": lambda: datetime.time(12, 30),
    "timedelta": lambda: datetime.timedelta(1, 2, 3),
    "timezone": lambda: datetime.timezone(datetime.timedelta(hours=1)),
    "zoneinfo": lambda: zoneinfo.ZoneInfo("UTC"),
    "struct-time": lambda: time.gmtime(0),
    "Decimal": lambda: decimal.Decimal("1.25"),
    "Fraction": lambda: fractions.Fraction(2, 3),
    "UUID": lambda: uuid.UUID(int=5),
    "IPv4Address": lambda: ipaddress.ip_address("127.0.0.1"),
    "IPv6Network": lambda: ipaddress.ip_network("fe80::/64"),
    "Path": lambda: pathlib.PurePosixPath("/usr/lib"),
    "regex": lambda: re.compile("a+b"),
    "Random": lambda: random.Random(5),
    "split-url": lambda: urllib.parse.urlsplit("http://a/b?c"),
    "ast": lambda: ast.parse("a + 1"),
    "message": email.message.Message,
    "config": configparser.ConfigParser,
    "partial": lambda: functools.partial(json.dumps, 1, indent=2),
    "itemgetter": lambda: operator.itemgetter(1),
    "attrgetter": lambda: operator.attrgetter("a.b"),
    "methodcaller": lambda: operator.methodcaller("f", 1),
    "template": lambda: string.Template("$a"),
    "count": lambda: itertools.count(5),
    "repeat": lambda: itertools.repeat(1, 5),
    "chain": lambda: itertools.chain([1], [2]),
    "zip": lambda: zip([1], [2], strict=False),
    "map": lambda: map(str, [1]),
    "enumerate": lambda: enumerate([1]),
    "reversed": lambda: reversed([1, 2]),
    "class": lambda: Plain,
    "class-builtin": lambda: int,
    "class-of-None": lambda: type(None),
    "class-enum": lambda: Colour,
    "function": lambda: json.dumps,
    "function-builtin": lambda: len,
    "function-C": lambda: operator.add,
    "method-descriptor": lambda: str.upper,
    "slot-wrapper": lambda: Plain.__init__,
    "method-of-instance": lambda: datetime.date(2000, 1, 1).isoformat,
    "method-python": lambda: fractions.Fraction(1, 2).limit_denominator,
    "classmethod": lambda: datetime.date.fromisoformat,
    "GenericAlias": lambda: list[int],
    "Union": lambda: int | str,
    "typing-List": lambda: typing.List[int],  # noqa: UP006
    "typing-Optional": lambda: typing.Optional[int],  # noqa: UP045
    "typing-Any": lambda: typing.Any,
}
ERRORS: dict[str, Callable[[], object]] = {
    "ValueError": lambda: ValueError("bad"),
    "ValueError-attribute": with_note,
    "KeyError": lambda: raised(lambda: {}["key"]),
    "IndexError": lambda: raised(lambda: [][1]),
    "ZeroDivisionError": lambda: raised(lambda: 1 / 0),
    "TypeError": lambda: raised(lambda: len(5)),  # type: ignore[arg-type]
    "AttributeError": lambda: AttributeError("bad"),
    "AttributeError-raised": lambda: raised(lambda: [].nothing),  # type: ignore[attr-defined]
    "NameError-raised": lambda: raised(lambda: nothing),  # type: ignore[name-defined]  # noqa: F821
    "ImportError": lambda: ImportError("bad"),
    "ImportError-name": lambda: ImportError("bad", name="module", path="/x"),
    "ModuleNotFoundError": lambda: raised(lambda: __import__("no_such_module")),
    "OSError": lambda: OSError(2, "bad"),
    "OSError-filename": lambda: OSError(2, "bad", "file"),
    "FileNotFoundError": lambda: raised(lambda: open("/no/such/file")),
    "UnicodeDecodeError": lambda: raised(lambda: b"\xff".decode()),
    "UnicodeEncodeError": lambda: raised(lambda: "\xff".encode("ascii")),
    "SyntaxError": lambda: SyntaxError("bad", ("file", 1, 2, "text")),
    "SyntaxError-raised": lambda: raised(lambda: compile("a b", "file", "exec")),
    "StopIteration": lambda: StopIteration(5),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "JSONDecodeError": lambda: raised(lambda: json.loads("{")),
    "own-error": lambda: OwnError("bad", 1),
    "ExceptionGroup": lambda: ExceptionGroup("some", [ValueError("bad"), TypeError("bad")]),  # noqa: F821
}
NUMPY: dict[str, Callable] = {
    "array": lambda np: np.arange(10.0),
    "array-8-kB": lambda np: np.arange(1000.0),
    "array-0-d": lambda np: np.array(5.0),
    "array-empty": lambda np: np.array([]),
    "array-2-d": lambda np: np.ones((3, 4), "f4"),
    "array-fortran": lambda np: np.asfortranarray(np.ones((30, 40))),
    "array-strided": lambda np: np.arange(100)[::2],
    "array-bool": lambda np: np.ones(10, bool),
    "array-text": lambda np: np.array(["a", "bc"]),
    "array-object": lambda np: np.array([1, "a", None], object),
    "array-record": lambda np: np.zeros(3, [("a", "i4"), ("b", "f8")]),
    "array-datetime": lambda np: np.array(["2024-01-01"], "M8[D]"),
    "array-masked": lambda np: np.ma.array([1, 2], mask=[0, 1]),
    "float64": lambda np: np.float64(1.5),
    "int32": lambda np: np.int32(5),
    "bool_": lambda np: np.bool_(True),
    "str_": lambda np: np.str_("abc"),
    "datetime64": lambda np: np.datetime64("2024-01-01"),
    "dtype": lambda np: np.dtype("f8"),
    "dtype-record": lambda np: np.dtype([("a", "i4"), ("b", "f8")]),
    "scalar-class": lambda np: np.float64,
    "ufunc": lambda np: np.add,
    "generator": lambda np: np.random.default_rng(5),
}
STOCK = DATA | ERRORS | {f"numpy-{name}": numpy_value(make) for name, make in NUMPY.items()}


def least(function: Callable, argument: object, calls: int, best: float) -> float:
    begin = time.perf_counter()
    for _ in itertools.repeat(None, calls):
        function(argument)
    return min(best, (time.perf_counter() - begin) / calls)


def in_turns(ours: tuple[Callable, object], theirs: tuple[Callable, object], rounds: int, seconds: float):
    """(Our least time of a call, theirs), in seconds."""
    calls = 1
    while (once := least(*theirs, calls, 1e9)) * calls < seconds and calls < 1 << 20:
        calls = max(calls * 2, int(seconds / once / 2))
    best = [1e9, 1e9]
    for _ in range(rounds):
        best[0] = least(*ours, calls, best[0])
        best[1] = least(*theirs, calls, best[1])
    return best


def measure(make: Callable[[], object], rounds: int, seconds: float) -> dict[str, list[float]]:
    import shoal

    value = make()
    dumps = functools.partial(shoal.dumps, protocol=PROTOCOL), functools.partial(pickle.dumps, protocol=PROTOCOL)
    times = {}
    times["dumps"] = in_turns((dumps[0], value), (dumps[1], value), rounds, seconds)
    ours, theirs = (function(value) for function in dumps)
    try:
        pickle.loads(theirs)
    except Exception:  # what pickle cannot read needs no speed
        return times
    times["loads"] = in_turns((shoal.loads, ours), (pickle.loads, theirs), rounds, seconds)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a value; all of them if none is given")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--at-least", type=float, default=1.0, metavar="RATIO")
    parser.add_argument("--slow", action="store_true", help="show only what is slower than that")
    options = parser.parse_args()
    if unknown := set(options.names) - set(STOCK):
        parser.error(f"there is no {', '.join(sorted(unknown))}, but {', '.join(STOCK)}")
    ratios: dict[str, list[float]] = {"dumps": [], "loads": []}
    slow = 0
    for name in options.names or STOCK:
        try:
            times = measure(STOCK[name], options.rounds, 3e-4)
        except (ImportError, NameError, TypeError) as error:
            print(f"{name:24} not here: {error}")
            continue
        for direction, (ours, theirs) in times.items():
            ratio = theirs / ours
            ratios[direction].append(ratio)
            slow += ratio < options.at_least
            if ratio < options.at_least or not options.slow:
                mark = "  <" if ratio < options.at_least else ""
                print(
                    f"{name:24} {direction} {ours * 1e9:10.0f} {theirs * 1e9:10.0f} ns {ratio:7.2f}x{mark}", flush=True
                )
    for direction, values in ratios.items():
        if values:
            mean = statistics.geometric_mean(values)
            print(f"{direction}: {len(values)} values, geometric mean {mean:.2f}x, least {min(values):.2f}x")
    return slow > 0


if __name__ == "__main__":
    import stock  # whose classes can be imported, so that they travel by reference

    sys.exit(stock.main())
