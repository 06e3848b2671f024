# SPDX-License-Identifier: BSD-3-Clause
"""Objects that change while they are dumped: each kind of container, changed from within each hook, in every way.

What comes out may be the state before or after, or an exception; the interpreter must stay whole, and the pickler
usable. Under the address sanitizer these tests see a use of what was freed.
"""

import collections
import contextlib
import gc
import io
import pickle
import sys
import threading

import pytest

import shoal

SIZES = [1, 2, 5, 2_100]  # a single part, a short batch, a tuple of its own opcode, several batches


class Attributes:
    def __init__(self, parts):
        self.__dict__.update((f"attribute {i}", part) for i, part in enumerate(parts))


class Slots:
    __slots__ = ("parts", "other")

    def __init__(self, parts):
        self.parts, self.other = parts, [str(len(parts)) * 2]


class ListChild(list):
    pass


class DictChild(dict):
    pass


class Local:
    """By value: its module is none that can be imported."""


def local_class(parts):
    return type("Local", (), {"__module__": "__main__", **{f"attribute_{i}": part for i, part in enumerate(parts)}})


def local_function(parts):
    def function(default=parts, *, keyword=parts):
        return parts, default, keyword

    function.__module__ = "__main__"
    function.note = parts
    return function


def numbered(parts):
    return {f"key {i}": part for i, part in enumerate(parts)}


CONTAINERS = {
    "list": list,
    "dict": numbered,
    "dict by object": lambda parts: {part: [i] for i, part in enumerate(parts)},
    "set": set,
    "frozenset of tuples": lambda parts: frozenset((part, str(i) * 2) for i, part in enumerate(parts)),
    "tuple of a list": lambda parts: (list(parts), "x" * 3, parts),
    "long tuple": tuple,
    "instance": Attributes,
    "slots": Slots,
    "list's child": ListChild,
    "dict's child": lambda parts: DictChild(numbered(parts)),
    "deque": collections.deque,
    "ordered dict": lambda parts: collections.OrderedDict(numbered(parts)),
    "class": local_class,
    "function": local_function,
}


def holders_of(container):
    """What in it can be changed."""
    if isinstance(container, tuple):
        return [part for part in container if isinstance(part, list)]
    if isinstance(container, Slots):
        return [container.parts, container]
    return [container]


def clear(holder):
    if isinstance(holder, (list, dict, set, collections.deque)):
        holder.clear()
    elif isinstance(holder, type):
        for name in [name for name in vars(holder) if name.startswith("attribute")]:
            delattr(holder, name)
    elif isinstance(holder, Slots):
        with contextlib.suppress(AttributeError):
            del holder.parts, holder.other
    elif callable(holder):
        holder.__defaults__ = holder.__kwdefaults__ = None
        holder.__dict__.clear()
        holder.__closure__[0].cell_contents = None
    elif hasattr(holder, "__dict__"):
        vars(holder).clear()


def grow(holder):
    extra = [f"extra {i}" for i in range(2_000)]
    if isinstance(holder, (list, collections.deque)):
        holder.extend(extra)
    elif isinstance(holder, set):
        holder.update(extra)
    elif isinstance(holder, dict):
        holder.update(dict.fromkeys(extra))
    elif isinstance(holder, type):
        for name in extra[:20]:
            setattr(holder, name, name)
    elif hasattr(holder, "__dict__"):
        vars(holder).update(dict.fromkeys(extra))


def replace(holder):
    """Everything out and as much of something else in: the size is the same afterwards."""
    if isinstance(holder, list):
        holder[:] = [f"other {i}" for i in range(len(holder))]
    elif isinstance(holder, collections.deque):
        for i in range(len(holder)):
            holder[i] = f"other {i}"
    elif isinstance(holder, set):
        size = len(holder)
        holder.clear()
        holder.update(f"other {i}" for i in range(size))
    elif isinstance(holder, dict):
        for key in holder:
            holder[key] = f"other {key!s:.20}"
    elif isinstance(holder, type):
        for name in list(vars(holder)):
            if name.startswith("attribute"):
                setattr(holder, name, f"other {name}")
    elif callable(holder):
        holder.__code__ = (lambda *args: holder).__code__
        holder.__defaults__ = ("other",)
    elif hasattr(holder, "__dict__"):
        for name in vars(holder):
            vars(holder)[name] = f"other {name}"


