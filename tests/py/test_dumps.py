# SPDX-License-Identifier: BSD-3-Clause
"""dump, dumps and Pickler on what pickle can do: the same bytes, the same errors, and more said in them."""

import collections
import copyreg
import datetime
import decimal
import fractions
import functools
import io
import pickle
import random
import threading

import pytest

import shoal

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("a", "b")


class ListOf(list):
    pass


class NewArgs(int):
    def __new__(cls, value, *, scale=1):
        return super().__new__(cls, value * scale)

    def __getnewargs_ex__(self):
        return (int(self),), {"scale": 1}


class StateSetter:
    def __reduce__(self):
        return StateSetter, (), {"x": 1}, None, None, set_state


def set_state(obj, state):
    obj.__dict__.update(state)


def slotted():
    made = Slotted()
    made.a = 1
    return made


def cycle():
    made = [1]
    made.append((made, {"me": made}))
    return made


SHARED = ["shared"]
VALUES = {
    "singletons": [None, True, False, Ellipsis, NotImplemented],
    "ints": [0, 1, 255, 256, 65535, 65536, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, 10**300, -(10**300)],
    "long ints": [s * (1 << n) + d for n in (7, 8, 15, 16, 31, 2039, 2040, 2047) for s in (1, -1) for d in (-1, 0, 1)],
    "floats": [0.0, -0.0, 1.5, float("inf"), 1e-320],
    "str": ["", "a", "a" * 255, "a" * 256, "\xe9\u20ac\U0001f600\ud800", "\\\n\r\0\x1a"],
    "long str": ["a" * 70_000, "\u20ac" * 70_000],
    "bytes": [b"", b"a", b"a" * 255, b"a" * 256, b"a" * 70_000, bytearray(b""), bytearray(b"abc")],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "lists": [[], [1], [1, 2], list(range(999)), list(range(1000)), list(range(1001)), list(range(2500))],
    "mixed list": [x for i in range(1500) for x in (i, float(i), str(i), None)],
    "dicts": [{}, {1: 2}, {i: str(i) for i in range(1001)}],
    "sets": [set(), {1}, set(range(1001)), frozenset(), frozenset({1, "a"})],
    "sharing": [SHARED, SHARED, (SHARED, SHARED)],
    "instances": [Plain(a=1, b="x"), Plain(), Plain(a=Plain(b=1)), ListOf([1, 2]), NewArgs(3)],
    "reduce": [StateSetter(), collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1, 2], 5)],
    "library": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), datetime.datetime(2020, 1, 2)],
    "other built-ins": [range(3), slice(1, 2), 1j],
    "by reference": [len, int, type(None), Plain, functools.partial(int, base=2), collections.OrderedDict.fromkeys],
    "exceptions": [ValueError("x", 1), KeyError("k")],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", VALUES)
def test_the_bytes_are_those_of_pickle(name, protocol):
    for value in [*VALUES[name], VALUES[name]]:
        assert shoal.dumps(value, protocol) == pickle.dumps(value, protocol)
        file = io.BytesIO()
        shoal.dump(value, file, protocol)
        expected = io.BytesIO()
        pickle.dump(value, expected, protocol)
        assert file.getvalue() == expected.getvalue()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_slots_need_protocol_2_as_in_pickle(protocol):
    if protocol >= 2:
        assert shoal.dumps(slotted(), protocol) == pickle.dumps(slotted(), protocol)
    else:
        with pytest.raises(TypeError, match="__slots__"):
            shoal.dumps(slotted(), protocol)


