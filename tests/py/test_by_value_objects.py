# SPDX-License-Identifier: BSD-3-Clause
"""Objects that pickle refuses or loses something of, although they are easily made again (object_cases.py)."""

import contextlib
import contextvars
import functools
import io
import logging
import mmap
import os
import pickle
import re
import socket
import sys
import threading
import tracemalloc
import types
import weakref

import pytest

import shoal
from carry import carry
from object_cases import CASES, NEEDS_PROTOCOL_2


@pytest.mark.parametrize("name", CASES)
def test_defined_in_one_script_it_works_in_another_and_at_home(fresh_python, tmp_path, name):
    carry(fresh_python, tmp_path, *CASES[name], first_protocol=2 if name in NEEDS_PROTOCOL_2 else 0)


def generator():
    yield 1


async def coroutine():
    pass


def closed(coro):
    coro.close()
    return coro


REFUSED = {
    "_thread.lock": threading.Lock,
    "_thread.RLock": threading.RLock,
    "generator": generator,
    "coroutine": lambda: closed(coroutine()),
    "frame": sys._getframe,
    "re.Match": lambda: re.match("a", "a"),
    "socket": lambda: contextlib.closing(socket.socket()).__enter__(),
    "mmap.mmap": lambda: mmap.mmap(-1, 10),
    "_contextvars.Context": contextvars.copy_context,
    "_contextvars.ContextVar": lambda: contextvars.ContextVar("nobody's"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_belongs_to_one_process_is_refused_by_its_name(name):
    obj = REFUSED[name]()
    with pytest.raises(TypeError, match=f"cannot pickle '{name}' object"):
        shoal.dumps(obj)
    if name == "socket":
        obj.close()


@pytest.mark.parametrize(
    "make", [threading.Event, threading.Thread, lambda: logging.StreamHandler(io.StringIO()), threading.Condition]
)
def test_locks_are_not_made_up_for_things_that_are_not_ours(make):
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.(R?[lL]ock|_ThreadHandle)' object"):
        shoal.dumps(make())


def test_a_reducer_of_the_users_own_goes_first():
    import copyreg

    lock = threading.Lock()
    copyreg.pickle(type(lock), lambda _: (threading.Lock, ()))
    try:
        assert pickle.loads(shoal.dumps(lock)).acquire(blocking=False)
    finally:
        del copyreg.dispatch_table[type(lock)]


def test_a_context_manager_that_was_entered_is_refused():
    @contextlib.contextmanager
    def manager():
        yield

    with manager() as _, pytest.raises(TypeError, match="generator"):
        entered = manager()
        entered.__enter__()
        shoal.dumps(entered)


def test_multiprocessings_own_objects_say_how_they_are_shared():
    import multiprocessing

    for made in (multiprocessing.Lock(), multiprocessing.Queue()):
        with pytest.raises(RuntimeError, match="through inheritance"):
            shoal.dumps(made)


@pytest.mark.parametrize("mode", ["wb", "ab"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_binary_files_that_cannot_be_read_say_so(tmp_path, mode, buffering):
    with (
        open(tmp_path / "file", mode, buffering) as file,
        pytest.raises(shoal.PicklingError, match="not opened for reading"),
    ):
        shoal.dumps(file)


def test_a_pipe_cannot_be_read_without_taking_from_it():
    reading, writing = os.pipe()
    with (
        open(reading, "rb") as file,
        open(writing, "wb"),
        pytest.raises(shoal.PicklingError, match=f"Cannot pickle file {reading} as it cannot be read"),
    ):
        shoal.dumps(file)


def test_a_file_that_is_no_text_stays_where_it_was(tmp_path):
    (tmp_path / "file").write_bytes(b"ab\xff\xff")
    with open(tmp_path / "file", encoding="utf-8") as file:
        with pytest.raises(shoal.PicklingError, match="as it cannot be read"):
            shoal.dumps(file)
        assert file.tell() == 0


def test_a_copy_of_a_temporary_file_does_not_delete_it(tmp_path):
    import tempfile

    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        file.write(b"abc")
        copy = pickle.loads(shoal.dumps(file))
        copy.close()
        del copy
        assert os.path.exists(file.name)


@functools.lru_cache
def importable_cached(x):
    return x


@functools.singledispatch
def importable_dispatching(x):
    return x


def test_caches_and_dispatchers_that_can_be_imported_go_by_name():
    for obj in (importable_cached, importable_dispatching):
        assert shoal.dumps(obj, 4) == pickle.dumps(obj, 4)


def test_a_new_type_comes_home_as_itself():
    import typing

    made = [typing.NewType("Key", of) for of in (int, int, list[int], "str")]
    assert pickle.loads(shoal.dumps(made)) == made


@pytest.mark.parametrize("protocol", [3, 5])
def test_a_memory_view_is_copied_once_at_most(protocol):
    view = memoryview(bytes(10_000_000))
    sink = io.BytesIO(bytes(11_000_000))
    shoal.dump(memoryview(b""), io.BytesIO(), protocol)
    tracemalloc.start()
    try:
        shoal.dump(view, sink, protocol)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_memory_view_can_go_out_of_band():
    data = bytearray(b"abc" * 1000)
    buffers = []
    stream = shoal.dumps([memoryview(data), memoryview(data).cast("B", (3, 1000))], 5, buffer_callback=buffers.append)
    assert len(stream) < 300
    first, second = pickle.loads(stream, buffers=buffers)
    assert second.shape == (3, 1000)
    first[0] = 5
    assert data[0] == 5


def test_partial_objects_keep_their_attributes_in_a_pool(pool):
    made = functools.partial(int, base=2)
    made.extra = 5
    assert pool.apply(vars, (made,)) == {"extra": 5}


def own_method(self):
    return self


def test_bound_methods_of_any_kind_go_through_a_pool(pool):
    assert pool.apply(types.MethodType(lambda self: [self], 5)) == [5]
    assert pool.apply(types.MethodType(own_method, 6)) == 6


def test_a_type_that_was_changed_is_looked_at_again():
    class Kind(functools.cached_property):
        pass

    one = Kind(len)
    assert pickle.loads(shoal.dumps(one)).func is len
    Kind.__reduce__ = lambda self: (str, ("changed",))
    assert pickle.loads(shoal.dumps(one)) == "changed"
    del Kind.__reduce__
    assert pickle.loads(shoal.dumps(one)).func is len


def test_a_metaclass_that_equals_everything_changes_nothing():
    class Meta(type):
        def __eq__(cls, other):
            return True

        def __hash__(cls):
            return hash(weakref.ref)

    class Odd(metaclass=Meta):
        def __init__(self):
            self.x = 1

    assert pickle.loads(shoal.dumps(Odd())).x == 1


def test_a_standard_stream_of_a_kind_of_its_own_goes_by_name(monkeypatch):
    class Captured(io.TextIOWrapper):
        pass

    monkeypatch.setattr(sys, "stdout", Captured(io.BytesIO()))
    assert pickle.loads(shoal.dumps([sys.stdout]))[0] is sys.stdout
