# SPDX-License-Identifier: BSD-3-Clause
"""Damaged streams: cut short, scribbled over, spliced, or built to hurt. Each gives an exception (or another object),
never a crash, a hang, or memory out of proportion to the input.

The seeds are those of the fuzz target (tests/fuzz/corpus.txt), and so are the classes that a stream may name.
"""

import gc
import io
import pathlib
import random
import struct
import sys
import tracemalloc

import pytest

import shoal
from leaking import blocks_grow

FUZZ = pathlib.Path(__file__).parent.parent / "fuzz"
sys.path.insert(0, str(FUZZ))
import fuzz_world  # noqa: E402
import make_seeds  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")

SEEDS = {name: data[1:] for name, data in make_seeds.read_corpus(FUZZ / "corpus.txt") if len(data) > 1}
MUTATIONS = 40_000


class Unpickler(shoal.Unpickler):
    find_class = fuzz_world.WORLD.find_class
    persistent_load = fuzz_world.WORLD.persistent_load


class refusing:
    """While it is entered, whatever names a global is refused: shoal.loads has no find_class to override."""

    active = False

    def __enter__(self):
        refusing.active = True

    def __exit__(self, *exc):
        refusing.active = False


def audit(event, args):
    if refusing.active and event == "pickle.find_class":
        raise PermissionError("globals are refused here")


sys.addaudithook(audit)


def load_from_file(data):
    return Unpickler(fuzz_world.make_file(data)).load()


def load_from_memory(data):
    with refusing():
        return shoal.loads(data, encoding="latin-1")


LOADERS = [load_from_file, load_from_memory]


def outcome(load, data):
    """The exception's type, or None. A SystemError says that the interpreter was misused: it counts as a crash."""
    try:
        load(data)
    except SystemError:
        raise
    except Exception as error:
        return type(error)
    return None


def whole_seeds(load):
    return {name: data for name, data in SEEDS.items() if outcome(load, data) is None}


@pytest.mark.parametrize("load", LOADERS)
def test_a_stream_cut_short_anywhere_says_so(load):
    seeds = whole_seeds(load)
    assert len(seeds) > 40
    for name, data in seeds.items():
        for length in range(data.rindex(b".")):
            error = outcome(load, data[:length])
            assert error in (shoal.UnpicklingError, EOFError), (name, length, error)


@pytest.mark.parametrize("load", LOADERS)
def test_any_byte_may_be_any_other(load):
    for data in SEEDS.values():
        for position in range(len(data)):
            for bit in range(8):
                damaged = bytearray(data)
                damaged[position] ^= 1 << bit
                outcome(load, bytes(damaged))
    assert gc.isenabled()


def spliced(rng, seeds):
    """Two seeds joined somewhere, with some bytes changed, repeated or dropped."""
    a, b = rng.choice(seeds), rng.choice(seeds)
    data = bytearray(a[: rng.randrange(len(a) + 1)] + b[rng.randrange(len(b)) :])
    for _ in range(rng.randrange(4)):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randrange(5)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randrange(9)] * 2
        else:
            data[at:at] = rng.choice([b"\x94", b"h\x00", b"0", b"1", b"2", b"(", b".", b"e", b"u", b"\x85", b"\x86"])
    return bytes(data)


@pytest.mark.parametrize("load", LOADERS)
def test_spliced_and_scribbled_streams_end_with_an_object_or_an_exception(load):
    rng = random.Random(20130101)
    seeds = list(SEEDS.values())
    ends = set()
    for _ in range(MUTATIONS):
        ends.add(outcome(load, spliced(rng, seeds)))
    assert {None, shoal.UnpicklingError} <= ends
    assert gc.isenabled()


@pytest.mark.parametrize("load", LOADERS)
def test_damaged_streams_leave_no_objects_behind(load):
    rng = random.Random(4)
    seeds = list(SEEDS.values())
    batch = [spliced(rng, seeds) for _ in range(2_000)]

    def work():
        for data in batch:
            outcome(load, data)

    assert not blocks_grow(work, by=10)


HUGE = {
    "bytes": b"\x8e" + struct.pack("<Q", 1 << 60) + b"ab",
    "bytes4": b"B" + struct.pack("<I", 0xFFFFFFF0) + b"ab",
    "text": b"\x8d" + struct.pack("<Q", 1 << 60) + b"ab",
    "text4": b"X" + struct.pack("<I", 0xFFFFFFF0) + b"ab",
    "bytearray": b"\x96" + struct.pack("<Q", 1 << 60) + b"ab",
    "long": b"\x8b" + struct.pack("<I", 0x7FFFFFF0) + b"ab",
    "string": b"T" + struct.pack("<I", 0x7FFFFFF0) + b"ab",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "more than there is address space": b"\x8e" + b"\xff" * 8 + b"ab",
}


@pytest.mark.parametrize("open_file", [None, io.BytesIO, lambda data: io.BufferedReader(io.BytesIO(data))])
@pytest.mark.parametrize("name", HUGE)
def test_a_length_is_not_believed(name, open_file):
    tracemalloc.start()
    try:
        with pytest.raises(shoal.UnpicklingError):
            if open_file is None:
                shoal.loads(HUGE[name])
            else:
                shoal.load(open_file(HUGE[name]))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\xff", b"p4294967295\n", b"p1000000000000000000\n"])
