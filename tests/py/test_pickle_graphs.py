# SPDX-License-Identifier: BSD-3-Clause
"""Random object graphs: what pickle makes of them, Shoal makes of them, too.

The measure is pickle itself: the bytes are the same (but for arrays in one piece, which are written shorter), and every
way through dumps, loads and a pool's worker gives a graph of the same shape (types, values, and which object is met
again where). Graphs that change while they are dumped or loaded may give an exception or something that nobody wants,
but never a crash.
"""

import collections
import contextlib
import gc
import io
import operator
import pickle
import sys
import threading

import hypothesis
import pytest
from hypothesis import strategies as st

import shoal
from graphs import LINKS, MAKERS, STEP, Named, Plain, graphs, link, shape

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
EXAMPLES = hypothesis.settings(
    max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True, database=None
)


def dumps_or_error(dumps, obj, protocol):
    try:
        return dumps(obj, protocol)
    except (TypeError, ValueError, AttributeError, RecursionError, pickle.PicklingError) as error:
        return type(error)


def names_arrays(stream):
    """Ours of these is another one, and shorter."""
    return b"_frombuffer" in stream or b"_reconstruct" in stream


@pytest.mark.parametrize("protocol", PROTOCOLS)
@EXAMPLES
@hypothesis.given(graph=graphs())
def test_any_graph_goes_every_way_as_with_pickle(protocol, graph):
    stream = dumps_or_error(pickle.dumps, graph, protocol)
    ours = dumps_or_error(shoal.dumps, graph, protocol)
    if stream is RecursionError:  # what has no end, has none here; what is only deep has
        assert ours is pickle.PicklingError or isinstance(ours, bytes)
        return
    has_arrays = not isinstance(stream, type) and names_arrays(stream)
    assert ours == stream or (has_arrays and len(ours) < len(stream))
    if isinstance(stream, type):
        return
    try:
        expected = pickle.loads(stream)
    except Exception as error:
        with pytest.raises(type(error)):
            shoal.loads(stream)
        with pytest.raises(type(error)):
            pickle.loads(ours)
        return
    wanted = shape(expected)
    assert shape(pickle.loads(ours), strings=not has_arrays) == shape(expected, strings=not has_arrays)
    assert shape(shoal.loads(stream)) == wanted
    assert shape(shoal.load(io.BytesIO(stream))) == wanted
    file = io.BytesIO()
    shoal.Pickler(file, protocol).dump(graph)
    assert file.getvalue() == ours


@EXAMPLES
@hypothesis.given(graph=graphs())
def test_any_graph_with_its_buffers_apart(graph):
    theirs, ours = [], []
    try:
        stream = pickle.dumps(graph, 5, buffer_callback=theirs.append)
    except (TypeError, RecursionError):
        return
    shorter = shoal.dumps(graph, 5, buffer_callback=ours.append)
    assert shorter == stream or (names_arrays(stream) and len(shorter) < len(stream))
    assert [bytes(buffer.raw()) for buffer in ours] == [bytes(buffer.raw()) for buffer in theirs]
    try:
        expected = pickle.loads(stream, buffers=theirs)
    except Exception:
        return
    assert shape(shoal.loads(stream, buffers=ours)) == shape(expected)
    assert shape(pickle.loads(shorter, buffers=ours), strings=False) == shape(expected, strings=False)


@pytest.fixture(scope="module")
def pool():
    with shoal.Pool(1) as pool:
        yield pool


@EXAMPLES
@hypothesis.given(graph=graphs())
def test_any_graph_to_a_worker_and_back_as_with_pickle(pool, graph):
    try:
        there = pickle.loads(pickle.dumps(graph))
        back = pickle.loads(pickle.dumps(there))  # the order of a set may change each time
    except Exception:
        return
    assert pool.apply(shape, (graph, False)) == shape(there, strings=False)
    assert shape(pool.apply(operator.itemgetter(0), ([graph],)), strings=False) == shape(back, strings=False)


# ---- graphs that change while they are under way ----


class Saboteur:
    """Whatever pickle asks of it, it does the next of its deeds first."""

    generation = 0

    def __init__(self, deeds):
        self.__dict__["deeds"] = deeds

    def child(self, deeds):
        made = Saboteur(deeds)
        made.__dict__["generation"] = self.generation + 1
        return made

    def act(self):
        if deeds := vars(self).get("deeds"):  # its dict may have been emptied
            deeds.pop()()

    def __reduce_ex__(self, protocol):
        self.act()
        return Saboteur, ([],), {"part": Shy(self)}, self.acting_iterator(), iter([(1, Shy(self))])

    def acting_iterator(self):
        self.act()
        yield f"temporary {id(self)}"
        self.act()

    def __setstate__(self, state):
        pass

    def append(self, item):
        pass

    def __setitem__(self, key, value):
        pass

    def __eq__(self, other):
        self.act()
        return self is other

    def __hash__(self):
        return 5

    def __del__(self):
        self.act()


