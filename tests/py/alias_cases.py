# SPDX-License-Identifier: BSD-3-Clause
"""Type aliases and type parameters as Python 3.12 and 3.13 write them, and what they must be on the other side.

As text, as in object_cases.py, which has them among its cases.
"""

import sys

CASES = {}

if sys.version_info >= (3, 12):
    CASES["type aliases"] = (
        """
        type Plain = int | str
        type Json = dict[str, Json] | list[Json] | int
        type Of[T] = list[T]
        it = Plain, Json, Of, Of[int]
        """,
        """
        plain, json, of, of_int = it
        assert plain.__value__ == int | str and plain.__name__ == 'Plain' and plain.__module__ == '__main__'
        assert plain.__type_params__ == ()
        assert json.__value__.__args__[0].__args__[1] is json and json.__value__.__args__[1].__args__ == (json,)
        assert of.__value__ == list[of.__type_params__[0]] and of_int.__origin__ is of and of_int.__args__ == (int,)
        assert of.__module__ == '__main__'
        """,
    )
    CASES["generic alias that refers to itself"] = (
        """
        type Tree[T] = list[Tree[T]] | T
        home = Tree
        it = Tree, Tree[int], Tree.__type_params__[0]
        """,
        """
        Tree, of_int, T = it
        assert globals().get('home', Tree) is Tree  # as a class is
        assert Tree.__type_params__ == (T,) and Tree.__value__ == list[Tree[T]] | T
        assert Tree.__value__.__args__[0].__args__[0].__origin__ is Tree
        assert of_int == Tree[int] and Tree.__name__ == 'Tree' and Tree.__module__ == '__main__'
        """,
    )
    CASES["aliases that refer to each other"] = (
        """
        type Odd[T] = tuple[T, Even[T]] | None
        type Even[T] = tuple[T, Odd[T]] | None
        it = Even
        """,
        """
        Odd = it.__value__.__args__[0].__args__[1].__origin__
        T, U = it.__type_params__ + Odd.__type_params__
        assert T is not U and (it.__name__, Odd.__name__) == ('Even', 'Odd')
        assert it.__value__ == tuple[T, Odd[T]] | None and Odd.__value__ == tuple[U, it[U]] | None
        """,
    )
    CASES["alias that the bound of its parameter names"] = (
        """
        type Bound[T: Bound] = list[T]
        type Either[T: (Either, int), U: list[T]] = dict[T, U]
        type Packed[*Ts, **P] = tuple[Packed[*Ts, P], *Ts]
        it = Bound, Either, Packed
        """,
        """
        Bound, Either, Packed = it
        T, = Bound.__type_params__
        assert T.__bound__ is Bound and T.__constraints__ == () and T.__name__ == 'T' and T.__infer_variance__
        assert Bound.__value__ == list[T]
        T, U = Either.__type_params__
        assert T.__constraints__ == (Either, int) and T.__bound__ is None and U.__bound__ == list[T]
        assert Either.__value__ == dict[T, U]
        Ts, P = Packed.__type_params__
        assert (Ts.__name__, P.__name__) == ('Ts', 'P') and Packed.__value__.__args__[0].__origin__ is Packed
        """,
    )
    CASES["parameter that comes before its alias"] = (
        """
        type Bound[T: Bound] = list[T]
        it = Bound.__type_params__[0]
        """,
        """
        assert it.__bound__.__type_params__ == (it,) and it.__bound__.__value__ == list[it]
        """,
    )
    CASES["aliases of one name"] = (
        """
        def make(kind):
            type Nested[T] = kind[Nested[T], T]
            return Nested
        it = make(dict), make(tuple)
        """,
        """
        first, second = it
        assert first is not second and first.__value__ == dict[first[T := first.__type_params__[0]], T]
        assert second.__value__ == tuple[second[T := second.__type_params__[0]], T]
        """,
    )
    CASES["alias in a function and in a class"] = (
        """
        type Tree[T] = list[Tree[T]] | T
        def flat(tree: Tree[int]) -> list[int]:
            return Tree
        class Holder:
            kind: Tree[str]
            type Own[T] = dict[T, Holder.Own[T]] | Holder
        it = flat, Holder
        """,
        """
        flat, Holder = it
        Tree = flat.__annotations__['tree'].__origin__
        assert flat(None) is Tree
        assert Tree.__value__ == list[Tree[T := Tree.__type_params__[0]]] | T
        assert Holder.__annotations__['kind'] == Tree[str]
        Own = Holder.Own
        assert Own.__value__ == dict[T := Own.__type_params__[0], Own[T]] | Holder
        """,
    )
    CASES["aliases that share a parameter"] = (
        """
        from typing import TypeAliasType, TypeVar
        T = TypeVar('T')
        one = TypeAliasType('Alias', list[T], type_params=(T,))
        it = one, TypeAliasType('Alias', set[T], type_params=(T,)), TypeAliasType('no name', int)
        """,
        """
        one, other, odd = it
        T, = one.__type_params__
        assert other.__type_params__ == (T,) and one.__value__ == list[T] and other.__value__ == set[T]
        assert odd.__name__ == 'no name' and odd.__value__ is int and odd.__module__ == '__main__'
        """,
    )
    CASES["class and function that their own parameters name"] = (
        """
        class Node[T: Node]:
            def least[U: Node](self, other: U) -> T:
                return Node
        def call[T: call.kind](x: T): pass
        call.kind = int
        class Pair[T: (int, Pair)](Node[T]): pass
        it = Node, call, Pair
        """,
        """
        Node, call, Pair = it
        T, = Node.__type_params__
        assert T.__bound__ is Node and Node.__orig_bases__[0].__args__ == (T,) and Node.__parameters__ == (T,)
        assert Node().least(1) is Node and Node.least.__type_params__[0].__bound__ is Node
        assert call.__type_params__[0].__bound__ is int and call.__annotations__['x'] is call.__type_params__[0]
        assert Pair.__type_params__[0].__constraints__ == (int, Pair)
        assert Pair.__orig_bases__[0] == Node[Pair.__type_params__[0]]
        """,
    )

if sys.version_info >= (3, 13):
    CASES["alias that the default of its parameter names"] = (
        """
        type Tree[T = Tree] = list[T]
        type Call[**P = [Call, int]] = dict[P, Call]
        type Row[*Ts = *tuple[Row, int]] = tuple[*Ts]
        type Both[T: Both = Both] = T
        it = Tree, Call, Row, Both
        """,
        """
        Tree, Call, Row, Both = it
        assert Tree.__type_params__[0].__default__ is Tree and Tree.__type_params__[0].has_default()
        assert Call.__type_params__[0].__default__ == [Call, int]
        assert Row.__type_params__[0].__default__ == next(iter(tuple[Row, int]))
        assert Both.__type_params__[0].__default__ is Both and Both.__type_params__[0].__bound__ is Both
        """,
    )
