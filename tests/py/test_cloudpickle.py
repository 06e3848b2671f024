# SPDX-License-Identifier: BSD-3-Clause
"""shoal.cloudpickle: what a program that uses cloudpickle relies on.

Where cloudpickle is installed, names and signatures are compared with the real one.
"""

import collections
import copyreg
import functools
import inspect
import io
import pickle
import sys
import types
import warnings

import pytest

import shoal
import shoal.cloudpickle as cloudpickle

real_cloudpickle = pytest.importorskip("cloudpickle")

NAMES = (
    "dump dumps load loads Pickler CloudPickler DEFAULT_PROTOCOL register_pickle_by_value unregister_pickle_by_value "
    "list_registry_pickle_by_value is_tornado_coroutine subimport dynamic_subimport instance __version__".split()
)


class Thing:
    """Importable, with a state."""

    def __init__(self, value=0):
        self.value = value

    def __eq__(self, other):
        return type(other) is Thing and other.value == self.value


def dump_with(pickler_type, obj, **options):
    file = io.BytesIO()
    pickler = pickler_type(file, **options)
    pickler.dump(obj)
    return file.getvalue()


# ---- names ----


@pytest.mark.parametrize("module", ["cloudpickle", "cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast"])
@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_under_each_module_name(module, name):
    there = __import__(f"shoal.{module}", fromlist=["*"])
    assert getattr(there, name) is getattr(cloudpickle, name)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"load", "loads", "DEFAULT_PROTOCOL", "__version__"}))
def test_the_parameters_are_those_of_cloudpickle(name):
    ours, theirs = (inspect.signature(getattr(module, name)) for module in (cloudpickle, real_cloudpickle))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]


def test_it_says_which_cloudpickle_it_stands_for():
    assert tuple(map(int, cloudpickle.__version__.split("."))) >= (3, 1, 2)
    assert cloudpickle.CloudPickler is cloudpickle.Pickler
    assert cloudpickle.DEFAULT_PROTOCOL == pickle.HIGHEST_PROTOCOL


def test_put_into_sys_modules_it_is_what_others_import(fresh_python):
    fresh_python(
        """
        import sys, shoal
        sys.modules["cloudpickle"] = shoal.cloudpickle
        import cloudpickle, cloudpickle.cloudpickle, cloudpickle.cloudpickle_fast
        from cloudpickle import CloudPickler, dumps, loads
        from cloudpickle.cloudpickle import Pickler, _make_function
        assert Pickler is CloudPickler is shoal.cloudpickle.Pickler
        assert cloudpickle.cloudpickle.dumps is dumps is cloudpickle.cloudpickle_fast.dumps is shoal.cloudpickle.dumps
        assert loads(dumps(lambda x: x + 1))(1) == 2
        """
    )


# ---- dump, dumps, load, loads ----


@pytest.mark.parametrize("protocol", [None, -1, *range(6)])
def test_dumps_and_dump_write_what_pickle_loads(protocol):
    value = {"list": [1, 2.5, None], "thing": Thing(3), "function": lambda: 7}
    file = io.BytesIO()
    cloudpickle.dump(value, file, protocol)
    for stream in (cloudpickle.dumps(value, protocol), cloudpickle.dumps(value, protocol=protocol), file.getvalue()):
        for loads in (pickle.loads, cloudpickle.loads):
            loaded = loads(stream)
            assert loaded["function"]() == 7
            assert loaded["list"] == value["list"] and loaded["thing"] == value["thing"]
    assert cloudpickle.load(io.BytesIO(file.getvalue()))["thing"] == Thing(3)


def test_unfit_arguments_are_refused_as_cloudpickle_does():
    for module in (cloudpickle, real_cloudpickle):
        with pytest.raises(TypeError):
            module.dumps(1, fix_imports=True)
        with pytest.raises(TypeError):
            module.dump(1, io.BytesIO(), fix_imports=True)
        with pytest.raises(TypeError):
            module.Pickler(io.BytesIO(), fix_imports=True)
        with pytest.raises(ValueError, match="pickle protocol must be <= 5"):
            module.dumps(1, protocol=6)
        with pytest.raises(ValueError, match="buffer_callback needs protocol >= 5"):
            module.dumps(1, protocol=4, buffer_callback=[].append)
        with pytest.raises(TypeError, match="file must have a 'write' attribute"):
            module.dump(1, object())


