# SPDX-License-Identifier: BSD-3-Clause
"""Enums by value, for test_by_value_enums.py: defined in one script, used in another that cannot import them."""

# name: (what the first script defines as `it`, what the second one asserts of `it`[, Python from which on])
CASES = {
    "plain, with methods": (
        """
        import enum
        class it(enum.Enum):
            'doc'
            A = 1
            B = 'b'
            def f(self): return self.name, it.A
            @classmethod
            def c(cls): return cls.B
            @property
            def p(self): return self.value
        """,
        "assert it.A.f() == ('A', it.A) and it.c() is it.B and it('b') is it['B'] and it.B.p == 'b'\n"
        "assert it.__doc__ == 'doc' and list(it) == [it.A, it.B] and repr(it.A) == '<it.A: 1>'",
    ),
    "aliases": (
        "import enum\nclass it(enum.Enum):\n    A = 1\n    B = 2\n    C = 1",
        "assert list(it.__members__) == ['A', 'B', 'C'] and it.C is it.A and list(it) == [it.A, it.B]",
    ),
    "members keep their identity": (
        "import enum\nclass E(enum.Enum):\n    A = 1\nit = [E.A, E.A, {E.A: E}]",
        "E = it[2][it[0]]\nassert it[0] is it[1] is E.A",
    ),
    "with ints and strings": (
        "import enum\nclass I(enum.IntEnum):\n    A = 1\n    B = 2\nclass S(str, enum.Enum):\n    X = 'x'\nit = I, S",
        "I, S = it\nassert I.A + 1 == 2 and I(2) is I.B and S.X == 'x' and S('x') is S.X and isinstance(S.X, str)",
    ),
    "StrEnum": (
        "import enum\nclass it(enum.StrEnum):\n    A = enum.auto()\n    B = 'other'",
        "assert it.A == 'a' and str(it.B) == 'other' and it('a') is it.A",
        (3, 11),
    ),
    "flags": (
        """
        import enum
        class F(enum.Flag):
            A = 1
            B = 2
            AB = 3
            N = 0
        class I(enum.IntFlag):
            X = 4
            Y = 8
        it = F, I, F.A | F.B, I.X | I.Y, I.X | 64
        """,
        "F, I, ab, xy, odd = it\nassert ab is F.AB and xy == 12\n"
        "assert xy & I.X == I.X and F.A | F.B is F.AB and ~F.A & F.AB\n"
        "assert odd == 68 and type(odd) is I and F.N.value == 0 and I(12) == xy",
    ),
    "flags with a boundary": (
        "import enum\nclass it(enum.Flag, boundary=enum.CONFORM):\n    A = 1\n    B = 2",
        "import enum\nassert it(7) == it.A | it.B and it._boundary_ is enum.CONFORM",
        (3, 11),
    ),
    "own __new__ with attributes": (
        """
        import enum
        class B(bytes, enum.Enum):
            def __new__(cls, value, label):
                made = bytes.__new__(cls, [value])
                made._value_, made.label = value, label
                return made
            X = (0, 'x')
            Y = (1, 'y')
        class O(enum.Enum):
            def __new__(cls, value, label):
                made = object.__new__(cls)
                made._value_, made.label = value, label
                return made
            X = (0, 'x')
            Y = (1, 'y')
        it = B, O
        """,
        "B, O = it\nassert B.Y.label == O.Y.label == 'y' and B.Y == b'\\x01' and B(1) is B.Y and O(0) is O.X\n"
        "assert O.X.value == 0",
    ),
    "own __init__": (
        "import enum\nclass it(enum.Enum):\n    A = (1, 2)\n    B = (3, 4)\n"
        "    def __init__(self, x, y): self.x, self.y = x, y\n    @property\n    def s(self): return self.x + self.y",
        "assert it.B.s == 7 and it.A.value == (1, 2) and it((3, 4)) is it.B",
    ),
    "values that cannot be hashed": (
        "import enum\nclass it(enum.Enum):\n    A = [1]\n    B = {'x': 2}",
        "assert it([1]) is it.A and it.B.value == {'x': 2}",
    ),
    "functional": (
        "import enum\nE = enum.Enum('E', 'RED GREEN', module='__main__', qualname='E')\n"
        "it = E, enum.IntFlag('F', {'A': 1, 'B': 4})",
        "E, F = it\nassert [e.name for e in E] == ['RED', 'GREEN'] and F.A | F.B == 5 and E(2) is E.GREEN",
    ),
    "auto, _missing_, _generate_next_value_, _ignore_": (
        """
        import enum
        class it(enum.Enum):
            _ignore_ = ['n']
            def _generate_next_value_(name, start, count, last): return name.lower()
            A = enum.auto()
            B = enum.auto()
            for n in 'CD': vars()[n] = n * 2
            @classmethod
            def _missing_(cls, value): return cls.A
        """,
        "assert it.B.value == 'b' and it('?') is it.A and it.D.value == 'DD' and not hasattr(it, 'n')",
    ),
    "member and nonmember": (
        "import enum\nclass it(enum.Enum):\n    A = 1\n    x = enum.nonmember(5)\n    f = enum.member(len)",
        "assert it.x == 5 and it.f.value is len and list(it.__members__) == ['A', 'f']",
        (3, 11),
    ),
    "mixins and bases without members": (
        """
        import enum
        class Mixin:
            def hello(self): return 'hello ' + self.name
        class Base(Mixin, enum.Enum):
            def upper(self): return self.value.upper()
            @classmethod
            def all(cls): return [m.value for m in cls]
        class it(Base):
            A = 'a'
        """,
        "assert it.A.hello() == 'hello A' and it.A.upper() == 'A' and it.all() == ['a']\n"
        "assert not it.__mro__[1].__members__\n"
        "class Other(it.__mro__[1]): Z = 'z'\nassert Other.Z.upper() == 'Z'",
    ),
    "a dataclass for values": (
        """
        import dataclasses, enum
        @dataclasses.dataclass(frozen=True)
        class P:
            x: int
        class it(enum.Enum):
            A = P(1)
            B = P(2)
        """,
        "assert it.B.value.x == 2 and it(it.A.value) is it.A",
    ),
    "attributes set later": (
        "import enum\nclass it(enum.Enum):\n    A = 1\nit.extra = [it.A]\nit.g = lambda self: self.value + 1",
        "assert it.extra == [it.A] and it.A.g() == 2 and list(it) == [it.A]",
    ),
    "private names and nested classes": (
        "import enum\nclass it(enum.Enum):\n    A = 1\n    _x = 2\n    def f(self): return self.__class__",
        "assert it.A.f() is it",
    ),
    "metaclass and hooks of its own": (
        """
        import enum
        class M(enum.EnumMeta):
            def __contains__(cls, value): return value == 'in'
        class Base(enum.Enum, metaclass=M):
            def __init_subclass__(cls, **kw):
                super().__init_subclass__(**kw)
                cls.had = 'f' in vars(cls)
        class it(Base):
            A = 1
            def f(self): pass
        """,
        "assert 'in' in it and 'out' not in it and it.had and type(it).__name__ == 'M'",
    ),
    "unique and verified": (
        "import enum\n@enum.unique\nclass it(enum.IntEnum):\n    A = 3\n    B = 1\n"
        "    def __str__(self): return 'my ' + self.name",
        "assert str(it.A) == 'my A' and sorted(it) == [it.B, it.A] and int(it.A) == 3",
    ),
    "__new__ and __init__ of a base without members": (
        """
        import enum
        class Numbered(enum.Enum):
            def __new__(cls):
                made = object.__new__(cls)
                made._value_ = len(cls.__members__) + 1
                return made
        class First(enum.Enum):
            def __new__(cls, a, b):
                made = object.__new__(cls)
                made._value_, made.b = a, b
                return made
        class Sum(enum.Enum):
            def __init__(self, a, b): self._value_, self.a = a + b, a
        class N(Numbered):
            R = ()
            G = ()
        class F(First): Q = 3, 4
        class S(Sum): P = 1, 2
        it = N, F, S
        """,
        """
        N, F, S = it
        assert (N.R.value, N.G.value, F.Q.value, F.Q.b, S.P.value, S.P.a) == (1, 2, 3, 4, 3, 1)
        assert N(2) is N.G and F(3) is F.Q and S((1, 2)) is S.P
        class Later(N.__mro__[1]): Z = ()
        assert Later.Z.value == 1
        """,
    ),
    "data types that are made from something else than the value": (
        """
        import datetime, decimal, enum
        class D(datetime.date, enum.Enum): X = 2020, 1, 2
        class T(datetime.datetime, enum.Enum): X = 2020, 1, 2, 3
        class N(decimal.Decimal, enum.Enum): P = '1.5'
        class C(complex, enum.Enum): Z = 1, 2
        class F(frozenset, enum.Enum): S = [1, 2]
        class L(list, enum.Enum): A = [1, 2]
        it = D, T, N, C, F, L
        """,
        """
        import datetime, decimal
        D, T, N, C, F, L = it
        assert D.X == datetime.date(2020, 1, 2) and T.X == datetime.datetime(2020, 1, 2, 3)
        assert N.P + 1 == decimal.Decimal('2.5') and C.Z == 1 + 2j and F.S == {1, 2} and L.A == [1, 2]
        """,
    ),
    "mixed in: slots, a frozen dataclass, an int with a __new__": (
        """
        import dataclasses, enum
        class Length(int):
            def __new__(cls, value, unit='?'):
                made = int.__new__(cls, value)
                made.unit = unit
                return made
        @dataclasses.dataclass(frozen=True)
        class Frozen:
            x: int
            y: str = 'q'
        class Slotted:
            __slots__ = ('s',)
            def __init__(self, s): self.s = s
        class A(Length, enum.Enum): M = 5, 'm'
        class B(Frozen, enum.Enum): P, Q = 1, (2, 'r')
        class C(Slotted, enum.Enum): S = 1
        it = A, B, C
        """,
        "A, B, C = it\nassert (A.M, A.M.unit, B.P.x, B.P.y, B.Q.x, B.Q.y, C.S.s) == (5, 'm', 1, 'q', 2, 'r', 1)",
    ),
    "text with a __new__ of its own": (
        """
        import enum
        class it(str, enum.Enum):
            def __new__(cls, value, label):
                made = str.__new__(cls, value)
                made._value_, made.label = value, label
                return made
            A = 'x', 'l'
        """,
        "assert it.A == 'x' and it('x') is it.A and it.A.label == 'l' and it.A + 'y' == 'xy'",
    ),
    "several values for a member": (
        """
        import enum
        class it(enum.Enum):
            def __new__(cls, *values):
                made = object.__new__(cls)
                made._value_ = values[0]
                for value in values[1:]: cls._value2member_map_[value] = made
                return made
            A = 'a', 1, None
            B = 'b', 2
        """,
        "assert it('a') is it(1) is it(None) is it.A and it(2) is it.B",
    ),
    "values and names added to a member": (
        """
        import enum
        class it(enum.Enum):
            A = 1
            B = 2
            def __init__(self, value):
                self._add_value_alias_(value * 10)
                self._add_value_alias_([value])
        it.A._add_alias_('Z')
        """,
        "assert it(10) is it([1]) is it.A and it(20) is it.B and it.Z is it.__members__['Z'] is it.A",
        (3, 13),
    ),
    "a flag with a __new__ of its own": (
        """
        import enum
        class it(enum.Flag):
            def __new__(cls, value, label='none'):
                made = object.__new__(cls)
                made._value_, made.label = value, label
                return made
            A = 1, 'a'
            B = 2, 'b'
        """,
        "assert it.A.label == 'a' and (it.A | it.B).value == 3 and it(3) is it.A | it.B",
    ),
}
