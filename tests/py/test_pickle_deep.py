# SPDX-License-Identifier: BSD-3-Clause
"""Data nested far beyond the interpreter's recursion limit, and user code that runs at any depth of them."""

import dataclasses
import functools
import gc
import io
import pickle
import sys
import threading
import types

import pytest

import sanitizer
import shoal

DEPTH = 30_000 if sanitizer.ADDRESS else 100_000  # where each level is a call, its frames are larger under it, too


class Node:
    def __init__(self, inner):
        self.inner = inner


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner):
        self.inner = inner


class Reduced:
    def __init__(self, inner):
        self.inner = inner

    def __reduce__(self):
        return Reduced, (self.inner,)


class WithState:
    def __init__(self, inner):
        self.inner = inner

    def __getstate__(self):
        return {"inner": self.inner}


@dataclasses.dataclass
class Data:
    inner: object


@dataclasses.dataclass
class SlottedData:
    __slots__ = ("inner",)
    inner: object


class ListChild(list):
    pass


class DictChild(dict):
    pass


def closure(inner):
    return lambda: inner


def of_inner(obj):
    return obj.inner


def first(obj):
    return obj[0]


# How one level is made, and how its inside is got.
KINDS = {
    "list": (lambda inner: [inner], first),
    "long list": (lambda inner: [1, "two", inner, 4.0], lambda obj: obj[2]),
    "tuple": (lambda inner: (inner,), first),
    "long tuple": (lambda inner: (1, 2, 3, inner), lambda obj: obj[3]),
    "dict": (lambda inner: {"inner": inner}, lambda obj: obj["inner"]),
    "frozenset": (lambda inner: frozenset([inner]), lambda obj: next(iter(obj))),
    "instance": (Node, of_inner),
    "slots": (Slotted, of_inner),
    "reduce": (Reduced, of_inner),
    "getstate": (WithState, of_inner),
    "dataclass": (Data, of_inner),
    "dataclass with slots": (SlottedData, of_inner),
    "list's child": (lambda inner: ListChild([inner]), first),
    "dict's child": (lambda inner: DictChild(inner=inner), lambda obj: obj["inner"]),
    "closure": (closure, lambda function: function()),
}


def nested(make, depth=DEPTH, innermost="bottom"):
    for _ in range(depth):
        innermost = make(innermost)
    return innermost


def depth_of(obj, inner, innermost="bottom"):
    """By a loop, and letting go of each level on the way."""
    depth = 0
    while obj != innermost:
        obj = inner(obj)
        depth += 1
    return depth