def test_buffers_go_out_of_band():
    for position in (lambda c: (5, c), lambda c: (None, c)):
        buffers = []
        data = pickle.PickleBuffer(bytearray(b"x" * 1000))
        stream = cloudpickle.dumps(data, *position(buffers.append))
        assert len(buffers) == 1 and len(stream) < 100
        assert bytes(cloudpickle.loads(stream, buffers=buffers)) == b"x" * 1000


def test_too_deep_a_recursion_is_a_pickling_error():
    class Endless:
        def __reduce__(self):
            return (Endless.__reduce__(self),)

    for dump in (cloudpickle.dumps, lambda obj: cloudpickle.dump(obj, io.BytesIO())):
        with pytest.raises(pickle.PicklingError, match="deep recursion") as caught:
            dump(Endless())
        assert isinstance(caught.value.__cause__, RecursionError)


def test_other_exceptions_pass_as_they_are():
    class Fails:
        def __reduce__(self):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        cloudpickle.dumps(Fails())


# ---- Pickler and its hooks ----


def test_a_pickler_is_one_of_shoals_with_cloudpickles_attributes():
    pickler = cloudpickle.Pickler(io.BytesIO(), 4)
    assert isinstance(pickler, shoal.Pickler)
    assert pickler.proto == 4
    assert cloudpickle.Pickler(io.BytesIO()).proto == pickle.HIGHEST_PROTOCOL
    assert pickler.globals_ref == {}
    assert cloudpickle.Pickler.dispatch is cloudpickle.Pickler.dispatch_table
    assert cloudpickle.Pickler(io.BytesIO(), 5, [].append)  # the third is the buffer callback


def test_a_reused_pickler_knows_what_it_has_written():
    file = io.BytesIO()
    pickler = cloudpickle.Pickler(file)

    def function():
        return 1

    pickler.dump(function)
    first = file.tell()
    pickler.dump(function)
    assert file.tell() - first < 10
    unpickler = pickle.Unpickler(io.BytesIO(file.getvalue()))
    assert unpickler.load() is unpickler.load()


def test_reducer_override_comes_first_and_super_goes_on():
    seen = []

    class Mine(cloudpickle.Pickler):
        dispatch_table = {Thing: lambda thing: pytest.fail("reducer_override goes first")}

        def reducer_override(self, obj):
            seen.append(obj)
            if isinstance(obj, Thing):
                return Thing, (obj.value + 1,)
            return super().reducer_override(obj)

    class Local:
        pass

    def local():
        return 5

    loaded = pickle.loads(dump_with(Mine, [Thing(1), local, Local, Thing]))
    assert loaded[0] == Thing(2)
    assert loaded[1]() == 5
    assert loaded[2].__name__ == "Local"
    assert loaded[3] is Thing
    assert {local, Local, Thing} <= set(seen[1:])


def test_reducer_override_may_be_set_on_an_instance():
    file = io.BytesIO()
    pickler = cloudpickle.Pickler(file)
    pickler.reducer_override = lambda obj: (int, ("7",)) if isinstance(obj, Thing) else NotImplemented
    pickler.dump([Thing(), lambda: 1])
    assert pickle.loads(file.getvalue())[0] == 7


def test_the_answer_of_the_base_class_is_not_implemented():
    pickler = cloudpickle.Pickler(io.BytesIO())
    for obj in (Thing(), Thing, dump_with, lambda: 1):
        assert pickler.reducer_override(obj) is NotImplemented
        assert cloudpickle.Pickler.reducer_override(pickler, obj) is NotImplemented


def test_persistent_ids_work_as_in_pickle():
    class Writing(cloudpickle.Pickler):
        def persistent_id(self, obj):
            return "the thing" if isinstance(obj, Thing) else None

    class Reading(pickle.Unpickler):
        def persistent_load(self, pid):
            return pid.upper()

    assert Reading(io.BytesIO(dump_with(Writing, [Thing(), 1]))).load() == ["THE THING", 1]


# ---- dispatch tables ----


def reduce_to(value):
    return lambda obj: (str, (value,))


@pytest.fixture
def class_wide():
    """A reducer in the table that all picklers share, taken out again."""
    before = dict(cloudpickle.Pickler._dispatch_table)
    yield cloudpickle.Pickler.dispatch_table
    cloudpickle.Pickler._dispatch_table.clear()
    cloudpickle.Pickler._dispatch_table.update(before)


def test_the_class_wide_table_counts_everywhere(class_wide):
    class_wide[Thing] = reduce_to("class-wide")
    assert pickle.loads(cloudpickle.dumps([Thing()])) == ["class-wide"]
    assert pickle.loads(dump_with(cloudpickle.Pickler, [Thing()])) == ["class-wide"]
    assert type(pickle.loads(shoal.dumps(Thing()))) is Thing
    del class_wide[Thing]
    assert pickle.loads(cloudpickle.dumps(Thing())) == Thing()


