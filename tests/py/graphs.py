# SPDX-License-Identifier: BSD-3-Clause
"""Random object graphs for the pickler's tests, and how two of them are compared.

A graph is built from a list of steps: each makes an object of what earlier steps made, so that parts are shared; then
links are put from containers to any object, so that there are cycles.
"""

import collections
import contextlib
import copyreg
import dataclasses
import datetime
import enum
import fractions
import functools
import operator
import types

import numpy
from hypothesis import strategies as st

# ---- objects of every kind that pickle knows ----


class Plain:
    pass


class Slots:
    __slots__ = ("a", "b")


class SlotsAndDict(Slots):
    __slots__ = ("__dict__",)


class ListChild(list):
    pass


class DictChild(dict):
    pass


class TupleChild(tuple):
    __slots__ = ()


class IntChild(int):
    pass


class StrChild(str):
    pass


class SetChild(set):
    pass


class Named:
    """Has its hash from its construction on, so that it may be an element of what it holds."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return self.name

    def __eq__(self, other):
        return self is other

    def __reduce__(self):
        return Named, (self.name,), {key: value for key, value in vars(self).items() if key != "name"}


class OwnState:
    def __getstate__(self):
        return [vars(self), 1]

    def __setstate__(self, state):
        vars(self).update(state[0])


class StateIsItsDict:
    def __getstate__(self):
        return self.__dict__


class WithSetter:
    def __reduce__(self):
        return WithSetter, (), vars(self), None, None, set_state


def set_state(obj, state):
    vars(obj).update(state)


class WithItems:
    """All that a reduce value may have, but for the setter."""

    def __init__(self):
        self.list, self.dict = [], {}

    def append(self, item):
        self.list.append(item)

    def __setitem__(self, key, value):
        self.dict[key] = value

    def __reduce__(self):
        return WithItems, (), {"again": self.list[:1]}, iter(self.list), iter(self.dict.items())

    def __setstate__(self, state):
        self.__dict__.update(state)


class NewArgs(tuple):
    __slots__ = ()

    def __new__(cls, *items, tail=None):
        return super().__new__(cls, (*items, tail))

    def __getnewargs_ex__(self):
        return tuple(self[:-1]), {"tail": self[-1]}


class Outer:
    class Middle:
        class Inner:
            def method(self):
                """Below protocol 4 reached by calls of getattr."""


class Registered:
    def __init__(self, part):
        self.part = part


copyreg.pickle(Registered, lambda obj: (Registered, (obj.part,)))


class Singleton:
    def __reduce__(self):
        return "SINGLETON"


SINGLETON = Singleton()


@dataclasses.dataclass
class Data:
    a: object
    b: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: object
    b: int = 0


Pair = collections.namedtuple("Pair", "first second")


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


def filled(cls):
    def make(parts):
        obj = cls()
        for name, part in zip(("a", "b"), parts, strict=False):
            setattr(obj, name, part)
        return obj

    return make


def hashable(obj):
    """Has a hash that is the same for a copy?"""
    if isinstance(obj, (tuple, frozenset)):
        return all(map(hashable, obj))
    if type(obj) is Frozen:
        return hashable(obj.a)
    return isinstance(obj, (Named, int, float, str, bytes, type(None), enum.Enum, type))


def with_items(parts):
    obj = WithItems()
    obj.list.extend(parts)
    obj.dict.update(enumerate(parts))
    return obj


def slots_and_dict(parts):
    obj = filled(SlotsAndDict)(parts[:1])
    obj.other = list(parts[1:])
    return obj


def view(parts):
    return numpy.arange(len(parts) * 6).reshape(2, -1)[:, ::2]


MAKERS = [
    list,
    tuple,
    lambda parts: list(parts) * 2,
    lambda parts: dict(enumerate(parts)),
    lambda parts: {part: part for part in parts if hashable(part)},
    lambda parts: {part for part in parts if hashable(part)},
    lambda parts: frozenset(part for part in parts if hashable(part)),
    lambda parts: SetChild(part for part in parts if hashable(part)),
    lambda parts: collections.OrderedDict(enumerate(parts)),
    lambda parts: collections.deque(parts, 7),
    lambda parts: collections.defaultdict(list, enumerate(parts)),
    lambda parts: collections.ChainMap({"parts": parts}),
    lambda parts: types.SimpleNamespace(parts=parts),
    lambda parts: functools.partial(operator.is_, *parts),
    lambda parts: Pair(parts, len(parts)),
    lambda parts: Data(parts),
    lambda parts: Data(parts, parts),
    lambda parts: Frozen(tuple(parts)),
    lambda parts: Registered(parts),
    lambda parts: NewArgs(*parts, tail=parts),
    lambda parts: ValueError(*parts),
    lambda parts: TupleChild(parts),
    lambda parts: DictChild(enumerate(parts)),
    lambda parts: Named(len(parts)),
    lambda parts: IntChild(len(parts)),
    lambda parts: StrChild(len(parts)),
    ListChild,
    with_items,
    slots_and_dict,
    *map(filled, (Plain, Slots, OwnState, StateIsItsDict, WithSetter, Outer.Middle.Inner)),
    # without parts of their own
    view,
    lambda parts: numpy.asfortranarray(numpy.ones((2, len(parts) + 1))),
    lambda parts: numpy.array([*map(len, map(repr, map(type, parts))), "x"], dtype=object),
    lambda parts: bytearray(b"ab" * len(parts)),
    lambda parts: fractions.Fraction(len(parts), 3),
    lambda parts: datetime.datetime(2000, 1, 1 + len(parts), tzinfo=datetime.timezone.utc),
    lambda parts: range(len(parts)),
]

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=6),
    st.binary(max_size=6),
    st.sampled_from(["x" * 300, b"y" * 300, "\ud800\u20ac", ..., NotImplemented, Colour.BLUE, Bits.ONE | Bits.TWO]),
    st.sampled_from([SINGLETON, len, Plain, type(None), Plain.__init__, str.upper, datetime.date(2000, 1, 1)]),
    st.sampled_from([Outer.Middle, Outer.Middle.Inner, Outer.Middle.Inner.method, fractions.Fraction.from_float]),
)
STEP = st.tuples(st.sampled_from(MAKERS), st.lists(st.integers(0, 40), max_size=4))
LINKS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6)


# Not changed.
NOT_LINKED = (type, enum.Enum, Frozen, types.FunctionType)


def link(holder, part):
    if isinstance(holder, (list, collections.deque)):
        holder.append(part)
    elif isinstance(holder, dict):
        holder[len(holder)] = part
    elif isinstance(holder, set) and hashable(part):
        holder.add(part)
    elif hasattr(holder, "__dict__") and not isinstance(holder, NOT_LINKED):
        with contextlib.suppress(AttributeError, TypeError):
            holder.linked = part


@st.composite
def graphs(draw):
    made = draw(st.lists(ATOMS, min_size=1, max_size=5))
    for make, wanted in draw(st.lists(STEP, max_size=8)):
        made.append(make([made[number % len(made)] for number in wanted]))
    for holder, part in draw(LINKS):
        if made[holder % len(made)] is not SINGLETON:
            link(made[holder % len(made)], made[part % len(made)])
    return made[-1] if draw(st.booleans()) else made


# ---- the shape of a graph ----


def shape(root, strings=True):
    """Nested tuples that are equal for two graphs of the same form. strings=False: those may be shared or not."""
    numbers, alive = {}, []

    def visit(obj):
        kind = type(obj)
        if kind in (int, float, complex, bool) or obj is None or isinstance(obj, (type, enum.Enum)) or callable(obj):
            return (
                ("partial", *map(visit, (obj.args, obj.__dict__))) if kind is functools.partial else (kind, repr(obj))
            )
        if kind in (str, bytes) and (not strings or len(obj) < 2):
            return kind, obj
        if id(obj) in numbers:
            return "seen", numbers[id(obj)]
        numbers[id(obj)] = len(numbers)
        alive.append(obj)
        return (kind, *value_of(obj), *(visit(part) for part in parts_of(obj)))

    return visit(root)


def value_of(obj):
    if isinstance(obj, numpy.ndarray):
        return obj.dtype.str, obj.shape, obj.strides, obj.flags.writeable, obj.tolist()
    if isinstance(obj, (str, bytes, bytearray, int)):
        return (type(obj).__base__(obj) if type(obj).__base__ is not object else obj,)
    if isinstance(obj, (fractions.Fraction, datetime.date, range)):
        return (repr(obj),)
    return ()


def parts_of(obj):
    if isinstance(obj, dict):
        yield from (part for pair in dict.items(obj) for part in pair)
    elif isinstance(obj, (list, tuple, set, frozenset, collections.deque)):
        yield from obj
    elif isinstance(obj, BaseException):
        yield obj.args
    for name in ("a", "b") if isinstance(obj, Slots) else ():
        yield getattr(obj, name, "no such slot")
    yield from getattr(obj, "__dict__", {}).items() if not isinstance(obj, numpy.ndarray) else ()