def in_thread(function):
    """What the function returns or raises, run in a thread of its own."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error:
        raise error
    return result


WHERE = [pytest.param(lambda function: function(), id="main"), pytest.param(in_thread, id="thread")]


@pytest.mark.parametrize("kind", KINDS)
def test_deep_data_go_out_and_come_back(kind):
    make, inner = KINDS[kind]
    stream = shoal.dumps(nested(make))
    assert depth_of(shoal.loads(stream), inner) == DEPTH
    assert depth_of(pickle.loads(stream), inner) == DEPTH


@pytest.mark.parametrize("kind", KINDS)
def test_deep_data_go_out_and_come_back_in_a_thread(kind):
    make, inner = KINDS[kind]
    assert in_thread(lambda: depth_of(shoal.loads(shoal.dumps(nested(make))), inner)) == DEPTH


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["list", "tuple", "dict", "instance", "reduce"])
def test_each_protocol_goes_deep(kind, protocol):
    make, inner = KINDS[kind]
    assert depth_of(shoal.loads(shoal.dumps(nested(make, 20_000), protocol)), inner) == 20_000


def test_kinds_mixed_in_one_chain():
    makes = [make for kind, (make, _) in KINDS.items() if kind != "frozenset"]  # some are not hashable
    stream = shoal.dumps(functools.reduce(lambda inner, i: makes[i % len(makes)](inner), range(DEPTH), None))
    assert shoal.loads(stream) is not None


def test_the_stream_is_that_of_shallow_data():
    for kind in ("list", "tuple", "dict", "instance"):
        make, _ = KINDS[kind]
        obj = nested(make, 90)
        assert shoal.dumps([obj] * 2) == pickle.dumps([obj] * 2, 5)
    stream = shoal.dumps(nested(KINDS["list"][0]))
    assert stream.count(b"]\x94") == stream.count(b"a") == DEPTH


def test_partials_within_partials():
    def partial_with_attribute(inner):
        made = functools.partial(inner)
        made.level = 1  # else the outer one takes the inner one's place
        return made

    obj = nested(partial_with_attribute, innermost=print)
    copy = shoal.loads(shoal.dumps(obj))
    levels = []  # deallocating such a chain from its head would be too much for the interpreter
    for chain in (obj, copy):
        while chain is not print:
            levels.append(chain)
            chain = chain.func
    del obj, copy, chain
    assert len(levels) == 2 * DEPTH
    while levels:
        levels.pop()


def nested_code(levels):
    code = (lambda: 1).__code__
    for _ in range(levels):
        code = code.replace(co_consts=(None, code))
    return types.FunctionType(code, {})


def nested_constants(levels):
    return types.FunctionType((lambda: 1).__code__.replace(co_consts=(None, nested(lambda c: (c,), levels, 1))), {})


@pytest.mark.parametrize("make", [nested_code, nested_constants])
def test_code_nested_too_deeply_is_a_pickling_error(make):
    assert shoal.dumps(shoal.loads(shoal.dumps(make(200)))) == shoal.dumps(make(200))
    with pytest.raises(shoal.PicklingError, match="code is nested too deeply: after .* levels"):
        shoal.dumps(make(50_000))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="reader and writer have one limit, which cannot be set")
def test_code_nested_too_deeply_for_the_reader_is_an_unpickling_error():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    try:
        stream = shoal.dumps(nested_code(2_000))
    finally:
        sys.setrecursionlimit(before)
    with pytest.raises(shoal.UnpicklingError, match="code is nested too deeply: after .* levels"):
        shoal.loads(stream)


def test_classes_derived_from_classes():
    namespace = {"__name__": "__main__"}
    exec("class C: pass\nfor _ in range(300):\n    class C(C): pass", namespace)
    assert len(shoal.loads(shoal.dumps(namespace["C"])).__mro__) == 302


def test_classes_within_classes():
    innermost = None
    for _ in range(2_000):
        innermost = type("C", (), {"__module__": "__main__", "inner": innermost})
    assert depth_of(shoal.loads(shoal.dumps(innermost)), of_inner, None) == 2_000


def test_a_wide_tree_goes_below_the_edge_again_and_again():
    """Each of these crosses from one stack to the next, many times at the same place."""
    for depth in range(0, 700, 7):
        obj = nested(lambda inner: [inner], depth, [[[i]] for i in range(20)])
        assert shoal.dumps(obj, 2) is not None
    obj = nested(lambda inner: [inner], 5_000, [nested(lambda inner: [inner], 1_000, i) for i in range(100)])
    copy = shoal.loads(shoal.dumps(obj))
    for _ in range(5_000):
        copy = copy[0]
    assert [depth_of(part, first, i) for i, part in enumerate(copy)] == [1_000] * 100


# ---- user code at a depth ----


def recurse(n):
    return 0 if n == 0 else 1 + recurse(n - 1)


def recurse_for_ever(n):
    return recurse_for_ever(n + 1)


class ThroughC:
    """Recursion that takes the interpreter's C stack at each level."""

    def __repr__(self):
        return repr([self, self])[:0] + format(self)

    def __format__(self, spec):
        return "".join(map(repr, [self]))


class Busy:
    """Asked at a depth, it does what the test wants."""

    def __init__(self, what):
        self.what = what

    def __reduce__(self):
        return list, (self.what(),)


