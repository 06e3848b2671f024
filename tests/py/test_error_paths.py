# SPDX-License-Identifier: BSD-3-Clause
"""What cannot be pickled is told with the path that leads to it, and with what to do about it."""

import collections
import contextlib
import enum
import functools
import gc
import io
import pickle
import re
import sys
import threading
import types
import weakref

import pytest

import shoal
from shoal._paths import short

LOCK = threading.Lock()
COMPLAINT = "cannot pickle '_thread.lock' object"
Pair = collections.namedtuple("Pair", "left right")


class Client:
    def __init__(self, lock):
        self._lock = lock


class Slotted:
    __slots__ = ("a", "b")


class Stateful:
    def __getstate__(self):
        return {"inner": LOCK}


class ListState:
    def __getstate__(self):
        return [1, LOCK]


class Reduced:
    def __reduce__(self):
        return Client, (1, LOCK)


class Keywords:
    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __getnewargs_ex__(self):
        return (1,), {"lock": LOCK}


class Named:
    def __reduce__(self):
        return "nosuch"


class ListOf(list):
    pass


class DictOf(dict):
    pass


class Unshowable:
    def __repr__(self):
        raise ValueError("no repr")


def slotted(value):
    made = Slotted()
    made.a, made.b = 1, value
    return made


def closure(client):
    def train():
        return client

    return train


def with_globals(**names):
    namespace = {"__name__": "nowhere", **names}
    exec("def outer(): return [lambda: thing]", namespace)
    return namespace["outer"]


def with_defaults(lock):
    def f(a, b=1, c=lock, *, d=2):
        return a

    return f


def with_keyword_default(lock):
    def f(*, d=lock):
        return d

    return f


def with_annotation(lock):
    def f(x: lock) -> int:
        return x

    return f


def with_attribute(lock):
    def f():
        pass

    f.extra = {"lock": lock}
    return f


def wrapping(lock):
    @functools.wraps(closure(lock))
    def outer():
        pass

    outer.__name__ = outer.__qualname__ = "outer"
    return outer


def class_with(lock, bases=(), metaclass=type):
    return metaclass("Local", bases, {"__module__": "nowhere", "__qualname__": "Local", "lock": lock})


def class_with_annotation(lock):
    return type("Local", (), {"__module__": "nowhere", "__annotations__": {"x": lock}})


def class_with_base(lock):
    return type("Derived", (int, class_with(lock)), {"__module__": "nowhere"})


def class_with_metaclass(lock):
    meta = type("Meta", (type,), {"__module__": "nowhere", "lock": lock})
    return meta("Local", (), {"__module__": "nowhere"})


def class_with_property(lock):
    return type("Local", (), {"__module__": "nowhere", "p": property(closure(lock))})


def enumeration(lock):
    namespace = {"__module__": "nowhere", "__qualname__": "Kind"}
    members = enum.EnumMeta.__prepare__("Kind", (enum.Enum,))
    for name, value in {**namespace, "A": 1, "B": lock}.items():
        members[name] = value
    return enum.EnumMeta("Kind", (enum.Enum,), members)


def module(lock):
    made = types.ModuleType("dynamic")
    made.registry = [lock]
    return made


def partial_of(lock):
    made = functools.partial(print, 1)
    made.extra = lock
    return made


def raised_from(cause):
    error = ValueError("text")
    error.__cause__ = cause
    return error


def recursive(lock):
    class Node:
        def method(self):
            return Node, lock

    Node.first = Node()
    return Node


def error_with(**attributes):
    error = ValueError("text")
    error.__dict__.update(attributes)
    return error


def caught(obj, *args, kind=TypeError):
    with pytest.raises(kind) as info:
        shoal.dumps(obj, *args)
    return info.value


def path_of(error):
    """What stands in front of the complaint."""
    first = str(error).partition("\n")[0]
    path, there, rest = first.partition(COMPLAINT)
    assert there and rest == "", f"not at the end of its line: {first}"
    return path.removesuffix(": ")