def random_value(rng, depth):
    kind = rng.randrange(10 if depth else 5)
    if kind == 0:
        return rng.getrandbits(rng.randrange(1, 200)) * rng.choice((1, -1))
    if kind == 1:
        return rng.random()
    if kind == 2:
        return "".join(chr(rng.choice((65, 0xE9, 0x20AC, 0x1F600))) for _ in range(rng.randrange(300)))
    if kind == 3:
        return rng.randbytes(rng.randrange(300))
    if kind == 4:
        return rng.choice((None, True, False))
    items = [random_value(rng, depth - 1) for _ in range(rng.randrange(6))]
    items += items[:1]  # something shared
    if kind in (5, 6):
        return items
    if kind == 7:
        return tuple(items)
    if kind == 8:
        return {i: item for i, item in enumerate(items)}
    return Plain(items=items)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_bytes_of_random_graphs_are_those_of_pickle(protocol):
    rng = random.Random(protocol)
    for _ in range(200):
        value = random_value(rng, 4)
        assert shoal.dumps(value, protocol) == pickle.dumps(value, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cycles_come_back(protocol):
    made = pickle.loads(shoal.dumps(cycle(), protocol))
    assert made[1][0] is made
    assert made[1][1]["me"] is made


class MadeOfHolder(list):
    """Reached through what it is made of; has items and a state besides."""

    def __new__(cls, holder=None):
        return super().__new__(cls)


class ByCall(MadeOfHolder):
    def __reduce__(self):
        return ByCall, (self.holder,), vars(self), iter(self)


class ByNewArguments(MadeOfHolder):
    def __getnewargs__(self):
        return (self.holder,)


class ByNewKeywords(MadeOfHolder):
    def __getnewargs_ex__(self):
        return (), {"holder": self.holder}


class Failure(ValueError):
    """An exception is made of its args."""

    @property
    def holder(self):
        return self.args[0]

    @holder.setter
    def holder(self, holder):
        self.args = (holder,)
        self.note = 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cls", [ByCall, ByNewArguments, ByNewKeywords, Failure])
def test_what_is_reached_through_its_own_arguments_has_its_contents_once(cls, protocol):
    if protocol < 2 and cls in (ByNewArguments, ByNewKeywords):
        pytest.skip("pickle asks for them from protocol 2 on")
    obj = cls()
    obj.holder = [obj]
    if isinstance(obj, list):
        obj.append(1)
    assert shoal.dumps(obj, protocol) == pickle.dumps(obj, protocol)
    assert shoal.dumps(obj.holder, protocol) == pickle.dumps(obj.holder, protocol)
    if isinstance(obj, list):
        assert list(shoal.loads(shoal.dumps(obj, protocol))) == [1]


def test_the_default_protocol_is_the_highest():
    assert shoal.dumps(1) == pickle.dumps(1, pickle.HIGHEST_PROTOCOL)
    assert shoal.dumps(1, -1) == pickle.dumps(1, pickle.HIGHEST_PROTOCOL)
    with pytest.raises(ValueError, match="protocol must be <= 5"):
        shoal.dumps(1, 6)


def test_out_of_band_buffers_as_pickle_has_them():
    data = bytearray(b"x" * 10)
    value = [pickle.PickleBuffer(data), pickle.PickleBuffer(b"const")]

    def dump_with(dumps, in_band):
        seen = []
        stream = dumps(value, 5, buffer_callback=lambda buffer: seen.append(bytes(buffer)) or in_band)
        return stream, seen

    for in_band in (False, True):
        ours = dump_with(shoal.dumps, in_band)
        assert ours == dump_with(pickle.dumps, in_band)
        assert ours[1] == [bytes(data), b"const"]
    with pytest.raises(ValueError, match="buffer_callback needs protocol >= 5"):
        shoal.dumps(1, 4, buffer_callback=print)
    with pytest.raises(shoal.PicklingError, match="protocol >= 5"):
        shoal.dumps(pickle.PickleBuffer(b""), 4)


# ---- hooks ----


def test_copyreg_is_looked_at_live(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Plain, lambda obj: (str, ("reduced",)))
    assert pickle.loads(shoal.dumps([Plain(a=1)])) == ["reduced"]
    monkeypatch.undo()
    assert pickle.loads(shoal.dumps([Plain(a=1)]))[0].a == 1


def test_hooks_of_an_instance_and_of_a_subclass():
    class Hooked(shoal.Pickler):
        dispatch_table = {Plain: lambda obj: (str, ("table",))}

        def persistent_id(self, obj):
            return "id" if obj == "persistent" else None

        def reducer_override(self, obj):
            return (str, ("override",)) if isinstance(obj, Slotted) else NotImplemented

    class Loader(pickle.Unpickler):
        def persistent_load(self, pid):
            return pid

    file = io.BytesIO()
    Hooked(file).dump([Plain(), slotted(), "persistent"])
    file.seek(0)
    assert Loader(file).load() == ["table", "override", "id"]

    file = io.BytesIO()
    pickler = shoal.Pickler(file)
    pickler.dispatch_table = {Plain: lambda obj: (str, ("instance",))}
    pickler.persistent_id = lambda obj: "set" if obj == 5 else None
    pickler.dump([Plain(), 5])
    file.seek(0)
    assert Loader(file).load() == ["instance", "set"]


def test_an_instance_that_was_plain_is_asked_once_its_class_says_more(monkeypatch):
    for _ in range(3):
        assert pickle.loads(shoal.dumps(Plain(a=1))).a == 1
    monkeypatch.setattr(Plain, "__getstate__", lambda self: {"a": "asked"}, raising=False)
    assert pickle.loads(shoal.dumps(Plain(a=1))).a == "asked"
    monkeypatch.undo()
    assert pickle.loads(shoal.dumps(Plain(a=1))).a == 1
    odd = Plain(a=1)
    odd.__reduce_ex__ = lambda protocol: (str, ("own",))
    assert pickle.loads(shoal.dumps(odd)) == "own"


def test_a_memo_that_is_cleared_when_it_is_needed_is_an_error():
    class Clearing:
        def __reduce__(self):
            pickler.clear_memo()
            return list, ()

    pickler = shoal.Pickler(io.BytesIO())
    clearing = Clearing()
    with pytest.raises(shoal.PicklingError, match="memo was cleared"):
        pickler.dump(lambda x=clearing: (clearing, io))


def test_a_pickler_keeps_its_memo_until_it_is_cleared():
    file = io.BytesIO()
    pickler = shoal.Pickler(file)
    pickler.dump(SHARED)
    first = file.tell()
    pickler.dump(SHARED)
    assert file.tell() - first < first
    assert pickler.memo.copy()[id(SHARED)] == (0, SHARED)
    pickler.clear_memo()
    assert pickler.memo.copy() == {}
    start = file.tell()
    pickler.dump(SHARED)
    assert file.tell() - start == first


def test_fast_mode_has_no_memo_and_no_cycles():
    file = io.BytesIO()
    pickler = shoal.Pickler(file)
    pickler.fast = True
    pickler.dump([SHARED, SHARED])
    first, second = pickle.loads(file.getvalue())
    assert first == second
    assert first is not second
    with pytest.raises((ValueError, RecursionError)):
        pickler.dump(cycle())


@pytest.mark.parametrize("part", [frozenset(), frozenset({1}), set(), (1,), [1], {1: 1}, 1 << 70])
def test_in_fast_mode_any_number_of_parts_may_follow_each_other(part):
    """C pickle counts frozensets as nested in each other and refuses the fiftieth."""
    file = io.BytesIO()
    pickler = shoal.Pickler(file)
    pickler.fast = True
    pickler.dump([part] * 200)
    assert pickle.loads(file.getvalue()) == [part] * 200


# ---- errors ----


def test_nothing_is_left_of_a_failed_dump():
    with pytest.raises(TypeError):
        shoal.dumps([SHARED, threading.Lock()])
    assert shoal.dumps([SHARED]) == pickle.dumps([SHARED], 5)


# ---- user code that interferes ----


class Mutator:
    def __init__(self, change):
        self.change = change

    def __reduce__(self):
        self.change()
        return int, ()


def test_a_list_that_shrinks_or_grows_meanwhile_never_crashes():
    items = []
    items.extend([Mutator(items.clear), *map(str, range(100))])
    assert pickle.loads(shoal.dumps(items)) == [0]
    items = []
    items.extend([Mutator(lambda: items.extend(["x"] * 2000)), 1])
    assert len(pickle.loads(shoal.dumps(items))) == 2002


@pytest.mark.parametrize("change", ["clear", "grow", "replace"])
def test_a_dict_that_changes_meanwhile_never_crashes(change):
    items = {}

    def interfere():
        if change == "clear":
            items.clear()
        elif change == "grow":
            items.update({f"n{i}": i for i in range(5000)})
        else:
            items["b"] = object()

    items.update(a=Mutator(interfere), b="".join(("unique ", "text")))
    items.update({f"k{i}": [i] for i in range(100)})
    if change == "replace":
        shoal.dumps(items)
    else:
        with pytest.raises(RuntimeError, match="changed size"):
            shoal.dumps(items)


def test_a_set_that_changes_meanwhile_never_crashes():
    items = set()
    items.update([Mutator(lambda: items.update(range(10_000))), *map(str, range(50))])
    with pytest.raises(RuntimeError, match="changed size"):
        shoal.dumps(items)


class DumpsInside:
    def __reduce__(self):
        return bytes, (shoal.dumps(["inner", SHARED]),)


def test_dumping_inside_of_dumping():
    assert pickle.loads(pickle.loads(shoal.dumps([SHARED, DumpsInside()]))[1]) == ["inner", SHARED]


def test_a_pickler_at_work_refuses_to_start_again():
    pickler = shoal.Pickler(io.BytesIO())

    class Again:
        def __reduce__(self):
            pickler.dump(1)
            return int, ()

    with pytest.raises(RuntimeError, match="at work"):
        pickler.dump([Again()])


def test_threads_dump_at_the_same_time():
    value = [Plain(a=i, b=[str(i)]) for i in range(500)]
    expected = shoal.dumps(value)
    wrong = []

    def work():
        for _ in range(50):
            if shoal.dumps(value) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_write_errors_are_passed_on():
    class Full:
        def write(self, data):
            raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        shoal.dump([1], Full())
    with pytest.raises(TypeError, match="'write' attribute"):
        shoal.dump([1], object())
