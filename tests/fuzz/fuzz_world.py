# SPDX-License-Identifier: BSD-3-Clause
"""What surrounds the decoders that are fuzzed: what they may name, their files, and what is done with what they load.

Besides the classes of fuzz_harmless.py a stream may name our own reconstructors (shoal._rebuild), with whatever
arguments it likes. What reaches outside of the process, or imports, is refused by an audit hook.
"""

import copyreg
import io
import itertools
import pathlib
import pickletools
import struct
import sys
import types

import fuzz_harmless

CLASSES = [*fuzz_harmless.CLASSES, copyreg._reconstructor]
BUILTINS = {
    kind.__name__: kind
    for kind in (object, type, list, dict, set, frozenset, tuple, int, str, bytes, bytearray, float, complex)
}
BUILTINS.update({kind.__name__: kind for kind in (property, classmethod, staticmethod, range, slice, Exception)})


CODE_BYTES, CODE_HEADER_SIZE = b"\xff", 6  # as in fuzz_decode.c and code.h


class World:
    """The find_class and persistent_load of the decoders that are fuzzed."""

    rebuild = None  # the module shoal._rebuild, if it can be had

    def find_class(self, module, name):
        """Our own names as they are; of all others the first letter chooses: any name is good."""
        if module == "shoal._rebuild" and name in getattr(self.rebuild, "__all__", ()):
            return getattr(self.rebuild, name)
        if module == "builtins" and name in BUILTINS:
            return BUILTINS[name]
        if module == "fuzz_harmless" and hasattr(fuzz_harmless, name):
            return getattr(fuzz_harmless, name)
        if not name:
            raise AttributeError("no name")
        return CLASSES[ord(name[0]) % len(CLASSES)]

    def persistent_load(self, pid):
        if pid is None:
            raise KeyError("no such id")
        return [pid]


class Peekable(io.BytesIO):
    """peek() gives less than is asked for."""

    def peek(self, size):
        at = self.tell()
        return self.getvalue()[at : at + 5]


class Plainest:
    """A file with the two methods that it must have."""

    def __init__(self, data):
        file = io.BytesIO(data)
        self.read = file.read
        self.readline = file.readline