class Shy:
    """Its state is a property that acts; its key in a dict, too. For two generations, or it would have no end."""

    def __init__(self, owner):
        self.owner = owner

    def __reduce__(self):
        if (owner := self.owner).generation == 2:
            return dict, ()
        return dict, (), None, None, iter([(owner.child([]), 1), (owner.child([owner.act]), [])])


@pytest.fixture
def quick_and_quiet(monkeypatch):
    """The many collections have only these objects to look at; what __del__ raises is not told."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def empty(holder):
    if isinstance(holder, (list, dict, set, collections.deque)):
        holder.clear()
    elif hasattr(holder, "__dict__"):
        with contextlib.suppress(TypeError):
            vars(holder).clear()


def swap(holder, part):
    """Out with what is in it, in with something else: the size stays."""
    with contextlib.suppress(Exception):
        if isinstance(holder, dict):
            holder.popitem()
            holder["other"] = part
        else:
            holder.pop()
            holder.add(object()) if isinstance(holder, set) else holder.append(part)


def deeds_on(holder, part, pickler):
    def allocate():
        return [bytearray(n) for n in range(20)], [(n, str(n)) for n in range(20)]

    def be_nested():
        with contextlib.suppress(Exception):
            shoal.loads(shoal.dumps([part, 1]))

    def use_pickler():
        with contextlib.suppress(Exception):
            pickler.dump(part)

    def change_function(function=counter):
        function.__defaults__, function.__kwdefaults__ = (part,), {"step": part}
        function.__dict__.clear()
        function.__code__ = other_counter.__code__ if function.__code__ is COUNTER_CODE else COUNTER_CODE

    def change_class():
        Plain.added = part
        Plain.__getstate__ = lambda self: {"other": 1}
        del Plain.__getstate__

    return [
        lambda: empty(holder),
        lambda: swap(holder, part),
        lambda: link(holder, [part]),
        allocate,
        gc.collect,
        be_nested,
        use_pickler,
        change_function,
        change_class,
        pickler.clear_memo,
        lambda: setattr(pickler, "fast", not pickler.fast),
        lambda: setattr(pickler, "memo", {1: (1, part)}),
        lambda: setattr(pickler, "dispatch_table", {Plain: lambda obj: (Plain, ())}),
        lambda: setattr(pickler, "reducer_override", lambda obj: NotImplemented),
        lambda: setattr(pickler, "persistent_id", lambda obj: None),
        lambda: operator.truediv(1, 0),
    ]


class OurPickler(shoal.Pickler):
    pass


def make_counter():
    count = [0]

    def counter(step=1, *, more=None):
        return count, counter, MAKERS

    def other_counter(step=1, *, more=None):
        return count, count, other_counter, PROTOCOLS

    counter.note = other_counter
    return counter, other_counter


counter, other_counter = make_counter()
COUNTER_CODE = counter.__code__


@pytest.mark.parametrize("protocol", PROTOCOLS)
@EXAMPLES
@hypothesis.given(
    data=st.data(), made=st.lists(STEP, min_size=1, max_size=8), links=LINKS, by_value=st.booleans(), fast=st.booleans()
)
def test_a_graph_that_changes_under_way_is_dumped_or_refused(
    protocol, data, made, links, by_value, fast, quick_and_quiet
):
    file = io.BytesIO()
    pickler = OurPickler(file, protocol)
    pickler.fast = fast
    saboteur = Saboteur([])
    graph = [saboteur, f"lone {protocol}", {"lone": f"value {protocol}"}]
    for make, wanted in made:
        graph.append(make([graph[number % len(graph)] for number in wanted]))
    for holder, part in links:
        link(graph[holder % len(graph)], graph[part % len(graph)])
    graph.append(saboteur)
    if by_value:
        graph[1:1] = make_counter(), type("Local", (Plain,), {"part": saboteur, "all": graph})
    deeds = [
        data.draw(st.sampled_from(deeds_on(graph[holder % len(graph)], graph[part % len(graph)], pickler)))
        for holder, part in data.draw(LINKS)
    ]
    for dump in (pickler.dump, lambda graph: shoal.loads(shoal.dumps(graph, protocol))):
        vars(saboteur)["deeds"] = list(deeds)
        with contextlib.suppress(Exception):
            dump(graph)
    vars(saboteur)["deeds"] = []
    assert shoal.loads(shoal.dumps([1, "a"])) == [1, "a"]


class Meddler:
    """Loaded, it changes what is being loaded."""

    def __init__(self, how, *seen):
        self.arguments = how, *seen

    def __reduce__(self):
        return meddle, self.arguments


def meddle(how, *seen):
    for obj in seen:
        with contextlib.suppress(Exception):
            how(obj)


def collect(obj):
    gc.collect()


def spoil(obj):
    obj.append(obj)
    obj.sort(key=id)


def replace(obj):
    for key in list(obj):
        obj[key] = object()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@EXAMPLES
@hypothesis.given(
    made=st.lists(STEP, min_size=1, max_size=8),
    links=LINKS,
    meddling=st.lists(
        st.tuples(st.sampled_from([empty, collect, spoil, replace, shoal.dumps]), st.integers(0, 40)), max_size=4
    ),
)
def test_a_graph_that_changes_while_it_is_loaded_never_crashes(protocol, made, links, meddling, quick_and_quiet):
    graph = [[], {}, Plain(), Named(3)]
    for make, wanted in made:
        graph.append(make([graph[number % len(graph)] for number in wanted]))
    for how, number in meddling:
        link(graph[number % len(graph)], Meddler(how, graph[number % len(graph)], graph))
    for holder, part in links:
        link(graph[holder % len(graph)], graph[part % len(graph)])
    graph.append(Meddler(empty, graph))
    try:
        stream = pickle.dumps(graph, protocol)
    except Exception:
        return
    with contextlib.suppress(Exception):
        shoal.loads(stream)
    with contextlib.suppress(Exception):
        shoal.load(io.BytesIO(stream))
    assert shoal.loads(shoal.dumps([1, "a"])) == [1, "a"]


# ---- objects that live for a moment, and threads ----


class Temporaries:
    """Each part dies as soon as it is written, and the next one may get its address."""

    def __init__(self, make):
        self.make = make

    def __reduce__(self):
        parts = (self.make(number) for number in range(3000))
        return list, (), None, parts


@pytest.mark.parametrize(
    "make",
    [
        lambda number: f"text {number}",
        lambda number: [number],
        lambda number: (number, str(number)),
        lambda number: {f"key {number}": f"value {number}"},
        lambda number: b"%d" % number,
        lambda number: range(number),
        lambda number: 10**30 + number,
    ],
)
def test_an_address_that_is_used_again_is_not_taken_for_the_object_that_was_there(pool, make):
    wanted = [make(number) for number in range(3000)]
    assert pool.apply(list, (Temporaries(make),)) == wanted
    assert shoal.loads(shoal.dumps(Temporaries(make))) == wanted


def test_an_object_that_is_reached_in_several_ways_stays_one(pool):
    def relations(items, again, mapping, value, state, instance):
        return items is again, mapping["key"] is value, state is vars(instance), instance.part is items

    instance = Plain()
    instance.part = [f"lone {id(instance)}"]
    mapping = {"key": ("lone", [id(instance)])}
    arguments = (instance.part, instance.part, mapping, mapping["key"], vars(instance), instance)
    assert pool.apply(relations, arguments) == relations(*pickle.loads(pickle.dumps(arguments)))
    assert pool.apply(relations, arguments)[:2] == (True, True)


class Waiting:
    """Stops in the middle of being dumped, or loaded, until another thread had its turn."""

    def __init__(self, entered, may_go_on):
        self.entered, self.may_go_on = entered, may_go_on

    def __reduce__(self):
        self.entered.set()
        self.may_go_on.wait()
        return list, ()


def test_a_pickler_in_use_by_another_thread_says_so():
    file = io.BytesIO()
    pickler = shoal.Pickler(file)
    waiting = Waiting(threading.Event(), threading.Event())
    thread = threading.Thread(target=pickler.dump, args=([waiting, "a"],))
    thread.start()
    waiting.entered.wait()
    try:
        with pytest.raises(RuntimeError, match="at work"):
            pickler.dump(1)
        with pytest.raises(RuntimeError, match="at work"):
            pickler.__init__(file)
        assert shoal.loads(shoal.dumps([1, "a"])) == [1, "a"]
    finally:
        waiting.may_go_on.set()
        thread.join()
    assert pickle.loads(file.getvalue()) == [[], "a"]


def test_an_unpickler_in_use_by_another_thread_says_so():
    entered, may_go_on = threading.Event(), threading.Event()

    class Unpickler(shoal.Unpickler):
        def find_class(self, module, name):
            entered.set()
            may_go_on.wait()
            return super().find_class(module, name)

    results = []
    unpickler = Unpickler(io.BytesIO(pickle.dumps([Plain, 1])))
    thread = threading.Thread(target=lambda: results.append(unpickler.load()))
    thread.start()
    entered.wait()
    try:
        with pytest.raises(RuntimeError, match="already used"):
            unpickler.load()
        with pytest.raises(RuntimeError, match="already used"):
            unpickler.__init__(io.BytesIO())
    finally:
        may_go_on.set()
        thread.join()
    assert results == [[Plain, 1]]