def change_class(holder):
    if isinstance(holder, (Attributes, ListChild, DictChild)):
        before = type(holder)
        holder.__class__ = type("Other", (before,), {})
        before.added = 1
        del before.added


CHANGES = [clear, grow, replace, change_class]


class Trigger:
    """Runs the change when pickle asks about it: in the way that the test wants."""

    def __init__(self):
        self.change = lambda: None

    def fire(self):
        change, self.change = self.change, lambda: None
        change()
        gc.collect(0)


class InReduce(Trigger):
    def __reduce__(self):
        self.fire()
        return int, ()


class InGetstate(Trigger):
    def __getstate__(self):
        self.fire()
        return None


class InReduceParts(Trigger):
    """In the iterators of its parts, when these are under way already."""

    def __reduce__(self):
        return list, (), None, self.parts()

    def parts(self):
        yield "first"
        self.fire()
        yield "second"


class Marked(Trigger):
    """The pickler's own hooks fire it."""

    def __reduce__(self):
        return int, ()


class HookedPickler(shoal.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Marked):
            obj.fire()


class OverridingPickler(shoal.Pickler):
    def reducer_override(self, obj):
        if isinstance(obj, Marked):
            obj.fire()
        return NotImplemented


def dump_with(pickler_type):
    def dump(obj, protocol):
        file = io.BytesIO()
        pickler_type(file, protocol).dump(obj)
        return file.getvalue()

    return dump


def reduce_marked(obj):
    obj.fire()
    return int, ()


class TablePickler(shoal.Pickler):
    dispatch_table = {Marked: reduce_marked}


# The trigger, and how the container is dumped.
HOOKS = {
    "__reduce__": (InReduce, shoal.dumps),
    "__getstate__": (InGetstate, shoal.dumps),
    "an iterator of parts": (InReduceParts, shoal.dumps),
    "persistent_id": (Marked, dump_with(HookedPickler)),
    "reducer_override": (Marked, dump_with(OverridingPickler)),
    "dispatch_table": (Marked, dump_with(TablePickler)),
}


