# SPDX-License-Identifier: BSD-3-Clause
"""What a fuzzed stream may name: classes that do nothing outside of themselves and allocate next to nothing."""

import copyreg
import io


class Plain:
    pass


class Slots:
    __slots__ = ("a", "b")


class Stateful:
    """Keeps its state in a way of its own; refuses integers."""

    def __setstate__(self, state):
        if isinstance(state, int):
            raise ValueError("no integers")
        self.state = state


class Picky:
    """Setting an attribute runs code; so does going away."""

    log = []

    def __setattr__(self, name, value):
        object.__setattr__(self, name, (value,))

    def __del__(self):
        del self.log[:]


class OnlyAppend:
    def __init__(self, *args):
        self.items = []

    def append(self, item):
        if item is None:
            raise TypeError("no None")
        self.items.append(item)


class OnlyAdd:
    def add(self, item):
        self.last = item


class Mapping:
    def __init__(self, *args, **kwargs):
        self.pairs = []

    def __setitem__(self, key, value):
        self.pairs.append((key, value))
        if len(self.pairs) > 3:
            del self.pairs[:]


class ListSubclass(list):
    def __init__(self, *args):
        list.__init__(self)


class DictSubclass(dict):
    def __init__(self, *args, **kwargs):
        dict.__init__(self)


class SetSubclass(set):
    def __init__(self, *args):
        set.__init__(self)


class IntSubclass(int):
    def __new__(cls, *args):
        return int.__new__(cls, 7)


class Key:
    """All are equal and have one hash; comparing runs code."""

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return isinstance(other, Key)


def take(*args, **kwargs):
    return args


CLASSES = [
    Plain,
    Slots,
    Stateful,
    Picky,
    OnlyAppend,
    OnlyAdd,
    Mapping,
    ListSubclass,
    DictSubclass,
    SetSubclass,
    IntSubclass,
    Key,
    take,
    object,
    complex,
    copyreg._reconstructor,
]


class World:
    """The find_class and persistent_load of the decoders that are fuzzed. The name chooses: any name is good."""

    def find_class(self, module, name):
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


WORLD = World()
KINDS = [io.BytesIO, Peekable, Plainest]


def make_file(data):
    return KINDS[len(data) % len(KINDS)](data)