class Short:
    """Reads give one byte less than is asked for, and lines come in halves; readinto() as well."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, size):
        return self.file.read(max(1, size - 1))

    def readline(self):
        return self.file.readline(3)

    def readinto(self, buffer):
        piece = self.file.read(max(1, len(buffer) // 2))
        buffer[: len(piece)] = piece
        return len(piece)


class Generous(io.BytesIO):
    """Gives more than is asked for, in a buffer that can be written to."""

    def read(self, size):
        return bytearray(super().read(size + 3))

    def peek(self, size):
        return memoryview(bytearray(self.getvalue()[self.tell() :]))


class Odd(io.BytesIO):
    """Answers with something else now and then."""

    def read(self, size):
        return None if size == 3 else super().read(size)

    def readinto(self, buffer):
        return -1 if len(buffer) == 5 else super().readinto(buffer)

    def peek(self, size):
        raise NotImplementedError


WORLD = World()
HONEST = [io.BytesIO, Peekable, Plainest, lambda data: io.BufferedReader(io.BytesIO(data), 7)]
OTHERS = [Short, Generous, Odd]


def make_file(data, kind=0):
    kinds = HONEST if kind < 4 else OTHERS
    return kinds[(len(data) + kind) % len(kinds)](data)


# ---- as Python code does it: loads(), and an Unpickler with hooks that reads several pickles of a file ----

KEEP_BYTES, WITH_BUFFERS = 2, 4  # as in fuzz_decode.c
ALLOWED_MODULES = {"fuzz_harmless", "builtins", "shoal._rebuild", "__builtin__", "copyreg", "copy_reg"}
FORBIDDEN = ("__g", "__b", "__s", "__l", "exec", "eval", "open", "input", "breakpoint", "import", "getattr", "exit")
extension = types.ModuleType("nothing yet")


def options(flags):
    chosen = {"encoding": "bytes" if flags & KEEP_BYTES else "latin-1"}
    if flags & WITH_BUFFERS:
        chosen["buffers"] = iter([bytearray(b"buffer"), b"constant", memoryview(b"view"), None])
    return chosen


def load_by_function(data, flags):
    return extension.loads(data, **options(flags))


def make_unpickler(*args, **kwargs):
    """Replaced by a class once there is one to derive from."""


def load_by_unpickler(data, flags):
    unpickler = make_unpickler(make_file(data, flags >> 5), **options(flags))
    values = [unpickler.load()]
    memo = unpickler.memo.copy()
    try:
        values.append(unpickler.load())
        unpickler.memo = {**memo, 1 << 40: values}
        values.append(unpickler.load())
        unpickler.memo.clear()
    except SystemError:
        raise
    except Exception:
        pass
    return values


# ---- there and back again ----


def children(value):
    """What it is made of, in a definite order: for those types of which a copy is made of equal parts."""
    kind = type(value)
    if kind in (list, tuple):
        return list(value)
    if kind is dict:
        return [part for item in value.items() for part in item]
    if kind is fuzz_harmless.Plain:
        return [vars(value)]
    return []


def leaf(value):
    """What is compared at once."""
    kind = type(value)
    if kind is float:
        return struct.pack("d", value)
    if kind in (int, str, bytes, bytearray, bool, type(None)):
        return value
    if kind in (list, tuple, dict, set, frozenset):
        return len(value)
    return None


def compare(one, other):
    """Same types, same leaves, same shape; shared parts are walked once, so cycles end."""
    pairs, seen, kept = [(one, other)], set(), []
    while pairs:
        a, b = pairs.pop()
        assert type(a) is type(b), (type(a), type(b))
        assert leaf(a) == leaf(b)
        if (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        kept.append((a, b))
        pairs.extend(zip(children(a), children(b), strict=True))


def is_comparable(value):
    """Is it made of such types as dump and load by themselves?"""
    waiting, seen = [value], {}
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if type(part) in (set, frozenset):
            if not all(type(item) in (int, str, bytes) for item in part):
                return False
        elif leaf(part) is None and not children(part) and part is not None:
            return False
        if type(part) is dict and not all(type(key) in (int, str, bytes) for key in part):
            return False
        waiting.extend(children(part))
    return True


def check_round_trip(value):
    """Dumping may refuse; loading may run a hook that refuses. SystemError is always a finding."""
    certain = is_comparable(value)
    try:
        stream = extension.dumps(value)
        again = extension.loads(stream)
    except SystemError:
        raise
    except (RecursionError, MemoryError):
        return
    except Exception:
        if certain:
            raise
        return
    if certain:
        compare(value, again)


# ---- seeds by value: functions, classes and others, as the pickler itself writes them ----


def things_by_value():
    shared = [1, 2]

    def closure(x, y=3):
        return shared, x, y

    def recursive(n):
        return n and recursive(n - 1)

    class Local:
        attribute = shared

        def method(self):
            return Local

        @property
        def value(self):
            return super().__repr__

    class Child(Local):
        __slots__ = ("slot",)

    def constants(a, /, b=(1, (2.5, "x")), *args, c=None, **kwargs) -> "int":
        try:
            return a in {1, "two", b"three"}, 1 << 70, -3, 2j, ..., [i for i in args if i], lambda: (a, "é€", True)
        finally:
            del kwargs

    class WithMeta(metaclass=fuzz_harmless.Meta):
        pass

    module = types.ModuleType("dynamic")
    module.value = closure
    yield from (lambda: 1, closure, recursive, constants, Local, Local(), Child, WithMeta, module)
    yield from (closure.__code__, closure.__closure__[0], {"a": 1}.keys(), {"a": 1}.items(), memoryview(b"view"))
    yield from (types.MappingProxyType({}), Local.value, Local().method, type(None), type(...))


def codes_in(stream):
    """The bytes of the code objects in it, without version and checksum."""
    version = bytes(sys.version_info[:2])
    for _, value, _ in pickletools.genops(stream):
        if isinstance(value, bytes) and value.startswith(version) and len(value) > CODE_HEADER_SIZE:
            yield value[CODE_HEADER_SIZE:]


def write_seeds(directory):
    number = itertools.count()
    for thing in things_by_value():
        for protocol in (2, 5):
            try:
                stream = extension.dumps(thing, protocol)
            except (TypeError, extension.PicklingError):
                continue
            for flags in b"\x00\x09\x18":
                (directory / f"by-value-{next(number)}").write_bytes(bytes([flags]) + stream)
            for code in codes_in(stream):
                (directory / f"code-{next(number)}").write_bytes(CODE_BYTES + code)


# ---- the beginning ----

QUIET = (
    "builtins.id",
    "code.__new__",
    "function.__new__",
    "gc.",
    "marshal.",
    "object.__",
    "sys._getframe",
    "sys.unraisablehook",
)


def refuse(event, args):
    if event == "pickle.find_class":
        module, name = args
        if module in ALLOWED_MODULES and not any(word in name for word in FORBIDDEN):
            return
    elif event.startswith(QUIET):
        return
    raise PermissionError(event)


def no_pool(*_args):
    raise extension.UnpicklingError("there is no pool, and no shared memory")


def prepare_rebuild():
    """shoal._rebuild, without the rest of the package: it needs the pickler's own part of the extension only, what
    opens shared objects, and what readies locks for children, of which there are none.
    """
    extension._unpack = no_pool
    extension._free_in_children = lambda _lock: None
    shared = types.ModuleType("shoal._shared")
    shared._find_shared = shared._shared = shared._shared_at = no_pool
    sys.modules["shoal._shared"] = shared
    package = types.ModuleType("shoal")
    package.__path__ = [str(pathlib.Path(__file__).parents[2] / "pool" / "shoal")]
    sys.modules["shoal"] = package
    import shoal._rebuild

    WORLD.rebuild = shoal._rebuild


def begin(seeds):
    global extension, make_unpickler
    extension = sys.modules["shoal._ext"]
    hooks = {"find_class": WORLD.find_class, "persistent_load": WORLD.persistent_load}
    make_unpickler = type("HookedUnpickler", (extension.Unpickler,), hooks)
    prepare_rebuild()
    if seeds is not None:
        write_seeds(pathlib.Path(seeds))
    for thing in things_by_value():  # whatever is imported for the first time is imported now
        try:
            extension.loads(extension.dumps(thing))
        except (TypeError, extension.PicklingError):
            continue
    sys.setrecursionlimit(400)
    sys.unraisablehook = lambda unraisable: None
    sys.addaudithook(refuse)