def test_a_memo_index_far_out_costs_no_more_than_a_near_one(put):
    tracemalloc.start()
    try:
        index = int(put[1:]) if put[:1] == b"p" else 0xFFFFFFFF
        get = b"g%d\n" % index
        assert shoal.loads(b"]" + put + b"0" + get + b".") == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_key_that_holds_two_to_the_sixty_tuples_is_refused_at_once():
    doubling = b")" + b"2\x86" * 60
    for stream in (b"}" + doubling + b"Ns.", b"}(" + doubling + b"Nu.", b"(" + doubling + b"Nd."):
        with pytest.raises(shoal.UnpicklingError, match="nested too deeply"):
            shoal.loads(stream)
    for stream in (b"\x8f(" + doubling + b"\x90.", b"(" + doubling + b"\x91."):
        with pytest.raises(shoal.UnpicklingError, match="nested too deeply"):
            shoal.loads(stream)


def test_a_key_nested_a_million_deep_is_refused():
    with pytest.raises(shoal.UnpicklingError, match="nested too deeply"):
        shoal.loads(b"})" + b"\x85" * 1_000_000 + b"Ns.")


@pytest.mark.parametrize("container", ["set", "frozenset", "dict"])
def test_what_older_protocols_give_a_set_or_dict_to_hash_is_looked_at_first(container):
    """They call set([...]), which would hash a tuple of any depth."""
    item = b"K\x01\x86" if container == "dict" else b""
    for key in (b")" + b"\x85" * 300_000, b")" + b"2\x86" * 60):
        stream = b"\x80\x02cbuiltins\n" + container.encode() + b"\n](" + key + item + b"e\x85R."
        with pytest.raises(shoal.UnpicklingError, match="nested too deeply"):
            shoal.loads(stream)
    value = {(1, (2, 3)): 4}
    made = value if container == "dict" else {"set": set, "frozenset": frozenset}[container](value)
    assert shoal.loads(shoal.dumps(made, 2)) == made


@pytest.mark.skipif(sys.version_info < (3, 12), reason="slices have a hash from 3.12 on")
def test_a_key_of_slices_within_slices_is_refused():
    level = b"q\x00cbuiltins\nslice\nh\x00h\x00h\x00\x87R"
    with pytest.raises(shoal.UnpicklingError, match="nested too deeply"):
        shoal.loads(b"}N" + level * 60 + b"K\x01s.")


def test_the_time_to_find_a_promised_state_does_not_grow_with_the_marks():
    """Thirty thousand states that are open, each fetched within the innermost."""
    count = 30_000
    opened = b"cfuzz_harmless\nPlain\nr\0\0\0\0"
    numbers = [struct.pack("<I", index) for index in range(2 * count + 1)]
    opened += b"".join(b"h\x00)\x81r" + numbers[2 * i - 1] + b"}r" + numbers[2 * i] + b"(" for i in range(1, count + 1))
    fetched = b"".join(b"j" + numbers[2 * i] for i in range(1, count + 1))
    value = shoal.loads(opened + fetched + b"l.")
    assert len(value) == count
    assert all(type(state) is dict for state in value)


def test_reasonable_tuples_are_keys():
    key = ()
    for i in range(200):
        key = (i, key)
    assert shoal.loads(shoal.dumps({key: 1, (1, (2, 3)): 2})) == {key: 1, (1, (2, 3)): 2}


@pytest.mark.parametrize(
    "deep",
    [b"]" * 200_000 + b"a" * 199_999 + b".", b")" + b"\x85" * 200_000 + b".", b"(" * 200_000 + b"l" * 200_000 + b"."],
    ids=["lists", "tuples", "marks"],
)
def test_deep_nesting_is_bounded_by_memory_only(deep):
    value = shoal.loads(deep)
    assert len(value) == 1


MISUSED = {
    "nothing on the stack": b".",
    "only a mark": b"(.",
    "pop of nothing": b"0.",
    "no mark": b"Nt.",
    "the mark's own list": b"(e.",
    "an item below the mark": b"N(\x85.",
    "get of what was not put": b"h\x07.",
    "put of nothing": b"q\x00.",
    "memoize of nothing": b"\x94.",
    "odd dict": b"(Nd.",
    "odd items": b"}(Nu.",
    "global of no strings": b"NN\x93.",
    "build of nothing": b"Nb.",
    "reduce of nothing": b"NR.",
    "newobj of no class": b"N)\x81.",
    "obj without a class": b"(o.",
    "negative code": b"\x84\xff\xff\xff\xff.",
    "unquoted string": b"Sabc\n.",
    "negative string": b"T\xff\xff\xff\xff.",
    "negative long": b"\x8b\xff\xff\xff\xff.",
    "no buffers": b"\x97.",
    "persistent id": b"Pabc\n.",
    "unknown opcode": b"\xff.",
}


@pytest.mark.parametrize("stream", MISUSED.values(), ids=MISUSED)
def test_an_impossible_stream_is_an_unpickling_error(stream):
    with pytest.raises(shoal.UnpicklingError):
        shoal.loads(stream)
    with pytest.raises(shoal.UnpicklingError):
        shoal.load(io.BytesIO(stream))


def test_what_was_put_survives_being_replaced_and_dropped():
    """Names of the memo outlive their objects' other owners: equal keys, replaced values, popped items."""
    same = b"\x8c\x02aa"
    assert shoal.loads(b"}(" + same + b"\x94]\x94" + same + b"\x94]\x94u(h\x00h\x01h\x02h\x03t\x86.") == (
        {"aa": []},
        ("aa", [], "aa", []),
    )
    assert shoal.loads(b"\x8f(" + same + b"\x94" + same + b"\x94\x90h\x00h\x01\x87.") == ({"aa"}, "aa", "aa")
    assert shoal.loads(b"(" + same + b"\x94" + same + b"\x94\x91h\x00h\x01\x87.") == (frozenset({"aa"}), "aa", "aa")
    assert shoal.loads(b"]\x94" + b"0h\x00.") == []
    assert shoal.loads(b"(]\x94]\x941h\x00h\x01\x86.") == ([], [])
