# SPDX-License-Identifier: BSD-3-Clause
"""Streams of 100,000 levels load and what they made goes away again, in the main thread and in others."""

import gc
import io
import sys
import threading

import pytest

import shoal

DEPTH = 100_000
STACK = 256 * 1024 if sys.version_info < (3, 13) else 0  # from 3.13 on deallocation alone may take more than 1 MiB


class Plain:
    pass


class Slots:
    __slots__ = ("next",)


class Rows(list):
    pass


class Table(dict):
    pass


def levels(before, after, middle=b"N"):
    return b"\x80\x04" + before * DEPTH + middle + after * DEPTH + b"."


def named(cls, before, after):
    """The class is number 0 of the memo."""
    name = cls.__name__.encode()
    head = b"c" + __name__.encode() + b"\n" + name + b"\n\x94"
    return b"\x80\x03" + head + before * DEPTH + b"N" + after * DEPTH + b"."


STREAMS = {
    "lists": levels(b"]\x94", b"a"),
    "lists by batches": levels(b"](", b"e"),
    "tuples": levels(b"", b"\x85"),
    "tuples by marks": levels(b"(", b"t"),
    "dicts": levels(b"}\x94K\x01", b"s"),
    "dicts by batches": levels(b"}(K\x01", b"u"),
    "frozensets": levels(b"(", b"\x91"),
    "lists in tuples": levels(b"](", b"\x85e"),
    "instances": named(Plain, b"h\x00)\x81\x94}\x94(\x8c\x04next", b"ub"),
    "instances whose states are fetched": named(Plain, b"h\x00)\x81\x94}\x94(\x8c\x04next", b"ub0h\x02"),
    "instances without numbers": named(Plain, b"h\x00)\x81}\x8c\x04next", b"sb"),
    "slots": named(Slots, b"h\x00)\x81N}\x8c\x04next", b"s\x86b"),
    "list subclass": named(Rows, b"h\x00)\x81", b"a"),
    "dict subclass": named(Table, b"h\x00)\x81K\x01", b"s"),
}


def load_and_drop(stream, load):
    value = load(stream)
    kind = type(value)
    del value
    gc.collect()
    return kind


def in_thread(function, *args):
    """What it returns, or its exception, from a thread with such a stack."""
    result = []

    def run():
        try:
            result.append(function(*args))
        except Exception as error:
            result.append(error)

    before = threading.stack_size(STACK)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return result[0]


LOADERS = {"loads": shoal.loads, "load": lambda stream: shoal.load(io.BytesIO(stream))}


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", STREAMS)
def test_a_deep_stream_loads_and_its_objects_go(name, load):
    kind = load_and_drop(STREAMS[name], LOADERS[load])
    assert in_thread(load_and_drop, STREAMS[name], LOADERS[load]) is kind


@pytest.mark.parametrize("name", STREAMS)
def test_a_deep_stream_that_breaks_off_leaves_nothing(name):
    half = STREAMS[name][: len(STREAMS[name]) // 2]
    for run in (load_and_drop, lambda *args: in_thread(load_and_drop, *args)):
        try:
            outcome = run(half, shoal.loads)
        except (EOFError, shoal.UnpicklingError) as error:
            outcome = error
        assert isinstance(outcome, (EOFError, shoal.UnpicklingError))


def test_a_list_of_a_hundred_thousand_links_keeps_its_order():
    stream = b"\x80\x03c" + __name__.encode() + b"\nPlain\n\x94"
    numbers = (b"M%c%c" % (i & 255, i >> 8) for i in range(65_536))
    links = b"".join(b"h\x00)\x81}(\x8c\x06number" + number + b"\x8c\x04next" for number in numbers)
    value = shoal.loads(stream + links + b"N" + b"ub" * 65_536 + b".")
    count = 0
    while value is not None:
        assert value.number == count
        value, count = value.next, count + 1
    assert count == 65_536