def test_copyreg_is_live(monkeypatch):
    pickler = cloudpickle.Pickler(file := io.BytesIO())
    pickler.dump(Thing())
    monkeypatch.setitem(copyreg.dispatch_table, Thing, reduce_to("copyreg"))
    pickler.dump(Thing())
    assert pickle.loads(cloudpickle.dumps(Thing())) == "copyreg"
    file.seek(0)
    assert [pickle.load(file), pickle.load(file)] == [Thing(), "copyreg"]


def test_an_instance_may_have_a_table_of_its_own(class_wide):
    """cloudpickle ignores one that is assigned after __init__ (its issue 437)."""
    class_wide[Thing] = reduce_to("class-wide")
    files = [io.BytesIO() for _ in range(3)]
    one, other, third = map(cloudpickle.Pickler, files)
    one.dispatch_table = {Thing: reduce_to("own")}
    other.dispatch_table = other.dispatch_table.new_child({Thing: reduce_to("child")})
    for pickler in (one, other, third):
        pickler.dump(Thing())
    assert [pickle.loads(file.getvalue()) for file in files] == ["own", "child", "class-wide"]


@pytest.mark.parametrize(
    "make",
    [
        dict,
        collections.OrderedDict,
        lambda table: collections.ChainMap({}, table),
        lambda table: collections.ChainMap(types.MappingProxyType({}), table, copyreg.dispatch_table),
        types.MappingProxyType,
    ],
    ids="dict OrderedDict ChainMap mixed-ChainMap mappingproxy".split(),
)
@pytest.mark.parametrize("base", [shoal.Pickler, cloudpickle.Pickler])
def test_a_table_may_be_any_mapping(base, make):
    class Mine(base):
        dispatch_table = make({Thing: reduce_to("table")})

    class Unknown:
        pass

    assert pickle.loads(dump_with(Mine, [Thing(), 1, Thing])) == ["table", 1, Thing]
    assert type(pickle.loads(dump_with(Mine, Unknown()))).__name__ == "Unknown"


def test_what_a_table_raises_passes():
    class Strange(dict):
        def __missing__(self, key):
            raise ZeroDivisionError

    for table in (Strange(), collections.ChainMap({}, Strange())):
        pickler = cloudpickle.Pickler(io.BytesIO())
        pickler.dispatch_table = table
        with pytest.raises(ZeroDivisionError):
            pickler.dump(Thing())


def test_the_member_of_the_base_class_can_be_set_behind_a_class_wide_table():
    """How loky sets an instance's table, since pickle.Pickler sees its own member only."""
    pickler = cloudpickle.Pickler(file := io.BytesIO())
    member = next(
        vars(cls)["dispatch_table"]
        for cls in type(pickler).__mro__
        if isinstance(vars(cls).get("dispatch_table"), types.MemberDescriptorType)
    )
    member.__set__(pickler, {Thing: reduce_to("member")})
    pickler.dump(Thing())
    assert pickle.loads(file.getvalue()) == "member"


def rebuild(name):
    return f"rebuilt {name}"


class Meta(type):
    pass


class WithMeta(metaclass=Meta):
    pass


@pytest.mark.parametrize("base", [shoal.Pickler, cloudpickle.Pickler])
def test_a_table_of_ones_own_may_name_functions_and_classes(base):
    class Mine(base):
        dispatch_table = {
            types.FunctionType: lambda function: (rebuild, (function.__name__,)),
            type: lambda cls: (rebuild, (cls.__name__,)),
            Meta: lambda cls: (rebuild, (cls.__name__,)),
        }

    loaded = pickle.loads(dump_with(Mine, [dump_with, Thing, WithMeta, [dump_with]]))
    assert loaded == ["rebuilt dump_with", "rebuilt Thing", "rebuilt WithMeta", ["rebuilt dump_with"]]


# ---- modules by value ----


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("cloudpickle_test_module")
    exec("def function():\n    return constant\nconstant = 3\nclass Class:\n    pass\n", made.__dict__)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    yield made
    if made.__name__ in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(made)