@pytest.mark.parametrize("where", WHERE)
def test_user_code_at_a_depth_can_recurse_as_anywhere(where):
    seen = []

    def use():
        seen.append(recurse(sys.getrecursionlimit() // 2))
        return ()

    where(lambda: shoal.dumps(nested(lambda inner: [inner, Busy(use)], 1_000)))
    assert seen == [sys.getrecursionlimit() // 2] * 1_000


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("depth", [0, 1, 100, 200, 1_000, DEPTH])
@pytest.mark.parametrize("endless", [lambda: recurse_for_ever(0), lambda: repr(ThroughC())], ids=["Python", "C"])
def test_user_code_at_a_depth_that_recurses_for_ever_gets_a_recursion_error(where, depth, endless):
    caught = []

    def use():
        try:
            endless()
        except RecursionError as error:
            caught.append(error)
        return ()

    obj = nested(lambda inner: [inner], depth, Busy(use))
    assert depth_of(shoal.loads(where(lambda: shoal.dumps(obj))), first, []) == depth
    assert len(caught) == 1


@pytest.mark.parametrize("depth", [0, 100, 1_000, DEPTH])
def test_a_recursion_error_of_user_code_passes(depth):
    with pytest.raises(RecursionError):
        shoal.dumps(nested(lambda inner: [inner], depth, Busy(lambda: recurse_for_ever(0))))


@pytest.mark.parametrize("where", WHERE)
def test_user_code_at_a_depth_dumps_deep_data_itself(where):
    deep = nested(lambda inner: (inner,), 20_000)
    streams = []

    def use():
        streams.append(shoal.dumps(deep))
        return ()

    where(lambda: shoal.dumps(nested(lambda inner: [inner], 20_000, [Busy(use), Busy(use)])))
    assert [depth_of(shoal.loads(stream), first) for stream in streams] == [20_000] * 2


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("depth", [0, 50, 500])
def test_dumps_within_dumps_until_the_recursion_limit(where, depth):
    """The chain of Python frames is bounded by the interpreter; what is between them must not take the stack away."""
    levels = []

    def again():
        levels.append(1)
        shoal.dumps(nested(lambda inner: [inner], depth, Busy(again)))

    with pytest.raises(RecursionError):
        where(again)
    assert 100 < len(levels) <= sys.getrecursionlimit()


def test_hooks_of_a_pickler_run_at_any_depth():
    class Hooked(shoal.Pickler):
        def __init__(self, *args):
            super().__init__(*args)
            self.asked = self.overridden = 0

        def persistent_id(self, obj):
            self.asked += 1
            assert recurse(100) == 100

        def reducer_override(self, obj):
            self.overridden += 1
            assert recurse(100) == 100
            return NotImplemented

    file = io.BytesIO()
    pickler = Hooked(file)
    pickler.dump(nested(lambda inner: Node([inner]), 2_000))
    assert pickler.asked > 4_000
    assert pickler.overridden > 2_000
    assert depth_of(shoal.loads(file.getvalue()), lambda node: node.inner[0]) == 2_000


def test_an_error_at_the_bottom_is_told_with_a_bounded_path():
    with pytest.raises(TypeError, match="cannot pickle") as caught:
        shoal.dumps(nested(lambda inner: [inner], DEPTH, threading.Lock()))
    assert len(str(caught.value)) < 2_000


def test_many_threads_go_deep_at_once():
    make, inner = KINDS["reduce"]
    results = []

    def run():
        results.append(depth_of(shoal.loads(shoal.dumps(nested(make, 10_000))), inner))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [10_000] * 8


def test_a_thread_with_a_small_stack_goes_deep():
    obj = nested(Node)  # 3.13 itself needs more than that to free such a chain
    size = threading.stack_size(512 * 1024)
    try:
        stream = in_thread(lambda: shoal.dumps(obj))
    finally:
        threading.stack_size(size)
    assert depth_of(shoal.loads(stream), of_inner) == DEPTH


def test_garbage_collection_at_a_depth_frees_deep_garbage():
    def use():
        nested(Node)
        cycle = [nested(lambda inner: [inner])]
        cycle.append(cycle)
        del cycle
        gc.collect()
        return ()

    assert shoal.dumps(nested(lambda inner: [inner], 10_000, Busy(use)))


def test_memory_of_the_stack_is_given_back():
    def mapped():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0])

    obj = nested(lambda inner: [inner])
    shoal.dumps(obj)
    before = mapped()
    for _ in range(10):
        shoal.dumps(obj)
    assert mapped() - before < 10_000  # pages; a segment has 16,000 or more
