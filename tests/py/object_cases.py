# SPDX-License-Identifier: BSD-3-Clause
"""Objects that are no functions, classes or modules, for test_by_value_objects.py: as by_value_cases.py has them."""

import sys

import alias_cases

# name: (what the first script defines as `it`, what both scripts assert of what is loaded)
CASES = {
    "lru_cache": (
        """
        import functools
        @functools.lru_cache(maxsize=5, typed=True)
        def it(n):
            "doc"
            return n if n < 2 else it(n - 1) + it(n - 2)
        it.extra = 3
        it(9)
        """,
        """
        assert it.cache_info().currsize == 0 and it(20) == 6765 and it.cache_info().hits > 0
        assert it.cache_parameters() == {'maxsize': 5, 'typed': True}
        assert it.__doc__ == 'doc' and it.__name__ == 'it' and it.extra == 3
        assert it.__wrapped__.__globals__['it'] is it
        """,
    ),
    "caches of what has no name": (
        "import functools\nit = functools.lru_cache(functools.partial(int, base=2)), functools.cache(len)",
        "assert it[0]('11') == 3 and it[1]('ab') == 2",
    ),
    "cached methods": (
        """
        import functools
        class it:
            calls = 0
            @functools.lru_cache
            def m(self, x): return x
            @functools.cache
            def n(self): return 5
            @functools.cached_property
            def p(self):
                "doc"
                self.calls += 1
                return 7
        """,
        "o = it()\nassert o.m(3) == 3 and o.n() == 5 and o.p == o.p == 7 and o.calls == 1 and it.p.__doc__ == 'doc'\n"
        "assert it.m.cache_info().currsize == 1\nit.m.cache_clear(); it.n.cache_clear()",
    ),
    "cached_property of a kind of its own": (
        """
        import functools
        class Kind(functools.cached_property):
            def __init__(self, function, tag):
                super().__init__(function)
                self.tag = tag
        class it:
            p = Kind(lambda self: [7], "tag")
        """,
        "o = it()\nassert o.p is o.p and it.p.tag == 'tag'",
    ),
    "singledispatch": (
        """
        import functools
        @functools.singledispatch
        def it(x):
            "doc"
            return 'other'
        @it.register
        def _(x: int): return 'int', it('text')
        class C: pass
        @it.register(C)
        def of_c(x): return type(x).__name__
        it(1); it([])
        """,
        """
        assert it(True) == ('int', 'other') and it([]) == 'other' and it.__doc__ == 'doc' and it.__name__ == 'it'
        kind = next(cls for cls in it.registry if cls.__name__ == 'C')
        assert it(kind()) == 'C' and it(type('D', (kind,), {})()) == 'D'
        it.register(list, lambda x: 'list')
        assert it([]) == 'list'
        """,
    ),
    "singledispatchmethod": (
        """
        import functools
        class it:
            @functools.singledispatchmethod
            def f(self, x): return 'other'
            @f.register
            def _(self, x: int): return 'int'
            @functools.singledispatchmethod
            @classmethod
            def c(cls, x): return cls
        """,
        "assert it().f(1) == 'int' and it().f('') == 'other' and it.c(1) is it",
    ),
    "partial": (
        """
        import functools
        class Kind(functools.partial): pass
        first = Kind(lambda *args: args, 1)
        first.extra = 5
        class C:
            def f(self, *args): return args
            g = functools.partialmethod(f, 1)
        it = first, C()
        """,
        "assert it[0](2) == (1, 2) and it[0].extra == 5 and type(it[0]).__name__ == 'Kind' and it[1].g(2) == (1, 2)",
    ),
    "context managers as decorators": (
        """
        import contextlib
        log = []
        @contextlib.contextmanager
        def manager(x):
            log.append(x)
            yield x
        @manager(4)
        def decorated(): return list(log)
        @contextlib.asynccontextmanager
        async def later(): yield 6
        it = decorated, manager(5), later()
        """,
        """
        import asyncio
        assert it[0]() == [4] and it[0]() == [4, 4]
        with it[1] as x: assert x == 5
        async def main():
            async with it[2] as x: return x
        assert asyncio.run(main()) == 6
        """,
    ),
    "total_ordering": (
        """
        import functools
        @functools.total_ordering
        class C:
            def __init__(self, n): self.n = n
            def __lt__(self, other): return self.n < other.n
            def __eq__(self, other): return self.n == other.n
        it = C(1), C(2)
        """,
        "assert it[1] >= it[0] and it[0] <= it[1]",
    ),
    "wrapped descriptors with attributes": (
        """
        def f():
            "doc"
        it = staticmethod(f), classmethod(f)
        for one in it:
            one.extra = 1
            one.__doc__ = "own"
        """,
        "for one in it:\n    assert one.extra == 1 and one.__wrapped__ is one.__func__ and one.__doc__ == 'own'\n"
        "    assert one.__func__.__doc__ == 'doc' and one.__name__ == 'f'",
    ),
    "kinds of descriptors": (
        """
        class P(property):
            def __init__(self, function, tag):
                super().__init__(function)
                self.tag = tag
        class Q(property): pass
        class M(classmethod): pass
        q = Q(lambda self: 2)
        q.tag = 5
        class C:
            p = P(lambda self: 1, "tag")
            q = q
            m = M(lambda cls: cls)
        it = C
        """,
        "assert it().p == 1 and it.p.tag == 'tag' and it().q == 2 and it.q.tag == 5 and it.m() is it\n"
        "assert type(vars(it)['m']).__name__ == 'M'",
    ),
    "descriptors of C": (
        "it = [str.join, int.__add__, (1).__add__, vars(dict)['fromkeys'], dict.fromkeys, vars(int)['real'],"
        " [1].append, vars(type)['__dict__'], type('S', (), {'__slots__': 'x'}).x]",
        "assert it[:2] == [str.join, int.__add__] and it[2](2) == 3 and it[3] is vars(dict)['fromkeys']\n"
        "assert it[4]('a') == {'a': None} and it[5] is vars(int)['real'] and it[6].__self__ == [1]\n"
        "assert it[7] is vars(type)['__dict__'] and it[8].__name__ == 'x'",
    ),
    "bound methods": (
        """
        import types
        class C:
            def f(self): return 1
            def __private(self): return 2
            alias = f
            def get(self): return self.__private
            c = classmethod(lambda cls: cls)
        o = C()
        it = [o, o.f, o.get(), C.c, types.MethodType(len, [1, 2]), types.MethodType(lambda self: self, 5)]
        """,
        "o = it[0]\nassert it[1]() == 1 and it[1].__self__ is o and it[2]() == 2 and it[2].__self__ is o\n"
        "assert it[3]() is type(o) and it[4]() == 2 and it[5]() == 5",
    ),
    "super": (
        "class B:\n    def f(self): return 'B'\nclass C(B):\n    def f(self): return 'C'\nc = C()\nit = super(C, c), c",
        "assert it[0].f() == 'B' and it[0].__self__ is it[1]",
    ),
    "weak references": (
        """
        import weakref
        class Node:
            def __init__(self, up): self.up = up
            def method(self): return self
            def __eq__(self, other): return self is other
            __hash__ = object.__hash__
        root = Node(None)
        root.child = Node(weakref.ref(root))
        root.method_of_child = weakref.WeakMethod(root.child.method)
        it = root, weakref.ref(Node(None)), weakref.ref(root, print)
        """,
        """
        root = it[0]
        assert root.child.up() is root and root.method_of_child()() is root.child and it[1]() is None
        assert it[2]() is root and it[2].__callback__ is print
        """,
    ),
    "weak collections": (
        """
        import weakref
        class C: pass
        class Kind(weakref.WeakSet): pass
        c = C()
        c.set, c.values, c.keys = Kind([c]), weakref.WeakValueDictionary(c=c), weakref.WeakKeyDictionary({c: 5})
        c.set.extra = 5
        it = [c.values, c.keys, c.set, c]
        """,
        "c = it[3]\nassert it[:3] == [c.values, c.keys, c.set]\n"
        "assert c.values['c'] is c and c.keys[c] == 5 and list(c.set) == [c] and c.set.extra == 5\n"
        "import gc\nc.__dict__.clear(); it[3] = c = None; gc.collect()\n"
        "assert [len(one) for one in it[:3]] == [0, 0, 0]",
    ),
    "typing objects": (
        """
        import collections.abc, typing
        T, P = typing.TypeVar('T'), typing.ParamSpec('P')
        Key = typing.NewType('Key', int)
        it = (Key, typing.Annotated[Key, 'x'], typing.Optional[Key], typing.Callable[P, T], Key | None,
              typing.ForwardRef('int'), typing.ForwardRef('int', is_argument=False, is_class=True), P.args, P.kwargs,
              collections.abc.Callable[[int], str], typing.Literal[1, 'a'], list[T], T)
        """,
        """
        import typing
        Key, T = it[0], it[-1]
        assert Key(3) == 3 and Key.__supertype__ is int and Key.__name__ == 'Key' and Key.__module__ == '__main__'
        assert it[1] == typing.Annotated[Key, 'x'] and it[2] == typing.Optional[Key] and it[4] == Key | None
        assert it[3].__args__[1] is T and it[5] == typing.ForwardRef('int') and it[6].__forward_is_class__
        assert it[7].__origin__ is it[8].__origin__ is it[3].__args__[0] and it[11] == list[T]
        """,
    ),
    "new types that share a name": (
        "import typing\n"
        "it = [typing.NewType('N', int), typing.NewType('N', int), typing.NewType('N', str)]\nit.append(it[0])",
        "assert it[0] is it[3] and len(set(map(id, it))) == 3 and [n.__supertype__ for n in it[:3]] == [int, int, str]",
    ),
    "types that do not say where they are": (
        "import types, _collections_abc\n"
        "it = [vars(module)[name] for module in (types, _collections_abc) for name in vars(module)"
        " if getattr(vars(module)[name], '__module__', None) == 'builtins']",
        "import types, _collections_abc\n"
        "assert it == [vars(module)[name] for module in (types, _collections_abc) for name in vars(module)"
        " if getattr(vars(module)[name], '__module__', None) == 'builtins']",
    ),
    "records of sys": (
        "import sys, types\n"
        "it = [sys.flags, sys.version_info, sys.float_info, sys.hash_info, types.SimpleNamespace(v=sys.int_info)]",
        "import sys\nassert it[1] is sys.version_info and it[2:4] == [sys.float_info, sys.hash_info]\n"
        "assert it[4].v == sys.int_info and it[0].optimize == 0 and it[0].utf8_mode in (0, 1)",
    ),
    "marks": (
        "import dataclasses, inspect\n"
        "it = dataclasses.MISSING, dataclasses.KW_ONLY, inspect.Parameter.empty, ..., NotImplemented",
        "import dataclasses, inspect\n"
        "assert it == (dataclasses.MISSING, dataclasses.KW_ONLY, inspect.Parameter.empty, ..., NotImplemented)",
    ),
    "memory views": (
        """
        import array
        it = [memoryview(b'abc'), memoryview(bytearray(b'abc')), memoryview(array.array('i', [1, -2, 3])),
              memoryview(bytes(range(6))).cast('B', (2, 3)), memoryview(b'Hello!' * 3)[2:15:2],
              memoryview(array.array('d', [1, 2, 3, 4]))[::-2], memoryview(b''), memoryview(b'a').cast('B', ())]
        """,
        """
        assert [v.tolist() for v in it] == [
            [97, 98, 99], [97, 98, 99], [1, -2, 3], [[0, 1, 2], [3, 4, 5]], list((b'Hello!' * 3)[2:15:2]), [4, 2], [],
            97]
        assert [v.format for v in it] == ['B', 'B', 'i', 'B', 'B', 'd', 'B', 'B']
        assert [v.readonly for v in it] == [True, False, False, True, True, False, True, True]
        assert it[3].shape == (2, 3) and it[0] == b'abc'
        it[1][0] = it[2][1] = 5
        """,
    ),
    "dict views": (
        "import collections\nd = collections.OrderedDict(a=1, b=[2])\n"
        "it = [d.keys(), d.values(), d.items(), {1: 2}.keys(), {1: [2]}.values(), {1: [2]}.items()]",
        "assert [list(v) for v in it] == [['a', 'b'], [1, [2]], [('a', 1), ('b', [2])], [1], [[2]], [(1, [2])]]\n"
        "assert [type(v).__name__ for v in it] == ['odict_keys', 'odict_values', 'odict_items', 'dict_keys',"
        " 'dict_values', 'dict_items']",
    ),
    "files": (
        """
        import sys, tempfile
        named = tempfile.NamedTemporaryFile("w+b")
        named.write(b"abc\\ndef")
        named.seek(2)
        buffered, raw = open(named.name, "rb"), open(named.name, "rb", 0)
        buffered.read(1)
        it = named, buffered, raw, sys.stdout.buffer, sys.stderr
        """,
        """
        import os, sys
        assert [f.tell() for f in it[:3]] == [2, 1, 0]
        assert [f.read() for f in it[:3]] == [b'c\\ndef', b'bc\\ndef', b'abc\\ndef']
        assert it[0].name == it[1].name == it[2].name and it[3] is sys.stdout.buffer and it[4] is sys.stderr
        it[0].close()
        """,
    ),
    "files in memory": (
        "import io\nit = io.BytesIO(b'abc'), io.StringIO('abc')\nfor f in it: f.seek(2)",
        "assert it[0].read() == b'c' and it[1].read() == 'c'",
    ),
    "loggers": (
        "import logging\nit = [logging.getLogger(), logging.getLogger('a.b')]\n"
        "it.append(logging.LoggerAdapter(it[1], {'x': lambda: 1}))",
        "import logging\nassert it[:2] == [logging.getLogger(), logging.getLogger('a.b')]\n"
        "assert it[2].logger is it[1] and it[2].extra['x']() == 1",
    ),
    "struct": ("import struct\nit = struct.Struct('<iq')", "assert it.format == '<iq' and it.size == 12"),
    "vectorize": (
        "import numpy\n"
        "it = [numpy.vectorize(lambda x: x + 1), numpy.vectorize(lambda a: a.sum(), signature='(n)->()')]\n"
        "it[0]([1, 2]); it[1]([1, 2])",
        "assert it[0]([1, 2]).tolist() == [2, 3] and it[1]([1, 2]) == 3",
    ),
    "numpy's own": (
        "import numpy\nit = [numpy.float32(1.5), numpy.dtype('i4'), numpy.add, numpy.dtype([('a', 'i4')]),"
        " numpy.array([len, {1: lambda: 3}], dtype=object)]",
        "import numpy\nassert it[:4] == [1.5, numpy.dtype('i4'), numpy.add, numpy.dtype([('a', 'i4')])]\n"
        "assert it[4][0] is len and it[4][1][1]() == 3 and type(it[0]) is numpy.float32",
    ),
    "frame with functions in its attributes": (
        "import pandas\nit = pandas.DataFrame({'a': [1, 2]})\nit.attrs['f'] = lambda: 5",
        "assert it.attrs['f']() == 5 and it['a'].sum() == 3",
    ),
    "iterators": (
        "import itertools\n"
        "it = [iter([1]), iter({1: 2}), iter({1: 2}.items()), map(lambda x: x + 1, [1]), zip([1], [2]),"
        " filter(None, [0, 1]), enumerate([3]), reversed([1, 2]), itertools.chain([1], [2]), iter(range(2))]",
        "assert [list(i) for i in it] == [[1], [1], [(1, 2)], [2], [(1, 2)], [1], [(0, 3)], [2, 1], [1, 2], [0, 1]]",
    ),
}

if sys.version_info >= (3, 11):
    CASES["type variable tuples"] = (
        "import typing\nTs = typing.TypeVarTuple('Ts')\n"
        "it = typing.Unpack[Ts], tuple[typing.Unpack[Ts]], next(iter(Ts)), Ts",
        "import typing\nTs = it[3]\nassert it[0] == it[2] == typing.Unpack[Ts] and it[1] == tuple[typing.Unpack[Ts]]",
    )
    CASES["enum.auto"] = ("import enum\nit = enum.auto()", "import enum\nassert it.value is enum.auto().value")

CASES |= alias_cases.CASES

# What pickle itself cannot do with protocols 0 and 1.
NEEDS_PROTOCOL_2 = {"typing objects", "files in memory"}