@pytest.mark.parametrize("register", [cloudpickle, shoal], ids=["shoal.cloudpickle", "shoal"])
@pytest.mark.parametrize("dumps", [cloudpickle.dumps, shoal.dumps])
def test_registered_modules_travel_by_value(module, register, dumps):
    assert b"constant" not in dumps(module.function)
    register.register_pickle_by_value(module)
    register.register_pickle_by_value(module)
    assert register.list_registry_pickle_by_value() == {module.__name__}
    assert b"constant" in dumps(module.function)
    assert pickle.loads(dumps(module.function))() == 3
    register.unregister_pickle_by_value(module)
    assert register.list_registry_pickle_by_value() == set()
    assert pickle.loads(dumps(module.function)) is module.function


def test_the_list_of_registered_modules_is_a_copy(module):
    cloudpickle.register_pickle_by_value(module)
    cloudpickle.list_registry_pickle_by_value().clear()
    assert cloudpickle.list_registry_pickle_by_value() == {module.__name__}


def test_the_messages_of_the_registry_are_cloudpickles(module):
    unknown = types.ModuleType("cloudpickle_unknown_module")
    for bad, name in [("text", "register"), ("text", "unregister"), (unknown, "register"), (module, "unregister")]:
        messages = []
        for library in (cloudpickle, real_cloudpickle):
            with pytest.raises(ValueError) as caught:
                getattr(library, f"{name}_pickle_by_value")(bad)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


# ---- the rest ----


def test_small_functions_of_cloudpickle():
    assert cloudpickle.subimport("os.path") is sys.modules["os.path"]
    made = cloudpickle.dynamic_subimport("made_up", {"x": 1})
    assert made.x == 1 and made.__name__ == "made_up" and "made_up" not in sys.modules

    @cloudpickle.instance
    class single:
        value = 4

    assert single.value == 4 and not isinstance(single, type)


def test_tornado_coroutines_are_asked_of_tornado(monkeypatch):
    monkeypatch.delitem(sys.modules, "tornado.gen", raising=False)
    with pytest.warns(DeprecationWarning, match="is_tornado_coroutine is deprecated"):
        assert cloudpickle.is_tornado_coroutine(print) is False
    gen = types.SimpleNamespace(is_coroutine_function=lambda function: function is print)
    monkeypatch.setitem(sys.modules, "tornado.gen", gen)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert cloudpickle.is_tornado_coroutine(print) is True
        assert cloudpickle.is_tornado_coroutine(len) is False


STREAM_OF_CLOUDPICKLE = """
import cloudpickle, dataclasses, enum, sys, typing, collections, abc

T = typing.TypeVar("T")

@dataclasses.dataclass
class Point:
    x: int
    y: int = 2

class Colour(enum.Enum):
    RED = 1

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

Shape.register(int)
factor = 3

def outer(n):
    def inner(x):
        return Point(x * factor, n)
    return inner

it = [outer(5), Point(1), Colour.RED, T, Shape, {1: 2}.keys(), collections.OrderedDict(a=1).items(), type(lambda: 1)]
cloudpickle.dump(it, open(sys.argv[1], "wb"), protocol=int(sys.argv[2]))
"""


@pytest.mark.parametrize("protocol", [2, 5])
def test_streams_of_cloudpickle_itself_can_be_loaded(fresh_python, tmp_path, protocol):
    file = tmp_path / "stream"
    fresh_python(STREAM_OF_CLOUDPICKLE, file, protocol)
    fresh_python(
        """
        import pickle, sys, types
        import shoal
        sys.modules["cloudpickle"] = shoal.cloudpickle
        data = open(sys.argv[1], "rb").read()
        for loads in (pickle.loads, shoal.loads):
            function, point, red, T, Shape, keys, items, kind = loads(data)
            assert (function(2).x, function(2).y) == (6, 5)
            assert type(function(1)).__name__ == "Point" and type(function(1)) is type(point)
            assert red.name == "RED" and red is type(red)(1)
            assert T.__name__ == "T" and issubclass(int, Shape)
            assert list(keys) == [1] and list(items) == [("a", 1)] and kind is types.FunctionType
        assert "cloudpickle.cloudpickle" in sys.modules
        assert sys.modules["cloudpickle.cloudpickle"].Pickler is shoal.cloudpickle.Pickler
        """,
        file,
    )


def test_partial_and_bound_methods_of_local_things_travel():
    class Local:
        def method(self, x):
            return x + 1

    loaded = pickle.loads(cloudpickle.dumps([functools.partial(Local().method, 1), Local().method]))
    assert loaded[0]() == 2 and loaded[1](4) == 5


def test_import_star_gives_the_public_names():
    names = {}
    exec("from shoal.cloudpickle import *", names)
    assert set(NAMES) <= set(names)
