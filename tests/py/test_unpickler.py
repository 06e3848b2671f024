# SPDX-License-Identifier: BSD-3-Clause
"""Unpickler and the hooks of loading: find_class, persistent ids, extension codes, the memo, nested loading."""

import copyreg
import gc
import io
import pickle
import sys
import weakref

import pytest

import shoal


class Plain:
    pass


def test_find_class_of_a_subclass_decides():
    class Restricted(shoal.Unpickler):
        def find_class(self, module, name):
            if name == "forbidden":
                raise pickle.UnpicklingError("forbidden")
            return super().find_class(module, name)

    assert Restricted(io.BytesIO(b"cbuiltins\nlen\n.")).load() is len
    with pytest.raises(pickle.UnpicklingError, match="^forbidden$"):
        Restricted(io.BytesIO(b"cbuiltins\nforbidden\n.")).load()

    unpickler = Restricted(io.BytesIO(b"cbuiltins\nforbidden\n."))
    unpickler.find_class = lambda module, name: (module, name)
    assert unpickler.load() == ("builtins", "forbidden")


@pytest.mark.parametrize("stream", [b"Pthe id\n.", b"\x8c\x06the idQ."], ids=["text", "binary"])
def test_persistent_ids_are_loaded_by_method_or_attribute(stream):
    class Loader(shoal.Unpickler):
        def persistent_load(self, pid):
            return [pid]

    assert Loader(io.BytesIO(stream)).load() == ["the id"]
    unpickler = shoal.Unpickler(io.BytesIO(stream))
    unpickler.persistent_load = lambda pid: (pid,)
    assert unpickler.load() == ("the id",)
    unpickler = shoal.Unpickler(io.BytesIO(stream))
    with pytest.raises(shoal.UnpicklingError, match="persistent"):
        unpickler.load()


def test_find_class_is_audited():
    events = []
    recording = True

    def hook(event, args):
        if recording and event == "pickle.find_class":
            events.append(args)

    sys.addaudithook(hook)
    try:
        shoal.loads(b"c__builtin__\nlen\n.")
        shoal.Unpickler(io.BytesIO()).find_class("builtins", "max")
    finally:
        recording = False
    assert events == [("__builtin__", "len"), ("builtins", "max")]


def test_extension_codes_are_looked_up_and_cached():
    copyreg.add_extension(__name__, "Plain", 0x7001)
    try:
        stream = pickle.dumps(Plain, 2)
        assert b"\x83\x01\x70" in stream
        assert shoal.loads(stream) is Plain
        assert copyreg._extension_cache[0x7001] is Plain
        assert shoal.loads(stream) is Plain
    finally:
        copyreg.remove_extension(__name__, "Plain", 0x7001)
        copyreg._extension_cache.pop(0x7001, None)
    with pytest.raises(ValueError, match="unregistered extension code 28673"):
        shoal.loads(stream)


def test_the_memo_can_be_copied_cleared_and_replaced():
    unpickler = shoal.Unpickler(io.BytesIO(b"]q\x00.]r\xff\xff\xff\x7f.h\x00."))
    first = unpickler.load()
    second = unpickler.load()
    memo = unpickler.memo.copy()
    assert memo == {0: first, 0x7FFFFFFF: second}
    assert pickle.loads(pickle.dumps(unpickler.memo)) == memo
    unpickler.memo.clear()
    assert unpickler.memo.copy() == {}
    with pytest.raises(shoal.UnpicklingError, match="Memo value not found at index 0"):
        unpickler.load()

    unpickler = shoal.Unpickler(io.BytesIO(b"h\x00.h\x05."))
    unpickler.memo = {0: "zero", 5: "five"}
    other = shoal.Unpickler(io.BytesIO(b"h\x05."))
    other.memo = unpickler.memo
    assert (unpickler.load(), unpickler.load(), other.load()) == ("zero", "five", "five")
    for bad in ({-1: None}, {"a": None}, object, [1]):
        with pytest.raises((TypeError, ValueError)):
            unpickler.memo = bad


def test_loading_inside_of_loading():
    class Nested:
        def __reduce__(self):
            return shoal.loads, (pickle.dumps([1, 2]),)

    assert shoal.loads(pickle.dumps([Nested(), Nested(), "x"])) == [[1, 2], [1, 2], "x"]

    class Recursive(shoal.Unpickler):
        def persistent_load(self, pid):
            return self.load()

    with pytest.raises(RuntimeError, match="already used"):
        Recursive(io.BytesIO(b"Px\n.")).load()


def test_an_unpickler_without_init_says_so():
    class NoInit(shoal.Unpickler):
        def __init__(self):
            pass

    with pytest.raises(shoal.UnpicklingError, match="NoInit.__init__"):
        NoInit().load()


def test_init_may_be_called_again():
    unpickler = shoal.Unpickler(io.BytesIO(b"]q\x00."))
    unpickler.load()
    unpickler.__init__(io.BytesIO(b"h\x00."))
    with pytest.raises(shoal.UnpicklingError):
        unpickler.load()


def test_an_unpickler_in_a_cycle_is_collected():
    class InCycle(shoal.Unpickler):
        pass

    unpickler = InCycle(io.BytesIO(b"]q\x00."))
    unpickler.persistent_load = lambda pid, unpickler=unpickler: unpickler
    unpickler.load().append(unpickler)
    gone = weakref.ref(unpickler)
    del unpickler
    gc.collect()
    assert gone() is None
