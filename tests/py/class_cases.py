# SPDX-License-Identifier: BSD-3-Clause
"""Classes by value, for test_by_value_classes.py: defined in one script, used in another that cannot import it."""

import hook_cases
import slot_cases

# name: (what the first script defines as `it`, what the second one asserts of `it`[, Python from which on])
CASES = {
    "metaclass with everything": (
        """
        class M(type):
            made = []
            @classmethod
            def __prepare__(m, name, bases, **kw):
                return {'prepared': kw['flag']}
            def __new__(m, name, bases, ns, *, flag, other=None):
                cls = super().__new__(m, name, bases, ns)
                cls.in_body = sorted(k for k in ns if k[0] != '_')
                return cls
            def __init__(cls, name, bases, ns, *, flag, other=None):
                super().__init__(name, bases, ns)
                M.made.append((name, flag, other))
            def __call__(cls, *args):
                return super().__call__(*args), 'called'
            def __setattr__(cls, name, value):
                if name == 'forbidden': raise AttributeError(name)
                super().__setattr__(name, value)
        class it(metaclass=M, flag=1, other='o'):
            z = 2
            forbidden = 3
            def __init__(self): self.y = 4
        """,
        """
        assert type(it).made == [('it', 1, 'o')] and it.in_body == ['forbidden', 'prepared', 'z']
        made, called = it()
        assert (made.y, made.prepared, it.forbidden, called) == (4, 1, 3, 'called')
        """,
    ),
    "keyword that is required": (
        "class B:\n    def __init_subclass__(cls, *, tag): cls.tag = tag\nclass it(B, tag=[1]): pass",
        "assert it.tag == [1]\nwith pytest.raises(TypeError): type('X', (it,), {})\n"
        "class Y(it, tag=2): pass\nassert Y.tag == 2",
    ),
    "hooks see super": (
        """
        class B:
            def __init_subclass__(cls): cls.said = cls().say()
            def say(self): return 'B'
        class it(B):
            def say(self): return super().say() + __class__.__name__
        """,
        "assert it.said == it().say() == 'Bit'",
    ),
    "descriptors are named once": (
        """
        class D:
            def __set_name__(self, owner, name):
                self.named = getattr(self, 'named', 0) + 1
                self.owner, self.name = owner, name
            def __get__(self, obj, cls): return self
        class it:
            a = D()
            b = D()
        """,
        "assert (it.a.named, it.a.name, it.b.name, it.a.owner) == (1, 'a', 'b', it)",
    ),
    "abstract, with registrations": (
        """
        import abc, collections.abc
        class A(abc.ABC):
            @property
            @abc.abstractmethod
            def p(self): ...
            @abc.abstractmethod
            def f(self): ...
        class R: pass
        class S(R): pass
        A.register(R); A.register(list)
        class C(A):
            p = 1
            def f(self): return 2
        it = A, R, S, C
        """,
        """
        A, R, S, C = it
        assert A.__abstractmethods__ == {'p', 'f'} and isinstance(R(), A) and issubclass(S, A) and issubclass(list, A)
        assert C().f() == 2 and not issubclass(dict, A)
        with pytest.raises(TypeError): A()
        """,
    ),
    "abstract no more": (
        "import abc\nclass it(abc.ABC):\n    @abc.abstractmethod\n    def f(self): return 1\n"
        "it.__abstractmethods__ = frozenset()",
        "assert it().f() == 1",
    ),
    "dataclass of every kind": (
        """
        import dataclasses, typing
        from dataclasses import field
        @dataclasses.dataclass(order=True, frozen=True)
        class it:
            a: int
            b: list = field(default_factory=list, compare=False)
            c: typing.ClassVar[int] = 3
            d: dataclasses.InitVar[int] = 4
            _: dataclasses.KW_ONLY
            e: str = field(default='e', metadata={'m': 1}, repr=False)
            def __post_init__(self, d): object.__setattr__(self, 'got', d)
        """,
        """
        import dataclasses
        i = it(1)
        assert (i.a, i.b, i.c, i.got, i.e) == (1, [], 3, 4, 'e') and repr(i) == 'it(a=1, b=[])' and it(1) < it(2)
        assert it.__dataclass_fields__['e'].metadata == {'m': 1} and it.__match_args__ == ('a', 'b', 'd')
        with pytest.raises(dataclasses.FrozenInstanceError): i.a = 2
        with pytest.raises(TypeError): it(1, [], 4, 'e')
        assert [f.name for f in dataclasses.fields(it)] == ['a', 'b', 'e']
        """,
    ),
    "dataclass to inherit from": (
        "import dataclasses\n@dataclasses.dataclass\nclass it:\n    x: int\n"
        "    y: list = dataclasses.field(default_factory=list)\n    z: int = 3",
        """
        import dataclasses
        @dataclasses.dataclass
        class E(it):
            w: int = 5
        e = E(1)
        assert (e.x, e.y, e.z, e.w) == (1, [], 3, 5)
        with pytest.raises(TypeError): E()
        assert dataclasses.fields(it)[0].default is dataclasses.MISSING
        """,
    ),
    "dataclass with slots and super": (
        "import dataclasses\n@dataclasses.dataclass(slots=True)\nclass it:\n    x: int = 1\n"
        "    def f(self): return self.x",
        "i = it()\nassert i.f() == 1 and not hasattr(i, '__dict__') and it.__slots__ == ('x',)",
    ),
    "named tuples": (
        "import typing, collections\nclass N(typing.NamedTuple):\n    'doc'\n    a: int\n    b: str = 'x'\n"
        "    def f(self): return self.a\nit = N, collections.namedtuple('P', 'x y', defaults=[2], module='__main__')",
        """
        N, P = it
        assert N(1) == (1, 'x') and N(2).f() == 2 and N._field_defaults == {'b': 'x'} and N.__doc__ == 'doc'
        assert P(1).y == 2 and P._make([1, 2])._asdict() == {'x': 1, 'y': 2} and repr(P(1)) == 'P(x=1, y=2)'
        """,
    ),
    "typed dicts": (
        "import typing\nclass A(typing.TypedDict): a: int\nclass it(A, total=False): b: str",
        "assert it(a=1) == {'a': 1} and it.__required_keys__ == {'a'} and it.__optional_keys__ == {'b'}\n"
        "assert it.__annotations__ == {'a': int, 'b': str} and it.__total__ is False",
    ),
    "typed dict with markers": (
        "import typing\nclass it(typing.TypedDict):\n    a: typing.Required[int]\n    b: typing.NotRequired[str]",
        "assert it.__required_keys__ == {'a'} and it.__optional_keys__ == {'b'}",
        (3, 11),
    ),
    "generic": (
        """
        import typing
        T = typing.TypeVar('T', bound=int)
        P = typing.ParamSpec('P')
        class G(typing.Generic[T, P]):
            def f(self, x: T) -> T: return x
        class it(G[bool, [int]], typing.Generic[T]): pass
        """,
        """
        G = it.__mro__[1]
        T, = it.__parameters__
        assert G.__parameters__[0] is T and T.__bound__ is int and it.__orig_bases__[0].__origin__ is G
        assert it().f(1) == 1 and it[int].__origin__ is it and it.f.__annotations__ == {'x': T, 'return': T}
        """,
    ),
    "protocols": (
        """
        import typing
        @typing.runtime_checkable
        class P(typing.Protocol):
            x: int
            def f(self) -> int: ...
        class C(P):
            x = 1
            def __init__(self): self.y = 2
        class D:
            x = 1
            def f(self): return 1
        it = P, C, D
        """,
        """
        P, C, D = it
        assert isinstance(D(), P) and not isinstance(1, P) and C().y == 2
        with pytest.raises(TypeError): P()
        """,
    ),
    "PEP 695": (
        """
        class A[T: int, *Ts, **P]:
            x: T
            def f[U](self, u: U) -> tuple[T, U]: return u
        class it[T](A[T, [int]]):
            type X = list[T]
        """,
        """
        A = it.__mro__[1]
        T, Ts, P = A.__type_params__
        assert (T.__name__, Ts.__name__, P.__name__) == ('T', 'Ts', 'P') and T.__bound__ is int
        assert P.__bound__ is type(P)('P').__bound__ and T.__infer_variance__ and P.__infer_variance__
        assert A.__annotations__ == {'x': T} and A.f.__type_params__[0].__name__ == 'U' and it().f(3) == 3
        assert it.__type_params__ == it.__parameters__ and it[int]
        """,
        (3, 12),
    ),
    "class_getitem": (
        "class it:\n    def __class_getitem__(cls, item): return cls, item",
        "assert it[1] == (it, 1)",
    ),
    "nested and cyclic": (
        """
        class it:
            class Inner:
                class Deep:
                    def up(self): return it.Inner
                def up(self): return it
        class Other: friend = it
        it.friend = Other
        it.Inner.outer = it
        it.instances = [it(), {'other': Other()}]
        """,
        """
        assert it.friend.friend is it and it.Inner.outer is it and it.Inner().up() is it
        assert it.Inner.Deep().up() is it.Inner and it.Inner.Deep.__qualname__ == 'it.Inner.Deep'
        assert type(it.instances[0]) is it and type(it.instances[1]['other']) is it.friend
        """,
    ),
    "base that knows its children": (
        """
        class Base:
            children = []
            def __init_subclass__(cls): Base.children.append(cls)
            @classmethod
            def first(cls): return A
        class A(Base): pass
        class it(A): pass
        """,
        "A = it.__mro__[1]\nassert it.children == [A, it] and it.first() is A",
    ),
    "local classes": (
        """
        def make(n):
            class A:
                def get(self): return n, A, __class__
            class B(A):
                def get(self): return super().get() + (B,)
            return A, B
        it = make(1) + make(2)
        """,
        """
        A, B, C, D = it
        assert A().get() == (1, A, A) and B().get() == (1, A, A, B) and D().get() == (2, C, C, D)
        assert A.__qualname__ == 'make.<locals>.A'
        """,
    ),
    "order, name, doc, annotations": (
        """
        def make():
            class it:
                z: int = 1
                a: 'str' = 2
                def m(self): pass
                b = None
                'no doc'
            it.late = 5
            it.a2 = 6
            return it
        it = make()
        class D(it): 'doc'
        it = it, D
        """,
        """
        it, D = it
        assert [k for k in vars(it) if k[0] != '_'] == ['z', 'a', 'm', 'b', 'late', 'a2']
        assert (it.__doc__, D.__doc__) == (None, 'doc') and it.__annotations__ == {'z': int, 'a': 'str'}
        assert it.__qualname__ == 'make.<locals>.it' and it.__name__ == 'it' and it.__module__ == '__main__'
        """,
    ),
    "an override equal to the base's": (
        "class A:\n    x = 1\n    def f(self): return 1\nclass it(A):\n    x = A.x\n    f = A.f",
        "assert 'x' in vars(it) and it.f is vars(it)['f'] is it.__mro__[1].f",
    ),
    "exceptions": (
        "class E(Exception):\n    def __init__(self, a, b): self.a, self.b = a, b\nclass it(E, KeyError): code = 3",
        "assert it(1, 2).b == 2 and issubclass(it, KeyError) and it.code == 3",
    ),
    "bases of C": (
        "class D(dict):\n    def __missing__(self, k): return k\nclass I(int): x = 1\nclass T(tuple): pass\n"
        "it = D, I, T",
        "D, I, T = it\nassert D()['k'] == 'k' and I(3) + I(4) == 7 and I.x == 1 and T((1,)) == (1,)",
    ),
    "metaclass that compares": (
        "class M(type):\n    def __eq__(cls, other): return True\n    __hash__ = None\nclass it(metaclass=M): x = 1",
        "assert it == 5 and it.x == 1 and type(it).__hash__ is None",
    ),
    "metaclass that raises": (
        "class M(type):\n    def __eq__(cls, other): raise ValueError\n    def __hash__(cls): raise ValueError\n"
        "class it(metaclass=M):\n    def f(self): return it",
        "assert it().f() is it",
    ),
    "attributes that shadow the metaclass's": (
        """
        class M(type):
            @property
            def label(cls): return 'meta'
        class it(metaclass=M):
            label = 'own'
            @property
            def __name__(self): return 'instance'
            @property
            def __class__(self): return int
            @property
            def __doc__(self): return 'of ' + str(1)
        """,
        "assert it.label == 'meta' and it().label == 'own' and it().__name__ == 'instance' and it.__name__ == 'it'\n"
        "assert isinstance(it(), int) and it().__doc__ == 'of 1'",
    ),
    "model with fields": (
        """
        class Field:
            def __init__(self, kind): self.kind = kind
            def __set_name__(self, owner, name): self.name = name
        class Meta(type):
            def __new__(m, name, bases, ns):
                fields = {k: v for k, v in ns.items() if isinstance(v, Field)}
                for k in fields: del ns[k]
                cls = super().__new__(m, name, bases, ns)
                inherited = {}
                for b in bases: inherited.update(getattr(b, '_fields', {}))
                cls._fields = {**inherited, **fields}
                return cls
        class Model(metaclass=Meta):
            def __init__(self, **kw):
                for k in self._fields: setattr(self, k, self._fields[k].kind(kw[k]))
        class it(Model):
            a = Field(int)
            b = Field(str)
        """,
        "i = it(a='1', b=2)\nassert (i.a, i.b) == (1, '2') and list(it._fields) == ['a', 'b']\n"
        "class Sub(it): c = type(it._fields['a'])(float)\nassert Sub(a=1, b=2, c=3).c == 3.0",
    ),
    "metaclass that renames and adds a base": (
        """
        class Mixin:
            def mixed(self): return 1
        class M(type):
            def __new__(m, name, bases, ns):
                if Mixin not in bases: bases = (Mixin, *bases)
                return super().__new__(m, 'Pre' + name, bases, ns)
        class it(metaclass=M): pass
        """,
        "assert it.__name__ == 'Preit' and it.__qualname__ == 'it' and it().mixed() == 1",
    ),
    "made by type()": (
        "it = type('it', (dict,), {'x': 1, 'f': lambda self: it})",
        "assert it().f() is it and it.x == 1 and issubclass(it, dict)",
    ),
    "cached property": (
        "import functools\nclass it:\n    @functools.cached_property\n    def p(self): return [1]",
        "i = it()\nassert i.p is i.p == [1]",
    ),
    "method marked by a decorator": (
        """
        def route(path):
            def mark(f):
                f.path = path
                return f
            return mark
        class Base:
            def __init_subclass__(cls):
                cls.routes = {v.path: k for k, v in vars(cls).items() if hasattr(v, 'path')}
        class it(Base):
            @route('/a')
            def a(self): return it
        """,
        "assert it.routes == {'/a': 'a'} and it().a() is it",
    ),
    "singledispatch on itself": (
        """
        import functools
        class it:
            @functools.singledispatchmethod
            def f(self, x): return 'any'
            @f.register
            def _(self, x: int): return 'int'
        """,
        "assert it().f(1) == 'int' and it().f('') == 'any'",
    ),
    "sets of text": (
        "class it:\n    a = {'x', 'y', 'zz', 'w'}\n    b = frozenset('abcdef')",
        "assert it.a == {'x', 'y', 'zz', 'w'} and it.b == frozenset('abcdef')",
    ),
}

CASES |= hook_cases.CASES | slot_cases.CASES
