# SPDX-License-Identifier: BSD-3-Clause
"""Instances whose states are never made as dicts come back as pickle makes them, whatever a stream does with a state.

Each stream is loaded by both, from memory and from a file, and what comes back is compared part by part.
"""

import gc
import io
import pickle
import sys
import weakref

import pytest

import shoal
from leaking import blocks_grow


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class WithProperty:
    log = []

    @property
    def a(self):
        return "a property"

    @a.setter
    def a(self, value):
        self.log.append(value)


class WithSetattr:
    def __setattr__(self, name, value):
        object.__setattr__(self, name, ("set", value))


class WithSetstate:
    def __setstate__(self, state):
        self.state = dict(state)


class WithSlotToo(Plain):
    __slots__ = ("a",)


class WithMethod:
    def a(self):
        return "shadowed by an attribute"


class WithGetattr:
    def __getattribute__(self, name):
        return object.__getattribute__(self, name)


class Changing:
    """Its instances make it another class while they are loaded."""


def change():
    Changing.a = property(lambda self: "changed", lambda self, value: None)
    return "changed"


class EvilName(str):
    """Like a str, but comparing it runs code."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        gc.collect()
        return str.__eq__(self, other)


class Evil:
    locals()[EvilName("a")] = None


def touch(obj):
    obj.a = "touched"
    return obj


def touch_all():
    for obj in gc.get_objects():
        if type(obj) is Plain and "a" in obj.__dict__:
            obj.a = "touched"
    return None


def glob(name):
    return b"\x8c\x1atest_loads_instances_names\x8c" + bytes([len(name)]) + name.encode() + b"\x93"


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


sys.modules["test_loads_instances_names"] = sys.modules[__name__]
START = b"\x80\x04"
NEW = b")\x81"  # of the class on the stack
A, B = text("a"), text("b")
MANY = [sys.intern(f"n{number}") for number in range(100)]  # so that their identities are the same each time
FILLED = b"(" + A + b"K\x01" + B + b"]u"

STREAMS = {
    "built and not fetched": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"b.",
    "not put": glob("Plain") + NEW + b"}" + FILLED + b"b.",
    "put by number": glob("Plain") + NEW + b"q\x00}q\x01" + FILLED + b"b.",
    "put by long number": glob("Plain") + NEW + b"r\0\0\0\0}r\1\0\0\0" + FILLED + b"bh\x01\x86.",
    "only the state put": glob("Plain") + NEW + b"}\x94" + FILLED + b"bh\x00\x86.",
    "fetched twice": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"bh\x01h\x01\x87.",
    "fetched in itself": glob("Plain") + NEW + b"\x94}\x94(" + A + b"h\x01" + B + b"h\x00ubh\x01\x86.",
    "fetched in itself, as a key": glob("Plain") + NEW + b"\x94}\x94(" + A + b"}h\x01K\x01sub.",
    "nested": glob("Plain")
    + b"\x94"
    + NEW
    + b"\x94}\x94("
    + A
    + b"h\x00"
    + NEW
    + b"\x94}\x94"
    + FILLED
    + b"b"
    + B
    + b"h\x00"
    + NEW
    + b"\x94}\x94"
    + FILLED
    + b"bub(h\x02h\x04h\x06t\x86.",
    "many": b"(" + glob("Plain") + b"\x94" + (b"h\x00" + NEW + b"\x94}\x94(" + A + b"K\x01ub") * 50 + b"h\x02h\x06l.",
    "memory of before": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"b" + glob("touch") + b"h\x00\x85Rh\x01\x86.",
    "touched by others": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"b" + glob("touch_all") + b")Rh\x01\x87.",
    "touched while open": glob("Plain")
    + NEW
    + b"\x94}\x94("
    + B
    + glob("touch")
    + b"h\x00\x85R"
    + A
    + b"K\x02ubh\x01\x86.",
    "user code in each": b"("
    + glob("Plain")
    + b"\x94"
    + (b"h\x00" + NEW + b"\x94}\x94(" + A + glob("Plain") + b")R" + B + b"K\x02ub") * 9
    + b"h\x02h\x04l.",
    "built twice": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"b}" + A + b"K\x09sbh\x01\x86.",
    "built by two states": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"bh\x01b}(" + A + b"K\x09ubh\x01\x86.",
    "never built": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"\x86.",
    "built later": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"(" + B + b"K\x07ubh\x01\x86.",
    "an empty state": glob("Plain") + NEW + b"\x94}\x94(ubh\x01\x86.",
    "the mark taken by a tuple": glob("Plain") + NEW + b"\x94}\x94(K\x01K\x02t\x87.",
    "the mark taken by a list": glob("Plain") + NEW + b"\x94}\x94(K\x01lh\x01\x86\x87.",
    "the mark dropped": glob("Plain") + NEW + b"\x94}\x94(K\x011h\x01\x87.",
    "the mark popped": glob("Plain") + NEW + b"\x94}\x94(0h\x01\x87.",
    "the mark left": glob("Plain") + NEW + b"\x94}\x94(" + A + b"K\x01\x86.",
    "put over": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"bK\x07q\x000K\x08q\x010h\x00h\x01\x87.",
    "put over while open": glob("Plain") + NEW + b"\x94}\x94(" + A + b"]q\x01" + B + b"K\x02ubh\x01\x86.",
    "the instance put over while open": glob("Plain") + NEW + b"\x94}\x94(" + A + b"]q\x00" + B + b"K\x02ubh\x01\x86.",
    "dropped": glob("Plain") + NEW + b"\x94}\x94" + FILLED + b"b0h\x01h\x00\x86.",
    "a key twice": glob("Plain") + NEW + b"\x94}\x94(" + A + b"K\x01" + B + b"K\x02" + A + b"K\x03ubh\x01\x86.",
    "the same key twice": glob("Plain") + NEW + b"\x94}\x94(" + A + b"\x94K\x01h\x02K\x03ubh\x01\x86.",
    "no str as key": glob("Plain") + NEW + b"\x94}\x94(K\x01K\x01ubh\x01\x86.",
    "no hash": glob("Plain") + NEW + b"\x94}\x94(]K\x01ub.",
    "odd": glob("Plain") + NEW + b"\x94}\x94(" + A + b"ub.",
    "far names": glob("Plain") + NEW + b"p9999\n}p7\n" + FILLED + b"bg7\n\x86.",
    "shapes in turn": b"("
    + glob("Plain")
    + b"\x94"
    + A
    + b"\x94"
    + B
    + b"\x94"
    + (b"h\x00" + NEW + b"}(h\x01K\x01ub" + b"h\x00" + NEW + b"}(h\x02K\x01h\x01K\x02ub") * 9
    + b"l.",
    "a key of its own in each": b"(" + glob("Plain") + b"\x94" + (b"h\x00" + NEW + b"}" + FILLED + b"b") * 200 + b"l.",
    "many attributes": glob("Plain")
    + NEW
    + b"\x94}\x94("
    + b"".join(text(name) + b"K\x01" for name in MANY)
    + b"ubh\x01\x86.",
    "changing": b"("
    + glob("Changing")
    + b"\x94"
    + b"h\x00"
    + NEW
    + b"\x94}\x94"
    + FILLED
    + b"b"
    + b"h\x00"
    + NEW
    + b"\x94}\x94("
    + B
    + glob("change")
    + b")R"
    + A
    + b"K\x07ubh\x02h\x04l.",
    "dict with odd keys": glob("Plain")
    + NEW
    + b"\x94}\x94"
    + FILLED
    + b"b}"
    + glob("EvilName")
    + A
    + b"\x85RK\x01s"
    + A
    + b"K\x02sh\x01\x87.",
    "object": b"\x8c\x08builtins\x8c\x06object\x93" + NEW + b"\x94}\x94" + FILLED + b"b.",
}
for class_name in ("WithProperty", "WithSetattr", "WithSetstate", "WithSlotToo", "WithMethod", "WithGetattr", "Evil"):
    STREAMS[class_name] = glob(class_name) + NEW + b"\x94}\x94" + FILLED + b"bh\x01\x86."
    STREAMS[class_name + " with one key"] = glob(class_name) + NEW + b"\x94}\x94(" + B + b"K\x01ubh\x01\x86."


def facts(value, seen=None):
    """What it is made of; what occurred before is a number, so that sharing counts."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    kind = type(value)
    if kind in (list, tuple):
        return kind.__name__, [facts(item, seen) for item in value]
    if kind is dict:
        return "dict", [(facts(key, seen), facts(item, seen)) for key, item in value.items()]
    if kind.__module__ == __name__ and hasattr(value, "__dict__"):
        return kind.__name__, getattr(value, "a", None) is not None, facts(value.__dict__, seen)
    return kind.__name__, repr(value) if kind is not object else ""


