# SPDX-License-Identifier: BSD-3-Clause
"""Dumping keeps nothing: no object, no reference, no memory, whether it succeeds or fails."""

import gc
import io
import pickle
import sys
import threading
import types
import typing
import weakref

import pytest

import shoal
from leaking import leaks

PROTOCOLS = (0, 2, 3, 5)


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Reduced:
    def __reduce__(self):
        return Plain, (), {"a": [1]}, iter(()), iter(())


def local_function():
    cell = [1]

    def function(x, y=cell):
        return cell, Plain, x, y

    return function


def local_class():
    class Local:
        attribute = [1]

        def method(self):
            return Local

    return Local


MAKERS = {
    "containers": lambda: [1, "two", 3.0, (4, b"five"), {"six": {7}}, frozenset({8}), bytearray(b"9"), 10**50],
    "instance": lambda: [Plain(a=1, b=[2]), Plain(a=3)],
    "reduce": lambda: Reduced(),
    "global": lambda: [len, Plain, pickle.dumps, type(None)],
    "function": local_function,
    "class": lambda: local_class()(),
    "module": lambda: types.ModuleType("leaky"),
    "views": lambda: [{"a": 1}.keys(), {"a": 1}.values(), types.MappingProxyType({}), memoryview(b"x")],
    "descriptors": lambda: [property(local_function()), classmethod(local_function()), staticmethod(local_function())],
    "cell and code": lambda: [local_function().__closure__[0], local_function().__code__],
    "type parameter": lambda: typing.TypeVar("Leaky"),
}
FAILURES = {
    "lock in a list": lambda: [local_function(), {"k": (threading.Lock(),)}],
    "lock in an attribute": lambda: Plain(a=threading.Lock()),
    "lock in a closure": lambda: (lambda lock: lambda: lock)(threading.Lock()),
    "lock in a class": lambda: type("WithLock", (), {"lock": threading.Lock()}),
}


def dump_quietly(obj, protocol):
    try:
        shoal.dumps(obj, protocol)
    except (TypeError, pickle.PicklingError):
        pass


def test_a_leak_would_be_seen():
    kept = []
    assert leaks(lambda: kept.append(object()))
    assert not leaks(lambda: object())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", [*MAKERS, *FAILURES])
def test_memory_does_not_grow(name, protocol):
    make = {**MAKERS, **FAILURES}[name]
    assert not leaks(lambda: dump_quietly(make(), protocol))


@pytest.mark.parametrize("name", ["instance", "reduce", "function", "class", "module", "type parameter"])
def test_what_was_dumped_can_die(name):
    obj = MAKERS[name]()
    seen = weakref.ref(obj[0] if isinstance(obj, list) else obj)
    shoal.dumps(obj)
    del obj
    gc.collect()
    assert seen() is None


def test_reference_counts_are_as_before():
    parts = [object(), "text of its own".upper(), 10**40, (1, [2]), {"k": "v"}, b"bytes".upper()]
    value = [parts[1], parts[2], parts[3], parts[4], parts[5], Plain(a=parts[1])]
    shoal.dumps(value)
    before = [sys.getrefcount(part) for part in parts] + [sys.getrefcount(value)]
    for protocol in PROTOCOLS:
        shoal.dumps(value, protocol)
        shoal.dump(value, io.BytesIO(), protocol)
        with pytest.raises((TypeError, pickle.PicklingError)):
            shoal.dumps([value, threading.Lock()], protocol)
    assert [sys.getrefcount(part) for part in parts] + [sys.getrefcount(value)] == before


def test_a_pickler_dies_with_its_memo_and_hooks():
    class Hooked(shoal.Pickler):
        def persistent_id(self, obj):
            return None

        def reducer_override(self, obj):
            return NotImplemented

    plain = Plain(a=1)
    pickler = Hooked(io.BytesIO())
    pickler.dispatch_table = {}
    pickler.dump([plain])
    seen = [weakref.ref(pickler), weakref.ref(plain)]
    gc.disable()
    try:
        del pickler, plain
        assert [reference() for reference in seen] == [None, None]
    finally:
        gc.enable()


def test_a_pickler_in_a_cycle_is_collected():
    class Owner:
        pass

    owner = Owner()
    owner.pickler = shoal.Pickler(io.BytesIO())
    owner.pickler.dump(owner.__class__ and [1])
    owner.pickler.dispatch_table = {"owner": owner}
    owner.memo = owner.pickler.memo
    seen = weakref.ref(owner)
    del owner
    gc.collect()
    assert seen() is None


def test_errors_hold_nothing_of_what_was_dumped():
    plain = Plain(a=1)
    seen = weakref.ref(plain)
    with pytest.raises(TypeError):
        shoal.dumps([plain, threading.Lock()])
    del plain
    gc.collect()
    assert seen() is None