def parts_around(trigger, size, where):
    """Unique strings, which nothing else refers to, and small lists, with the trigger among them."""
    parts = [f"part {i}" if i % 3 else (i, [f"within {i}"]) for i in range(size)]
    parts[{"first": 0, "middle": size // 2, "last": -1}[where]] = trigger
    return parts


def hashable(parts):
    return [part if not isinstance(part, tuple) else part[:1] for part in parts]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_changed_under_way_never_crashes(kind, hook):
    trigger_type, dump = HOOKS[hook]
    for change in CHANGES:
        for size in SIZES:
            for where in ("first", "middle", "last"):
                trigger = trigger_type()
                container = CONTAINERS[kind](hashable(parts_around(trigger, size, where)))

                def fire(container=container, change=change):
                    for holder in holders_of(container):
                        change(holder)

                trigger.change = fire
                for protocol in (5, 2, 0) if size < 100 else (5,):
                    with contextlib.suppress(RuntimeError, AttributeError, TypeError, pickle.PicklingError):
                        shoal.loads(dump(container, protocol))
                    trigger.change = fire
    assert pickle.loads(shoal.dumps(["a", ["b"]])) == ["a", ["b"]]


@pytest.mark.parametrize("kind", ["list", "dict", "set", "instance", "list's child", "deque"])
def test_a_container_changed_by_the_file_it_goes_to_never_crashes(kind):
    """Frames are written while the container is under way."""
    for change in CHANGES:
        container = CONTAINERS[kind]([f"{i} " * 40 for i in range(5_000)])

        class File:
            def __init__(self, container, change):
                self.container, self.change, self.writes = container, change, 0

            def write(self, data):
                self.writes += 1
                self.change(self.container)
                gc.collect(0)

        file = File(container, change)
        with contextlib.suppress(RuntimeError):
            shoal.dump(container, file)
        assert file.writes > 0


@pytest.mark.parametrize("kind", ["list", "dict", "tuple of a list", "instance", "set"])
def test_a_container_changed_by_buffer_callback_never_crashes(kind):
    for change in CHANGES:
        for in_band in (True, False):
            buffers = [pickle.PickleBuffer(bytearray(b"12345")) for _ in range(3)]
            container = CONTAINERS[kind](buffers)

            def callback(buffer, container=container, change=change, in_band=in_band):
                for holder in holders_of(container):
                    change(holder)
                return in_band

            with contextlib.suppress(RuntimeError):
                shoal.dumps(container, buffer_callback=callback)


def test_a_buffer_released_or_resized_under_way_never_crashes():
    data = bytearray(b"x" * 100_000)
    buffer = pickle.PickleBuffer(data)

    def release(_):
        buffer.release()
        data.clear()
        return True

    with pytest.raises(ValueError, match="released"):
        shoal.dumps(buffer, buffer_callback=release)

    class File:
        def write(self, written):
            with contextlib.suppress(BufferError):
                data.clear()

    data = bytearray(b"x" * 1_000_000)
    shoal.dump(data, File())
    shoal.dump([data], File())


def test_a_memo_cleared_or_replaced_under_way_never_crashes():
    for protocol in range(6):
        for interfere in (
            lambda pickler: pickler.clear_memo(),
            lambda pickler: setattr(pickler, "memo", {}),
            lambda pickler: setattr(pickler, "memo", {1: (0, "other"), 2: (5, [])}),
            lambda pickler: setattr(pickler, "fast", True),
            lambda pickler: pickler.__init__(io.BytesIO()),
        ):
            pickler = shoal.Pickler(io.BytesIO(), protocol)
            trigger = InReduce()
            shared = [f"shared {protocol}", trigger]
            trigger.change = lambda interfere=interfere, pickler=pickler: interfere(pickler)
            inside = []
            inside.extend(({"k": inside}, (inside, shared), Attributes([inside, shared]), local_function([shared])))
            with contextlib.suppress(RuntimeError, ValueError, pickle.PicklingError):
                pickler.dump([shared, inside, (trigger, shared), {trigger: shared}, shared])


# ---- threads ----


@pytest.fixture
def quick_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_in_threads(*functions):
    """All at once; the exceptions that they raised."""
    barrier, raised = threading.Barrier(len(functions)), []

    def run(function):
        barrier.wait()
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


class Slow:
    """Gives other threads their turn while it is asked."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        for _ in range(20):
            pass
        return Slow, (self.number,)


def test_two_threads_dump_the_same_objects(quick_switches):
    value = [[Slow(i), {"k": f"v{i}"}, (i, str(i)), Attributes([i])] for i in range(300)]
    expected = shoal.dumps(value)
    wrong = []

    def dump():
        for _ in range(10):
            if shoal.dumps(value) != expected:
                wrong.append(1)

    assert run_in_threads(dump, dump, dump) == []
    assert not wrong


def test_one_pickler_in_two_threads_is_a_clear_error(quick_switches):
    inside, outside = threading.Event(), threading.Event()

    class Waits:
        def __reduce__(self):
            inside.set()
            outside.wait(60)
            return int, ()

    file = io.BytesIO()
    pickler = shoal.Pickler(file)

    def second():
        inside.wait(60)
        try:
            pickler.dump([1])
        finally:
            outside.set()

    (error,) = run_in_threads(lambda: pickler.dump([Waits(), "rest"]), second)
    assert isinstance(error, RuntimeError)
    assert "at work" in str(error)
    assert pickle.loads(file.getvalue()) == [0, "rest"]


def test_an_object_changed_by_another_thread_never_crashes(quick_switches):
    for kind in ("list", "dict", "set", "instance"):
        container = CONTAINERS[kind]([Slow(i) if i % 2 else f"part {i}" for i in range(500)])
        done = threading.Event()

        def dump(container=container, done=done):
            try:
                for _ in range(20):
                    with contextlib.suppress(RuntimeError):
                        shoal.loads(shoal.dumps(container))
            finally:
                done.set()

        def change(container=container, done=done, kind=kind):
            while not done.is_set():
                for how in (grow, replace, clear):
                    with contextlib.suppress(RuntimeError):
                        how(container)

        assert run_in_threads(dump, change) == []
