# SPDX-License-Identifier: BSD-3-Clause
"""load and loads: everything the standard pickler writes, the files it may come from, the options."""

import array
import collections
import decimal
import fractions
import gc
import io
import itertools
import mmap
import pickle
import sys
import types
import uuid

import pytest

import sanitizer
import shoal

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __eq__(self, other):
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = None


class Fresh:
    pass


class Slotted:
    __slots__ = ("a", "b", "__dict__")


class WithState:
    def __getstate__(self):
        return ("state",)

    def __setstate__(self, state):
        self.got = state


class NewArguments:
    def __new__(cls, a, *, b):
        self = object.__new__(cls)
        self.pair = (a, b)
        return self

    def __getnewargs_ex__(self):
        return (self.pair[0],), {"b": self.pair[1]}


class Outer:
    class Inner:
        pass


class MyList(list):
    pass


Point = collections.namedtuple("Point", "x y")

PLAIN_DATA = {
    "ints": [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**63, -(2**63), 2**64, 10**400],
    "int sizes": [sign * (1 << bits) + off for bits in range(0, 80, 7) for sign in (1, -1) for off in (-1, 0, 1)],
    "floats": [0.0, -0.0, 1.5, -1e300, 5e-324, float("inf"), float("-inf")],
    "text": ["", "a", "\x7f", "\x80", "é", "\u20ac", "\U0001f600", "\ud800", "x" * 255, "x" * 256, "é" * 70000],
    "unicode escapes": ["\\u1234", "\n", "\\", "a\nb", "\x1a", "\\U00012345"],
    "bytes": [b"", b"a", bytes(range(256)), b"x" * 70000],
    "bytearrays": [bytearray(), bytearray(b"abc"), bytearray(70000)],
    "constants": [None, True, False, Ellipsis, NotImplemented],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), tuple(range(3000))],
    "lists": [[], [1], list(range(999)), list(range(1000)), list(range(1001)), list(range(5000))],
    "dicts": [{}, {"a": 1}, {i: str(i) for i in range(5000)}, {None: 1, 1.5: 2, (1, "x"): 3, b"k": 4}],
    "sets": [set(), {1, "a", (1, 2)}, set(range(5000)), frozenset(), frozenset(range(5000))],
    "complex": [1j, complex(1, -2)],
    "ranges": [range(5), range(10, 0, -3), slice(1, None, 2)],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", PLAIN_DATA)
def test_plain_data_comes_back_as_it_was(name, protocol):
    data = PLAIN_DATA[name]
    stream = pickle.dumps(data, protocol)
    for loaded in (shoal.loads(stream), shoal.load(io.BytesIO(stream)), shoal.Unpickler(io.BytesIO(stream)).load()):
        assert loaded == data
        assert [type(item) for item in loaded] == [type(item) for item in data]
        assert repr(loaded) == repr(data) or name == "sets"


OBJECTS = {
    "instance": Plain(a=1, b=["x"]),
    "instances": [Plain(i=i) for i in range(100)],
    "named tuple": Point(1, 2),
    "ordered dict": collections.OrderedDict([("b", 1), ("a", 2)]),
    "default dict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2, 3], 5),
    "counter": collections.Counter("hello"),
    "decimal": decimal.Decimal("1.50"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=5),
    "array": array.array("d", [1.0, 2.5]),
    "types": [int, list, Plain, Point, types.SimpleNamespace, type(None), type(...)],
    "functions": [len, sys.exit, pickle.dumps, collections.namedtuple],
    "list subclass": MyList([1, 2, 3]),
    "namespace": types.SimpleNamespace(a=1),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_come_back_as_they_were(name, protocol):
    stream = pickle.dumps(OBJECTS[name], protocol)
    loaded = shoal.loads(stream)
    expected = pickle.loads(stream)
    assert type(loaded) is type(expected)
    assert loaded == expected
    assert repr(loaded) == repr(expected) or "object at" in repr(loaded)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_slots_state_and_keyword_arguments_of_new(protocol):
    slotted = Slotted()
    slotted.a, slotted.c = [1], "in the dict"
    loaded = shoal.loads(pickle.dumps(slotted, protocol))
    assert (loaded.a, loaded.c, hasattr(loaded, "b")) == ([1], "in the dict", False)
    assert shoal.loads(pickle.dumps(WithState(), protocol)).got == ("state",)
    made = object.__new__(NewArguments)
    made.pair = (1, 2)
    assert shoal.loads(pickle.dumps(made, protocol)).pair == (1, 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sharing_and_cycles_are_kept(protocol):
    shared = [1]
    cycle = [shared, shared]
    cycle.append(cycle)
    loop = {}
    loop["self"] = (loop,)
    loaded, mapping = shoal.loads(pickle.dumps((cycle, loop), protocol))
    assert loaded[0] is loaded[1]
    assert loaded[2] is loaded
    assert mapping["self"][0] is mapping


def test_attribute_names_are_interned():
    """Of a class that has no instance yet: later ones share the names that the first one was given."""
    name = "".join(["attribute", "_of_", "plain"])
    stream = pickle.dumps(Plain(**{name: 1})).replace(b"\x8c\x05Plain", b"\x8c\x05Fresh")
    loaded = shoal.loads(stream)
    assert next(iter(loaded.__dict__)) is sys.intern("attribute_of_plain")


def test_qualified_names_need_protocol_four():
    assert shoal.loads(pickle.dumps(Outer.Inner, 4)) is Outer.Inner
    with pytest.raises(AttributeError):
        shoal.loads(b"\x80\x02c%b\nOuter.Inner\n." % __name__.encode())
    with pytest.raises(AttributeError, match="Can't get"):
        shoal.loads(b"\x80\x04c%b\nOuter.Missing\n." % __name__.encode())
    with pytest.raises(AttributeError, match="Can't get local"):
        shoal.loads(b"\x80\x04c%b\nOuter.<locals>.x\n." % __name__.encode())


def test_a_global_is_what_its_module_holds_now(monkeypatch):
    stream = b"c%b\nPlain\n." % __name__.encode()
    assert shoal.loads(stream) is Plain
    monkeypatch.setattr(sys.modules[__name__], "Plain", Outer)
    assert shoal.loads(stream) is Outer


# ---- where the stream comes from ----


@pytest.mark.parametrize(
    "wrap", [bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b)), lambda b: array.array("B", b)]
)
def test_any_bytes_like_object_is_read_in_place(wrap):
    data = wrap(pickle.dumps([1, "two"]))
    assert shoal.loads(data) == [1, "two"]
    if isinstance(data, bytearray):
        data.append(0)  # no export of its buffer is left


