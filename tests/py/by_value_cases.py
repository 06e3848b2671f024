# SPDX-License-Identifier: BSD-3-Clause
"""What travels by value, for test_by_value.py: defined in one script, used in another that cannot import it."""

# name: (what the first script defines as `it`, what the second one asserts of `it`)
CASES = {
    "lambda": ("it = lambda x: x + 1", "assert it(2) == 3 and it.__qualname__ == '<lambda>'"),
    "globals": (
        "a = [1]\nb = 2\nunused = open('/dev/null')\ndef it(): return a, b",
        "assert it() == ([1], 2) and 'unused' not in it.__globals__",
    ),
    "recursion": ("def it(n): return 1 if n < 2 else n * it(n - 1)", "assert it(5) == 120"),
    "mutual recursion": (
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\nit = even",
        "assert it(10) and not it(11)",
    ),
    "recursive closure": (
        "def make():\n    def f(n): return 1 if n < 2 else n * f(n - 1)\n    return f\nit = make()",
        "assert it(5) == 120",
    ),
    "siblings share their cell": (
        """
        def make():
            n = [0]
            m = 0
            def increase():
                nonlocal m
                m += 1
                n.append(m)
            def get(): return m, n
            return increase, get
        it = make()
        """,
        "it[0](); it[0](); assert it[1]() == (2, [0, 1, 2])",
    ),
    "empty cell": (
        "def make():\n    def f(): return x\n    if 0: x = 1\n    return f\nit = make()",
        "import pytest\nwith pytest.raises(NameError): it()",
    ),
    "signature": (
        "def it(a: int, b=[1], *c, d={'k': 2}, **e) -> str:\n    'doc'\n    return a, b, c, d, e\nit.extra = 5",
        """
        import inspect
        assert it(1, d=3) == (1, [1], (), 3, {}) and it.extra == 5 and it.__doc__ == 'doc'
        assert it.__annotations__ == {'a': int, 'return': str} and it.__kwdefaults__ == {'d': {'k': 2}}
        assert it.__module__ == '__main__'
        """,
    ),
    "one namespace": (
        "n = 0\ndef add():\n    global n\n    n += 1\ndef get(): return n\nit = add, get",
        "it[0](); it[0](); assert it[1]() == 2 and it[0].__globals__ is it[1].__globals__",
    ),
    "global of a nested class body": (
        "value = 7\ndef it():\n    class C:\n        v = value\n    return C.v",
        "assert it() == 7",
    ),
    "submodule of a nested function": (
        """
        import xml.dom.minidom
        def it():
            def inner(): return xml.dom.minidom.parseString('<a/>').documentElement.tagName
            return inner()
        """,
        "assert it() == 'a'",
    ),
    "generator function": ("def it():\n    yield 1\n    yield 2", "assert list(it()) == [1, 2]"),
    "wrapped": (
        """
        import functools
        def deco(f):
            @functools.wraps(f)
            def g(*args): return f(*args) + 1
            return g
        @deco
        def it(x): return x
        """,
        "assert it(1) == 2 and it.__wrapped__(1) == 1 and it.__name__ == 'it'",
    ),
    "class": (
        """
        class it:
            z = 1
            def a(self): return self.z, it
            @property
            def p(self): return 5
            @classmethod
            def c(cls): return cls
            @staticmethod
            def s(): return 9
            class Inner: pass
        """,
        """
        assert it().a() == (1, it) and it().p == 5 and it.c() is it and it.s() == 9
        assert it.Inner.__qualname__ == 'it.Inner'
        assert [n for n in vars(it) if n in 'zapcs'] == ['z', 'a', 'p', 'c', 's']
        """,
    ),
    "instance": (
        "class C:\n    def __init__(self): self.me = self\nit = C()",
        "assert it.me is it and type(it).__name__ == 'C'",
    ),
    "super": (
        "class B:\n    def f(self): return 1\nclass it(B):\n    def f(self): return super().f() + 1",
        "assert it().f() == 2",
    ),
    "local class": (
        "def make():\n    class L:\n        def who(self): return L\n    return L\nit = make()",
        "assert it().who() is it and it.__qualname__ == 'make.<locals>.L'",
    ),
    "slots": (
        """
        class it:
            __slots__ = ('x', '__private')
            def __init__(self): self.x, self.__private = 1, 2
            def get(self): return self.__private
        """,
        "assert it().get() == 2 and not hasattr(it(), '__dict__')",
    ),
    "abstract": (
        """
        import abc
        class A(abc.ABC):
            @abc.abstractmethod
            def f(self): ...
        class R: pass
        A.register(R)
        class C(A):
            def f(self): return 1
        it = A, R, C
        """,
        """
        import pytest
        A, R, C = it
        with pytest.raises(TypeError): A()
        assert isinstance(R(), A) and C().f() == 1
        """,
    ),
    "metaclass": (
        "class M(type):\n    def hello(cls): return cls.__name__\nclass it(metaclass=M): pass",
        "assert it.hello() == 'it'",
    ),
    "enum members": (
        "import enum\nclass E(enum.IntFlag):\n    A = 1\n    B = 2\nit = [E.A, E.A | E.B]",
        "assert it[0] == 1 and it[1] == 3 and it[0] | type(it[0]).B == it[1]",
    ),
    "dataclass": (
        """
        import dataclasses
        @dataclasses.dataclass
        class it:
            a: int
            b: list = dataclasses.field(default_factory=list)
        """,
        """
        import dataclasses
        assert it(1) == it(1, []) and dataclasses.fields(it)[0].default is dataclasses.MISSING
        assert repr(it(1)) == 'it(a=1, b=[])'
        """,
    ),
    "dataclass with slots": (
        "import dataclasses\n@dataclasses.dataclass(slots=True, frozen=True)\nclass C:\n    a: int\nit = C(3)",
        "assert it == type(it)(3) and not hasattr(it, '__dict__')",
    ),
    "generic": (
        "import typing\nT = typing.TypeVar('T')\nclass it(typing.Generic[T]):\n    def f(self) -> T: return 1",
        "assert it[int].__origin__ is it and it().f() == 1 and it.__parameters__[0].__name__ == 'T'",
    ),
    "named tuple": (
        "import typing\nclass N(typing.NamedTuple):\n    a: int\n    b: str = 'x'\nit = N(1)",
        "assert it == (1, 'x') and it.a == 1 and it._replace(a=2).a == 2",
    ),
    "typed dict": (
        "import typing\nclass it(typing.TypedDict, total=False):\n    a: int",
        "assert it(a=1) == {'a': 1} and it.__total__ is False",
    ),
    "class keyword arguments that were used up": (
        "class B:\n    def __init_subclass__(cls, tag='none'): cls.tag = tag\nclass it(B, tag='mine'): pass",
        "assert it.tag == 'mine'",
    ),
    "module": (
        "import types\nit = types.ModuleType('dynamic')\n"
        "exec('x = 1\\ndef f(): return x\\ndef s(v):\\n    global x\\n    x = v', vars(it))",
        "assert it.f() == 1\nit.s(5)\nassert it.x == it.f() == 5",
    ),
    "importable module": ("import os.path as it", "import os\nassert it is os.path"),
    "cell, code, views": (
        "def f(x):\n    return lambda: x\n"
        "it = f(1).__closure__[0], f.__code__, {'a': 1}.keys(), {'a': 1}.values(), {'a': 1}.items()",
        "assert it[0].cell_contents == 1 and it[1].co_name == 'f' and list(it[2]) == ['a'] and list(it[3]) == [1]\n"
        "assert list(it[4]) == [('a', 1)] and [type(v).__name__ for v in it[2:]] == "
        "['dict_keys', 'dict_values', 'dict_items']",
    ),
    "descriptors": (
        "it = property(lambda self: 1, doc='d'), classmethod(lambda cls: 2), staticmethod(lambda: 3)",
        "assert it[0].fget(0) == 1 and it[0].__doc__ == 'd' and it[1].__func__(0) == 2 and it[2].__func__() == 3",
    ),
    "types without a name": (
        "import types\nit = types.FunctionType, types.CodeType, types.CellType, types.MappingProxyType, type(None)",
        "import types\n"
        "assert it == (types.FunctionType, types.CodeType, types.CellType, types.MappingProxyType, type(None))",
    ),
    "descriptors of the interpreter": (
        "class it: pass\nit = [type(it).__call__.__get__, vars(type)['__dict__'], vars(it)['__dict__'], it, vars(it)]",
        "assert it[1] is vars(type)['__dict__'] and it[2] is vars(it[3])['__dict__'] and it[4]['__dict__'] is it[2]",
    ),
    "properties by names that the metaclass has for itself": (
        """
        class it:
            __name__ = property(lambda self: "mine")
            __class__ = property(lambda self: int)
            __dict__ = property(lambda self: {"x": it})
            __bases__ = 5
        """,
        "assert it().__name__ == 'mine' and it().__class__ is int and it().__dict__ == {'x': it}\n"
        "assert it().__bases__ == 5\n"
        "assert it.__name__ == 'it' and it.__bases__ == (object,)",
    ),
    "abstract members of the old kinds": (
        """
        import abc
        class it(abc.ABC):
            @abc.abstractproperty
            def p(self): "doc"
            @abc.abstractclassmethod
            def c(cls): ...
            @abc.abstractstaticmethod
            def s(): ...
        """,
        "assert it.__abstractmethods__ == {'p', 'c', 's'} and it.p.__doc__ == 'doc' and it.p.__isabstractmethod__",
    ),
    "weak set": (
        "import weakref\nclass C: pass\nc = C()\nit = weakref.WeakSet([c]), c",
        "assert list(it[0]) == [it[1]]",
    ),
    "standard streams": ("import sys\nit = sys.stdout, sys.stderr", "assert it == (sys.stdout, sys.stderr)"),
    "text file": (
        """
        import tempfile
        named = tempfile.NamedTemporaryFile("w+", encoding="utf-8")
        it = named.file
        it.write("z\u00eb\u20acro\\none")
        it.seek(0)
        assert it.read(4) == "z\u00eb\u20acr"
        """,
        "assert it.read() == 'o\\none' and it.seek(0) == 0 and it.read(2) == 'z\u00eb' and it.name\nit.seek(4)",
    ),
    "module of a kind that reduces itself": (
        "import types\nclass M(types.ModuleType):\n    def __reduce__(self): return M, ('made',)\nit = M('dynamic')",
        "assert it.__name__ == 'made' and type(it).__name__ == 'M'",
    ),
    "instances of which some use their slots": (
        """
        class C:
            __slots__ = ("a", "__dict__")
        class D(C): pass
        it = [C(), C(), D(), D()]
        for obj in it: obj.x = 1
        it[1].a = it[3].a = 2
        """,
        "assert [getattr(obj, 'a', None) for obj in it] == [None, 2, None, 2] and all(obj.x == 1 for obj in it)",
    ),
    "mapping proxy": ("import types\nit = types.MappingProxyType({'a': 1})", "assert dict(it) == {'a': 1}"),
}


# What pickle itself cannot do with protocols 0 and 1: objects with slots.
NEEDS_PROTOCOL_2 = {"dataclass with slots", "slots", "instances of which some use their slots"}