PATHS = {
    "list": (lambda lock: [0, lock], "item [1]"),
    "tuple": (lambda lock: (0, {"key": [lock]}), "item [1]['key'][0]"),
    "long tuple": (lambda lock: (0, 1, 2, 3, lock), "item [4]"),
    "dict, int key": (lambda lock: {1: lock}, "item [1]"),
    "dict, None key": (lambda lock: {None: lock}, "item [None]"),
    "dict, tuple key": (lambda lock: {("a", 2): lock}, "item [('a', 2)]"),
    "dict, long key": (lambda lock: {"long" * 100: lock}, f"item ['{'long' * 15}'...]"),
    "dict, long tuple": (lambda lock: {tuple(range(1000)): lock}, "item [<tuple of 1000>]"),
    "dict, huge key": (lambda lock: {10**5000: lock}, "item [<int of 16610 bits>]"),
    "dict, key without a repr": (lambda lock: {Unshowable(): lock}, "item [<Unshowable object>]"),
    "set": (lambda lock: {lock}, "a member of the set"),
    "frozenset": (lambda lock: frozenset([lock]), "a member of the set"),
    "deque": (lambda lock: collections.deque([0, lock]), "item [1]"),
    "list subclass": (lambda lock: ListOf([0, lock]), "item [1]"),
    "dict subclass": (lambda lock: DictOf(x=lock), "item ['x']"),
    "ordered dict": (lambda lock: collections.OrderedDict(x=1, y=lock), "item ['y']"),
    "default dict": (lambda lock: collections.defaultdict(list, y=lock), "item ['y']"),
    "named tuple": (lambda lock: Pair(1, lock), "attribute 'right'"),
    "mapping proxy": (lambda lock: types.MappingProxyType({"q": lock}), "item ['q']"),
    "attribute": (lambda lock: Client(lock), "attribute '_lock'"),
    "second instance": (lambda lock: [Client(1), Client(2), Client(lock)], "item [2] -> attribute '_lock'"),
    "attribute, items": (lambda lock: [Client({"x": lock})], "item [0] -> attribute '_lock' -> item ['x']"),
    "slot": (slotted, "attribute 'b'"),
    "state": (lambda lock: Stateful(), "'inner' in the state that Stateful.__getstate__ gives"),
    "list state": (lambda lock: ListState(), "the state that ListState.__getstate__ gives -> item [1]"),
    "reduce": (lambda lock: Reduced(), "argument 2 of the call that makes a Reduced"),
    "new args": (lambda lock: Keywords(), "argument 'lock' of the call that makes a Keywords"),
    "closure": (closure, "closure variable 'client' of function 'train'"),
    "client": (
        lambda lock: closure(Client(lock)),
        "closure variable 'client' of function 'train' -> attribute '_lock'",
    ),
    "global": (lambda lock: with_globals(thing=lock), "global 'thing' of function 'outer'"),
    "default": (with_defaults, "default of parameter 'c' of function 'f'"),
    "keyword default": (with_keyword_default, "default of parameter 'd' of function 'f'"),
    "annotation": (with_annotation, "annotation of 'x' in function 'f'"),
    "function attribute": (with_attribute, "attribute 'extra' of function 'f' -> item ['lock']"),
    "wrapped": (wrapping, "function wrapped by 'outer' -> closure variable 'client' of function 'train'"),
    "class attribute": (class_with, "attribute 'lock' of class 'Local'"),
    "class annotation": (class_with_annotation, "annotation of 'x' in class 'Local'"),
    "instance of a local class": (lambda lock: class_with(lock)(), "attribute 'lock' of class 'Local'"),
    "base": (class_with_base, "base class 'Local' of class 'Derived' -> attribute 'lock' of class 'Local'"),
    "metaclass": (class_with_metaclass, "metaclass of class 'Local' -> attribute 'lock' of class 'Meta'"),
    "property": (
        class_with_property,
        "attribute 'p' of class 'Local' -> getter of a property -> closure variable 'client' of function 'train'",
    ),
    "static method": (
        lambda lock: staticmethod(closure(lock)),
        "function of a staticmethod -> closure variable 'client' of function 'train'",
    ),
    "enum": (enumeration, "value of member 'B' of class 'Kind'"),
    "module": (module, "attribute 'registry' of module 'dynamic' -> item [0]"),
    "partial's function": (
        lambda lock: functools.partial(closure(lock)),
        "function of a partial -> closure variable 'client' of function 'train'",
    ),
    "partial's argument": (lambda lock: functools.partial(print, 1, lock), "argument 2 of a partial"),
    "partial's keyword": (lambda lock: functools.partial(print, end=lock), "argument 'end' of a partial"),
    "partial's attribute": (partial_of, "attribute 'extra'"),
    "method's self": (
        lambda lock: types.MethodType(Client.__init__, Client(lock)),
        "self of method 'Client.__init__' -> attribute '_lock'",
    ),
    "built-in method's self": (lambda lock: [lock].append, "self of method 'list.append' -> item [0]"),
    "exception": (lambda lock: KeyError("k", lock), "argument 2 of exception 'KeyError'"),
    "exception's cause": (
        lambda lock: raised_from(KeyError(lock)),
        "cause of exception 'ValueError' -> argument 1 of exception 'KeyError'",
    ),
    "lru_cache": (
        lambda lock: functools.lru_cache(closure(lock)),
        "function of a lru_cache -> closure variable 'client' of function 'train'",
    ),
    "cached_property": (
        lambda lock: functools.cached_property(closure(lock)),
        "function of a cached_property -> closure variable 'client' of function 'train'",
    ),
    "late": (
        recursive,
        "attribute 'method' of class 'recursive.<locals>.Node' -> closure variable 'lock' of function 'Node.method'",
    ),
    "exception's attribute": (lambda lock: error_with(extra=lock), "attribute 'extra'"),
}