def test_a_mapping_of_memory_is_read_in_place():
    stream = pickle.dumps({"a": 1})
    with mmap.mmap(-1, 4096) as mapping:
        mapping[: len(stream)] = stream
        assert shoal.loads(mapping) == {"a": 1}


@pytest.mark.parametrize("bad", ["text", None, 5, [b"x"]])
def test_what_is_not_bytes_is_a_type_error(bad):
    with pytest.raises(TypeError):
        shoal.loads(bad)


def test_nothing_at_all_is_an_end_of_file():
    with pytest.raises(EOFError, match="Ran out of input"):
        shoal.loads(b"")
    with pytest.raises(EOFError, match="Ran out of input"):
        shoal.load(io.BytesIO())


def test_bytes_after_the_pickle_are_ignored():
    assert shoal.loads(pickle.dumps(1) + b"rest") == 1


class NoPeek:
    """A file with read and readline only, that counts what was taken."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, size):
        return self.file.read(size)

    def readline(self):
        return self.file.readline()


class PeekALittle(io.BytesIO):
    def peek(self, size):
        at = self.tell()
        return self.getvalue()[at : at + 7]


class RefusesToPeek(io.BytesIO):
    def peek(self, size):
        raise NotImplementedError


FILES = [io.BytesIO, lambda b: io.BufferedReader(io.BytesIO(b)), NoPeek, PeekALittle, RefusesToPeek]


@pytest.mark.parametrize("open_file", FILES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_follow_each_other_in_a_file(open_file, protocol):
    values = [1, "two", [3.0] * 50, {"four": b"x" * 100_000}, bytearray(b"y" * 300_000), "é" * 80_000, ("end",)]
    file = open_file(b"".join(pickle.dumps(value, protocol) for value in values) + b"rest")
    assert [shoal.load(file) for _ in values] == values
    assert file.read(100) == b"rest"


@pytest.mark.parametrize("open_file", FILES)
def test_an_unpickler_keeps_its_memo_and_its_place(open_file):
    out = io.BytesIO()
    pickler = pickle.Pickler(out, 4)
    shared = ["shared", "list"]
    for value in (shared, [shared], 5):
        pickler.dump(value)
    file = open_file(out.getvalue() + b"rest")
    unpickler = shoal.Unpickler(file)
    first, second, third = unpickler.load(), unpickler.load(), unpickler.load()
    assert second[0] is first
    assert third == 5
    assert file.read(100) == b"rest"


def test_large_frames_and_items_come_in_pieces():
    data = [bytes(3_000_000), bytearray(5_000_001), "x" * 2_500_000]
    stream = pickle.dumps(data, 5)
    for open_file in FILES:
        assert shoal.load(open_file(stream)) == data


def test_errors_of_the_file_are_passed_on():
    class Broken(NoPeek):
        def read(self, size):
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        shoal.load(Broken(b"N."))
    with pytest.raises(TypeError, match="'read' and 'readline'"):
        shoal.load(object())

    class WrongType(NoPeek):
        def read(self, size):
            return "text"

    with pytest.raises(TypeError):
        shoal.load(WrongType(b"N."))


# ---- options ----


def test_strings_of_python_2():
    stream = b"S'caf\\xc3\\xa9'\nU\x02\xc3\xa9T\x02\x00\x00\x00\xc3\xa9\x87."
    assert shoal.loads(stream, encoding="utf-8") == ("café", "é", "é")
    assert shoal.loads(stream, encoding="bytes") == (b"caf\xc3\xa9", b"\xc3\xa9", b"\xc3\xa9")
    assert shoal.loads(stream, errors="replace") == ("caf\ufffd\ufffd", "\ufffd\ufffd", "\ufffd\ufffd")
    with pytest.raises(UnicodeDecodeError):
        shoal.loads(stream)
    with pytest.raises(LookupError):
        shoal.loads(stream, encoding="no such codec")


def test_names_of_python_2_are_mapped_if_wanted():
    stream = b"c__builtin__\nxrange\n."
    assert shoal.loads(stream) is range
    with pytest.raises(ImportError):
        shoal.loads(stream, fix_imports=False)
    with pytest.raises(ImportError):
        shoal.loads(b"\x80\x03" + stream)
    assert shoal.load(io.BytesIO(b"cStringIO\nStringIO\n.")) is io.StringIO


def test_out_of_band_buffers_are_given_in_order():
    buffers = []
    parts = [bytearray(b"one"), bytearray(b"two"), b"read-only"]
    stream = pickle.dumps([pickle.PickleBuffer(part) for part in parts], 5, buffer_callback=buffers.append)
    for give in (buffers, iter(buffers), tuple(buffers)):
        loaded = shoal.loads(stream, buffers=give)
        assert [bytes(part) for part in loaded] == [b"one", b"two", b"read-only"]
        assert memoryview(loaded[0]).obj is parts[0]
        assert memoryview(loaded[2]).readonly
    with pytest.raises(shoal.UnpicklingError, match="not enough"):
        shoal.loads(stream, buffers=buffers[:2])
    with pytest.raises(shoal.UnpicklingError, match="no \\*buffers\\*"):
        shoal.loads(stream)
    with pytest.raises(TypeError):
        shoal.loads(stream, buffers=5)


def test_a_writable_buffer_is_made_read_only_if_the_stream_says_so():
    loaded = shoal.loads(b"\x80\x05\x97\x98.", buffers=[bytearray(b"x")])
    assert isinstance(loaded, memoryview)
    assert loaded.readonly


@pytest.mark.parametrize("function", [shoal.load, shoal.loads])
def test_arguments_are_checked(function):
    for args, kwargs in (((), {}), ((b"N.", 1), {}), ((b"N.",), {"what": 1}), ((b"N.",), {"encoding": 5})):
        with pytest.raises(TypeError):
            function(*args, **kwargs)


def test_load_takes_its_file_by_name():
    assert shoal.load(file=io.BytesIO(b"K\x05.")) == 5
    with pytest.raises(TypeError):
        shoal.loads(data=b"N.")


# ---- what it leaves behind ----


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    seen = []

    class Looks:
        def __setstate__(self, state):
            seen.append(gc.isenabled())

        def __reduce__(self):
            return object.__new__, (Looks,), 1

    globals()["Looks"] = Looks
    Looks.__qualname__ = "Looks"
    good = pickle.dumps([{"a": [1]}] * 3)
    with_code = pickle.dumps([1, [2], Looks()])
    (gc.enable if enabled else gc.disable)()
    try:
        shoal.loads(good)
        assert gc.isenabled() is enabled
        shoal.loads(with_code)
        with pytest.raises(shoal.UnpicklingError):
            shoal.loads(good[:-1] + b"\xff")
        assert gc.isenabled() is enabled
        assert seen == [enabled]
    finally:
        gc.enable()


@pytest.mark.skipif(sanitizer.ADDRESS, reason="Python counts the blocks of its own allocator, which is not used then")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_loading_leaks_nothing(protocol):
    """Free lists and caches fill up for a while; what leaks grows in every round, by at least a block for each load."""
    plain = pickle.dumps(list(PLAIN_DATA.values()), protocol)
    objects = pickle.dumps(list(OBJECTS.values()), protocol)
    loads_per_round = 15

    def blocks_after_round():
        for _ in range(loads_per_round):
            shoal.loads(plain)
            shoal.load(io.BytesIO(plain))
            shoal.loads(objects)
            shoal.Unpickler(io.BytesIO(objects)).load()
        gc.collect()
        return sys.getallocatedblocks()

    blocks = [blocks_after_round() for _ in range(8)]
    assert min(after - before for before, after in itertools.pairwise(blocks)) < loads_per_round


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_long_text_of_every_width_wherever_it_stops_to_be_ascii(kind):
    for length in (*range(60, 135), 1000):
        for odd in ("\xe9", "\u20ac", "\U0001f600", "\ud800"):
            for text in ("a" * length, odd + "a" * length, "a" * length + odd, odd * length):
                assert shoal.loads(kind(shoal.dumps([text]))) == [text]


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_long_text_that_is_no_utf8_is_refused_wherever_it_is_broken(kind):
    for broken in (b"\xff" * 200, b"a" * 150 + b"\xc3", b"a" * 64 + b"\x80" + b"b" * 100, b"\xe2\x82" + b"c" * 200):
        with pytest.raises(UnicodeDecodeError):
            shoal.loads(kind(b"\x80\x04X" + len(broken).to_bytes(4, "little") + broken + b"."))