def outcome(load, stream):
    if hasattr(Changing, "a"):
        del Changing.a
    WithProperty.log.clear()
    try:
        value = load(stream)
    except Exception as error:
        return type(error), list(WithProperty.log)
    return facts(value), list(WithProperty.log)


@pytest.mark.parametrize("load", [shoal.loads, lambda stream: shoal.load(io.BytesIO(stream))], ids=["loads", "load"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_makes_what_pickle_makes_of_it(name, load):
    stream = START + STREAMS[name]
    assert outcome(load, stream) == outcome(pickle.loads, stream)
    assert gc.isenabled()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_short_anywhere_ends_with_an_exception(name):
    stream = START + STREAMS[name]
    for length in range(len(stream) - 1):
        with pytest.raises(Exception):  # noqa: B017, PT011
            shoal.loads(stream[:length])


@pytest.mark.parametrize("name", STREAMS)
def test_nothing_of_a_stream_stays(name):
    stream = START + STREAMS[name]

    def work():
        for _ in range(20):  # some of these streams run the garbage collection themselves
            outcome(shoal.loads, stream)

    assert not blocks_grow(work, by=10)


def test_attribute_names_are_interned_and_the_state_keeps_its_own():
    stream = START + glob("Plain") + NEW + b"\x94}\x94(" + text("some_attribute") + b"\x94K\x01ubh\x01h\x02\x87."
    obj, state, name = shoal.loads(stream)
    (own,) = vars(obj)
    assert own is sys.intern("some_attribute")
    assert next(iter(state)) is name


def test_instances_are_tracked_by_the_collector_and_die():
    obj = shoal.loads(START + glob("Plain") + NEW + b"\x94}\x94(" + A + b"h\x00ub.")
    assert obj.a is obj
    assert gc.is_tracked(obj)
    seen = weakref.ref(obj)
    del obj
    gc.collect()
    assert seen() is None


def test_a_state_that_is_built_in_takes_no_dict_with_it():
    """Attributes that lie in the instance itself (from 3.11 on) stay there: a list of them is as small as pickle's."""
    stream = pickle.dumps([Plain(a=i, b=i) for i in range(100)])

    def size(load):
        load(stream)
        gc.collect()
        before = sys.getallocatedblocks()
        kept = load(stream)
        assert len(kept) == 100
        return sys.getallocatedblocks() - before

    assert size(shoal.loads) <= size(pickle.loads) + 5