@pytest.mark.parametrize("name", PATHS)
def test_the_message_has_the_path_in_front(name):
    make, path = PATHS[name]
    assert path_of(caught(make(threading.Lock()))) == path


class Refuses:
    def __reduce_ex__(self, protocol):
        raise TypeError("cannot pickle 'Refuses' object")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["tuple", "set", "client", "base", "built-in method's self"])
def test_in_every_protocol(name, protocol):
    make, path = PATHS[name]
    assert str(caught(make(Refuses()), protocol)).startswith(f"{path}: cannot pickle 'Refuses' object\n")


def test_the_path_to_a_key():
    told = path_of(caught({(1, LOCK): 2}))
    assert re.fullmatch(r"key \(1, <unlocked _thread\.lock object at 0x\w+>\) -> item \[1\]", told)


@pytest.mark.parametrize(("depth", "missing"), [(21, None), (22, 2), (40, 20), (300, 280)])
def test_a_long_path_is_cut_in_the_middle(depth, missing):
    deep = threading.Lock()
    for n in range(depth):
        deep = [deep] if n % 2 else [0, deep]
    told = path_of(caught(deep))
    if missing is None:
        assert told.count("[") == depth
    else:
        assert f" -> ... {missing} more ... -> item [" in told
        assert told.count("[") == 20
        assert told.startswith("item [1][0]" if depth % 2 else "item [0][1]")
        assert told.endswith("[0][1]")


def test_a_step_that_is_taken_over_and_over_is_told_once():
    chain = Client(LOCK)
    for _ in range(5):
        chain = Client(chain)
    assert path_of(caught([chain])) == "item [0] -> attribute '_lock' (6 times)"


def test_the_message_stays_short():
    deep = threading.Lock()
    for _ in range(200):
        deep = {"key" * 1000: deep}
    assert len(str(caught(deep))) < 3000


def test_at_the_root_the_first_line_is_that_of_pickle():
    error = caught(threading.Lock())
    with pytest.raises(TypeError) as theirs:
        pickle.dumps(threading.Lock())
    assert str(error).splitlines()[0] == str(theirs.value)


def test_a_pickler_and_dump_tell_it_as_well():
    for dump in (lambda obj: shoal.dump(obj, io.BytesIO()), shoal.Pickler(io.BytesIO()).dump):
        for _ in range(2):  # and again: nothing of the first is left
            with pytest.raises(TypeError) as info:
                dump([0, LOCK])
            assert path_of(info.value) == "item [1]"


def test_type_and_args_stay_usable():
    error = caught([LOCK])
    assert type(error) is TypeError
    assert error.args == (str(error),)
    assert re.search(COMPLAINT, str(error))


def test_names_that_pickle_cannot_find():
    error = caught([0, Named()], kind=shoal.PicklingError)
    assert re.match(r"item \[1\]: Can't pickle <.*Named object.*>: attribute lookup nosuch on \S+ failed$", str(error))


def test_nothing_is_kept_of_what_failed():
    pickler = shoal.Pickler(io.BytesIO())
    for dump in (shoal.dumps, pickler.dump):
        client = Client({"lock": LOCK})
        gone = weakref.ref(client)
        with contextlib.suppress(TypeError):
            dump([closure(client)])
        pickler.clear_memo()
        del client
        gc.collect()
        assert gone() is None


# ---- what user code raises ----


class Complains:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("k"), TypeError("mine"), OSError(2, "no"), RuntimeError()])
def test_errors_of_user_code_keep_type_and_text(error):
    before = error.args
    for _ in range(2):
        assert caught([Complains(error)], kind=type(error)) is error
        assert error.args == before
        if sys.version_info >= (3, 11):
            assert error.__notes__ == ["while pickling item [0]"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError("none left")])
def test_what_is_no_complaint_passes_untouched(error):
    before = error.args
    assert caught([Complains(error)], kind=type(error)) is error
    assert error.args == before
    assert not hasattr(error, "__notes__")


def test_a_dump_inside_of_a_dump_is_one_path():
    class Nested:
        def __reduce__(self):
            return shoal.loads, (shoal.dumps({"inner": LOCK}),)

    error = caught([Nested()])
    assert path_of(error) == "item [0]: item ['inner']"
    assert str(error).count("\n") == 1


def test_short_is_short_and_never_fails():
    for value in (b"x" * 10**6, "x" * 10**6, -(10**10000), (1,) * 10**6, Unshowable(), [[]] * 1000):
        assert 0 < len(short(value)) < 200


class Hidden(type):
    def __getattribute__(cls, name):
        if name in ("__qualname__", "__name__", "__module__", "__mro__"):
            raise ZeroDivisionError
        return super().__getattribute__(name)


def test_a_class_that_hides_its_name_does_not_hurt():
    tricky = Hidden("Tricky", (), {"__module__": __name__, "__reduce__": lambda self: (print, (LOCK,))})
    assert path_of(caught([tricky()])) == "item [0] -> argument 1 of the call that makes a Tricky"
