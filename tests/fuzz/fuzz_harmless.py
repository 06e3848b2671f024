# SPDX-License-Identifier: BSD-3-Clause
"""What a fuzzed stream may name: classes that do nothing outside of themselves and allocate next to nothing.

This module imports nothing, so that no path of attributes leads out of it.
"""


class Plain:
    class Inner:
        value = 1

        def method(self):
            return self


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


class Described:
    """One attribute is a property, one is kept elsewhere; and an instance may replace its own state."""

    a = property(lambda self: 1)
    kept = {}

    @property
    def b(self):
        return self.kept.get("b")

    @b.setter
    def b(self, value):
        self.kept.clear()
        self.kept["b"] = type(value)
        self.__dict__.clear()


class Meta(type):
    def __prepare__(name, bases, **keywords):
        return {"prepared": True}

    def __new__(cls, name, bases, namespace, **keywords):
        return type.__new__(cls, name, bases, dict(namespace))

    def __init__(cls, name, bases, namespace, **keywords):
        type.__init__(cls, name, bases, namespace)


def take(*args, **kwargs):
    return args


def drop(*args, **kwargs):
    """Whatever may be emptied is emptied."""
    for arg in args:
        if type(arg) in (list, dict, set):
            arg.clear()


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
    drop,
    Described,
    Meta,
]
