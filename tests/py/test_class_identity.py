# SPDX-License-Identifier: BSD-3-Clause
"""Which class is which: the same stream for the same definition, one class for one source, and two for two."""

import gc
import pickle
import sys
import textwrap
import threading
import typing
import weakref

import pytest

import shoal


def make(value=1):
    class Local:
        kind = value
        items = []

        def get(self):
            return self.kind

    return Local


def home(obj):
    return pickle.loads(shoal.dumps(obj))


def test_it_is_the_same_class_after_any_number_of_journeys():
    cls = make()
    streams = [shoal.dumps(cls), shoal.dumps(cls()), shoal.dumps([cls, cls])]
    assert streams[0] == shoal.dumps(cls)
    assert pickle.loads(streams[0]) is cls
    assert type(pickle.loads(streams[1])) is cls
    assert pickle.loads(streams[2]) == [cls, cls]


def test_two_alive_together_never_share_an_identity():
    classes = [make() for _ in range(5)]
    assert len({shoal.dumps(cls) for cls in classes}) == 5
    assert [home(cls) for cls in classes] == classes


def test_what_was_changed_here_stays_when_an_older_or_equal_state_comes():
    cls = make()
    first = shoal.dumps(cls)
    cls.kind = 2
    assert pickle.loads(first) is cls
    assert cls.kind == 2
    second = shoal.dumps(cls)
    cls.kind = 3
    assert pickle.loads(first) is pickle.loads(second) is cls
    assert cls.kind == 3


SOURCE = """
import pickle, shoal, sys
class C:
    value, items = 1, [1]
    def f(self): return (self.value, list(self.items), K)
K = 0
streams = []
def send(): streams.append(shoal.dumps(C()))
"""
SAVE = "\npickle.dump(streams, open(sys.argv[1], 'wb'))\n"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("C.value = 2", (2, [1], 0)),
        ("C.items.append(2)", (1, [1, 2], 0)),
        ("C.f = lambda self: 'other'", "other"),
        ("K = 5", (1, [1], 5)),
        ("class B:\n    def g(self): return 9\nC.__bases__ = (B,)\nC.f = lambda self: self.g()", 9),
    ],
)
def test_a_change_at_the_source_reaches_instances_elsewhere(fresh_python, tmp_path, change, wanted):
    base = "class Old: pass\n" if "__bases__" in change else ""
    source = SOURCE.replace("class C:", base + ("class C(Old):" if base else "class C:"))
    file = tmp_path / "pickle"
    fresh_python(source + "send()\n" + change + "\nsend()\nsend()\n" + SAVE, file)
    fresh_python(
        f"""
        import pickle, sys
        streams = pickle.load(open(sys.argv[1], 'rb'))
        old = pickle.loads(streams[0])
        cls = type(old)
        cls.own, before = 'mine', old.f()
        again = pickle.loads(streams[0])
        assert type(again) is cls and old.f() == before == (1, [1], 0)
        new = pickle.loads(streams[1])
        assert type(new) is cls and old.f() == {wanted!r}, old.f()
        assert cls.own == 'mine'
        assert streams[1] == streams[2]
        pickle.loads(streams[0])
        assert old.f() == {wanted!r} or {change!r} == 'K = 5'  # globals are those of the last stream, as for functions
        """,
        file,
    )


def test_an_attribute_that_was_set_here_survives_a_change_of_another(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    fresh_python(SOURCE + "send()\nC.f = lambda self: 'new'\ndel C.items\nsend()\n" + SAVE, file)
    fresh_python(
        """
        import pickle, sys
        streams = pickle.load(open(sys.argv[1], 'rb'))
        old = pickle.loads(streams[0])
        type(old).value = 'mine'
        pickle.loads(streams[1])
        assert old.f() == 'new' and old.value == 'mine' and not hasattr(old, 'items')
        """,
        file,
    )


def test_classes_that_are_registered_later_reach_a_reader_that_has_the_class(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    source = """
        import abc, pickle, shoal, sys
        class Shape(abc.ABC): pass
        class First: pass
        class Second: pass
        streams = []
        Shape.register(First)
        streams.append(shoal.dumps((Shape, First, Second)))
        Shape.register(Second)
        Shape.register(bytes)
        streams.append(shoal.dumps((Shape, First, Second)))
        streams.append(shoal.dumps((Shape, First, Second)))
        assert streams[1] == streams[2]
        """
    fresh_python(textwrap.dedent(source) + SAVE, file)
    fresh_python(
        """
        import pickle, sys
        streams = pickle.load(open(sys.argv[1], 'rb'))
        shape, first, second = pickle.loads(streams[0])
        Own = type("Own", (), {})
        shape.register(Own)
        assert issubclass(first, shape) and not issubclass(second, shape)
        for stream in streams[1:] + streams:
            again = pickle.loads(stream)
            assert again == (shape, first, second)
            assert all(issubclass(other, shape) for other in (first, second, bytes, Own)) and not issubclass(int, shape)
        """,
        file,
    )


def test_a_class_that_is_defined_again_is_another(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    again = "old = C()\nsend()\nclass C:\n    def f(self): return 'again'\nsend()\nstreams.append(shoal.dumps(old))\n"
    fresh_python(SOURCE + again + SAVE, file)
    fresh_python(
        """
        import pickle, sys
        first, second, third = map(pickle.loads, pickle.load(open(sys.argv[1], 'rb')))
        assert type(first) is type(third) is not type(second)
        assert first.f()[0] == 1 and second.f() == 'again'
        """,
        file,
    )


def test_the_same_definition_has_the_same_bytes_in_every_process(fresh_python):
    script = """
    import shoal, sys, dataclasses, enum, typing
    T = typing.TypeVar('T')
    @dataclasses.dataclass
    class D(typing.Generic[T]):
        a: int = 1
        names = {'x', 'y', 'z', 'w'}
        def f(self): self.p = self.q = self.r = 1; return self.a in {'b', 'c', 'd'}
    class E(enum.Flag):
        A = 1
        B = 2
    class F:
        def __init__(self): self.s = self.t = self.u = None
    sys.stdout.write(shoal.dumps([D, D(2), E.A | E.B, F]).hex())
    """
    assert len({fresh_python(script, env={"PYTHONHASHSEED": str(seed)}).stdout for seed in range(4)}) == 1


TWO_SOURCES = """
import pickle, shoal, sys
class C:
    value = 1
    def f(self): return self.value
shoal.dumps(C)
"""


def test_equal_definitions_of_two_processes_are_one_class_and_others_are_two(fresh_python, tmp_path):
    files = [tmp_path / name for name in "ab"]
    fresh_python(
        TWO_SOURCES + "streams = [shoal.dumps(C())]\nC.value = 'a'\nstreams.append(shoal.dumps(C()))" + SAVE, files[0]
    )
    fresh_python(
        TWO_SOURCES + "streams = [shoal.dumps(C())]\nC.value = 'b'\nstreams.append(shoal.dumps(C()))" + SAVE, files[1]
    )
    load = "a, b = (pickle.load(open(name, 'rb')) for name in sys.argv[1:])\n"
    fresh_python(
        "import pickle, sys\n" + load + "assert a[0] == b[0]\n"
        "first, a1, b1, a2 = map(pickle.loads, (a[0], a[1], b[1], a[1]))\n"
        "assert type(first) is type(a1) is type(a2) is not type(b1)\n"
        "assert first.f() == a2.f() == 'a' and b1.f() == 'b'\n"
        "import shoal\n"
        "assert [type(x) for x in pickle.loads(shoal.dumps([a1, b1]))] == [type(a1), type(b1)]\n"
        "assert shoal.dumps(a1) != shoal.dumps(b1)",
        *files,
    )
    fresh_python(
        TWO_SOURCES + load + "same, other = map(pickle.loads, a)\n"
        "assert type(same) is C and type(other) is not C\n"
        "assert C.value == 1 and other.f() == 'a'",
        *files,
    )


def test_what_a_worker_does_to_its_copy_stays_there():
    cls = make()
    with shoal.Pool(1) as pool:
        changed = pool.apply(change_class, (cls,))
        assert type(changed) is cls
        assert cls.kind == 1
        assert pool.apply(get_kind, (cls(),)) == "changed"
        cls.kind = "parent"
        assert pool.apply(get_kind, (cls(),)) == "parent"


def change_class(cls):
    cls.kind = "changed"
    return cls()


def get_kind(obj):
    return obj.kind


def test_neither_side_keeps_a_class_alive():
    cls = make()
    pickle.loads(shoal.dumps(cls))
    seen = weakref.ref(cls)
    del cls
    gc.collect()
    assert seen() is None


def test_records_of_dead_classes_are_dropped(fresh_python):
    fresh_python(
        """
        import gc, pickle, shoal
        def round():
            class C:
                def f(self): return C
            class D(C, metaclass=type): pass
            shoal.loads(shoal.dumps((C, D)))
        for _ in range(20): round()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200): round()
        gc.collect()
        assert len(gc.get_objects()) < before + 100
        """
    )


def test_threads_that_dump_at_once_agree():
    cls = make()
    streams = []
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        streams.extend(shoal.dumps(cls) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(streams)) == 1
    assert pickle.loads(streams[0]) is cls


def test_threads_that_dump_types_of_one_name_give_them_numbers_of_their_own():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            kinds = [typing.NewType("Same", int) for _ in range(6)]
            for kind in kinds:
                kind.__qualname__ = "test.<locals>.Same"
            streams, start = [None] * len(kinds), threading.Barrier(len(kinds))

            def dump(i, kinds=kinds, streams=streams, start=start):
                start.wait()
                streams[i] = shoal.dumps(kinds[i])

            threads = [threading.Thread(target=dump, args=(i,)) for i in range(len(kinds))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [pickle.loads(stream) for stream in streams] == kinds
    finally:
        sys.setswitchinterval(interval)


def test_a_type_parameter_comes_home():
    import typing

    params = [typing.TypeVar("A"), typing.TypeVar("A"), typing.ParamSpec("P")]
    for param in params:
        param.__module__ = "nowhere"
    assert all(a is b for a, b in zip(home(params), params))


def test_keywords_of_a_definition_are_kept_no_longer_than_the_class():
    class Base:
        def __init_subclass__(cls, tag):
            pass

    big = threading.Event()
    seen = weakref.ref(big)

    class Child(Base, tag=big):
        pass

    del big
    gc.collect()
    assert seen() is not None
    del Child
    gc.collect()
    assert seen() is None


def test_reconstructors_check_what_a_stream_tells_them():
    from shoal import _rebuild

    good = (type, "C", (), {}, b"x" * 16)
    bad = [
        (),
        good[:4],
        (int, *good[1:]),
        (1, *good[1:]),
        (type, 1, *good[2:]),
        (type, "C", [], *good[3:]),
        (type, "C", (1,), *good[3:]),
        (*good[:3], None, b"x" * 16),
        *((*good[:4], mark) for mark in (None, b"", b"x" * 15, b"x" * 17, b"x" * 20, b"\0" * 28, b"x" * 1000)),
        (*good, 1),
        (*good, {}, 1),
    ]
    for arguments in bad:
        with pytest.raises(shoal.UnpicklingError):
            _rebuild._class(*arguments)
    for arguments in ((), (type, "E", (), {}, b"x" * 16, [], None), (type, "E", (), {}, b"x" * 16, (), {})):
        with pytest.raises(shoal.UnpicklingError):
            _rebuild._enum(*arguments)
    for arguments in ((), (1, {}), (int, []), (int, {}, {})):
        with pytest.raises(shoal.UnpicklingError):
            _rebuild._fill_class(*arguments)
    assert _rebuild._fill_class(int, {"x": 1}) is None  # not one that was received
    for arguments in ((1, []), (object(), {}), ((), [])):
        with pytest.raises(TypeError):
            _rebuild._content(*arguments)
    with pytest.raises(TypeError):
        _rebuild._type_parameter("List", "T", (), {}, "m", b"x")


def test_a_name_that_does_not_fit_into_a_class_is_an_exception():
    from shoal import _rebuild

    for namespace in ({"__slots__": 1}, {"__qualname__": 5}, {"__classcell__": 5}, {"__slots__": ["1"]}):
        with pytest.raises((TypeError, ValueError)):
            _rebuild._class(type, "C", (), namespace, b"y" * 16)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of a later Python")
def test_a_parameter_of_a_generic_class_is_the_one_of_its_methods(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    fresh_python(
        "import shoal, sys\nclass C[T, *Ts, **P]:\n    def f(self, x: T) -> T: return x\n"
        "open(sys.argv[1], 'wb').write(shoal.dumps(C))",
        file,
    )
    fresh_python(
        "import pickle, sys\nC = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert C.f.__annotations__['x'] is C.__type_params__[0]",
        file,
    )


@pytest.mark.parametrize("value", [2**62, -(10**30), (2**200, -1), 2**30])
def test_large_ints_of_a_class_tell_its_states_apart(value):
    cls = make(value)
    stream = shoal.dumps(cls)
    assert stream == shoal.dumps(cls) and pickle.loads(stream) is cls
    cls.kind = changed = value * 2
    assert pickle.loads(stream) is cls and cls.kind == changed
    instance = home(cls())
    assert type(instance) is cls and instance.get() == changed
