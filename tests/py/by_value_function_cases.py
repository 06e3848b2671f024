# SPDX-License-Identifier: BSD-3-Clause
"""Functions that travel by value, for test_by_value_functions.py: defined in one script, used in another."""

# name: (what the first script defines as `it`, what the second one asserts of `it`)
CASES = {
    "siblings share their cell through containers and classes": (
        """
        def make():
            n = 0
            def add():
                nonlocal n
                n += 1
            class Reader:
                def read(self): return n
                class Inner:
                    def read(self): return n
            def outer():
                def read(): return n
                return read
            return {"add": [add], "reader": Reader(), "inner": Reader.Inner(), "outer": (outer,)}
        it = make()
        """,
        """
        it["add"][0](); it["add"][0]()
        assert it["reader"].read() == it["inner"].read() == it["outer"][0]()() == 2
        """,
    ),
    "mutually recursive closures": (
        """
        def make():
            def even(n): return n == 0 or odd(n - 1)
            def odd(n): return n != 0 and even(n - 1)
            return odd
        it = make()
        """,
        "assert it(11) and not it(10)",
    ),
    "a cell that holds what holds it": (
        "def make():\n    box = []\n    def f(): return box\n    box.append(f)\n    return f\nit = make()",
        "assert it()[0] is it",
    ),
    "an empty cell is filled later, for all who share it": (
        """
        def make():
            def get(): return x
            def put(v):
                nonlocal x
                x = v
            if 0: x = 1
            return get, put
        it = make()
        """,
        """
        try: it[0]()
        except NameError: pass
        else: raise AssertionError
        it[1](5)
        assert it[0]() == 5
        """,
    ),
    "the class cell of super": (
        """
        class Base:
            def f(self): return [1]
        class C(Base):
            def f(self): return super().f() + [__class__]
        it = C.f, C
        """,
        "assert it[0](it[1]()) == [1, it[1]]",
    ),
    "globals of class bodies, annotations and comprehensions inside": (
        """
        a, b, c, d, e = "abcde"
        Note = int
        def it():
            class Outer:
                x = a
                n: Note = 1
                class Inner:
                    y = b
                    def f(self): return c
                def g(self): return [d for _ in range(1)]
                z = [e for _ in range(2)]
            def h(x: Note = 1) -> Note: return [[a + i for i in y] for y in [b]]
            return Outer.x + Outer.Inner.y + Outer.Inner().f() + Outer().g()[0] + Outer.z[1], h(), Outer
        """,
        "assert it()[:2] == ('abcde', [['ab']]) and it()[2].__annotations__ == {'n': int}",
    ),
    "a class body's own names do not hide the globals it reads": (
        "x = 1\ndef it():\n    class C:\n        x = x + 1\n    return C.x",
        "assert it() == 2",
    ),
    "names in string annotations": (
        """
        from __future__ import annotations
        import typing
        class Item: pass
        Other = typing.NewType("Other", int) if False else int
        def it(a: Item, b: typing.List[Item], c: "list[Other]" = None) -> typing.Optional[Item]: ...
        """,
        """
        import typing
        hints = typing.get_type_hints(it)
        assert hints["a"].__name__ == "Item" and hints["b"] == typing.List[hints["a"]]
        assert hints["return"] == typing.Optional[hints["a"]]
        """,
    ),
    "names in annotations that are forward references": (
        """
        import typing
        class Item: pass
        def it(a: typing.List["Item"], b: "typing.Dict[str, Item]") -> typing.Callable[["Item"], int]: ...
        """,
        """
        import typing
        hints = typing.get_type_hints(it)
        Item = hints["a"].__args__[0]
        assert Item.__name__ == "Item" and hints["b"] == typing.Dict[str, Item]
        """,
    ),
    "names in string annotations of nested functions and classes": (
        """
        from __future__ import annotations
        class Item: pass
        class Other: pass
        def it():
            def inner(a: Item) -> Item: ...
            class C:
                x: Other
                def f(self, o: Other): ...
            return inner, C
        """,
        """
        import typing
        inner, C = it()
        assert typing.get_type_hints(inner)["a"].__name__ == "Item"
        assert typing.get_type_hints(C.f)["o"].__name__ == "Other"
        assert typing.get_type_hints(C, globalns=it.__globals__)["x"].__name__ == "Other"
        """,
    ),
    "names in constant strings for eval, exec and globals": (
        """
        a, b, c, unused = 1, 2, 3, open("/dev/null")
        def it():
            found = {}
            exec("x = b + 1", globals(), found)
            return eval("a + 1"), found["x"], globals()["c"]
        """,
        "assert it() == (2, 3, 3) and 'unused' not in it.__globals__",
    ),
    "words of a text are no names": (
        "data = open('/dev/null')\ndef it():\n    'data'\n    class C:\n        'data'\n    return 'data'",
        "assert it() == 'data' and 'data' not in it.__globals__",
    ),
    "submodules that nested functions and classes reach": (
        """
        import xml, xml.dom.minidom, xml.etree.ElementTree
        def it():
            class C:
                def f(self): return xml.etree.ElementTree.fromstring("<b/>").tag
            return [xml.dom.minidom.parseString("<a/>").documentElement.tagName for _ in range(1)] + [C().f()]
        """,
        "assert it() == ['a', 'b']",
    ),
    "a submodule by getattr": (
        "import concurrent, concurrent.futures\ndef it(): return getattr(concurrent, 'futures').Future",
        "import sys\nassert it().__name__ == 'Future'",
    ),
    "submodules of a package in a closure": (
        """
        def make():
            import xml, xml.dom.minidom
            def f():
                def g(): return xml.dom.minidom.parseString("<a/>").documentElement.tagName
                return g()
            return f
        it = make()
        """,
        "assert it() == 'a'",
    ),
    "imports inside of the body": (
        """
        def it():
            import xml.dom.minidom
            from xml.etree import ElementTree as T
            def inner():
                import json.decoder
                return json.decoder.JSONDecoder().decode("1")
            return xml.dom.minidom.parseString("<a/>").documentElement.tagName, T.fromstring("<b/>").tag, inner()
        """,
        "assert it() == ('a', 'b', 1)",
    ),
    "a global that one sets and another reads": (
        """
        def put(v):
            global late
            late = v
        def get(): return late
        it = put, [get]
        """,
        "it[0](3)\nassert it[1][0]() == 3 and it[0].__globals__ is it[1][0].__globals__",
    ),
    "attributes": (
        """
        def it(a, b=2, *, c=3, d): "doc"
        it.__name__, it.__qualname__, it.__module__, it.__doc__ = "other", "Some.other", "nowhere", None
        it.x, it.me = [1], it
        it.__wrapped__ = lambda: 7
        """,
        """
        assert (it.__name__, it.__qualname__, it.__module__, it.__doc__) == ("other", "Some.other", "nowhere", None)
        assert it.__defaults__ == (2,) and it.__kwdefaults__ == {"c": 3}
        assert it.x == [1] and it.me is it and it.__wrapped__() == 7
        import inspect
        assert str(inspect.signature(it, follow_wrapped=False)) == "(a, b=2, *, c=3, d)"
        """,
    ),
    "no module": ("def it(): return 1\nit.__module__ = None", "assert it() == 1 and it.__module__ is None"),
    "a module that is not its own": (
        "def it(): return 'mine'\nit.__module__ = 'json'\nit.__qualname__ = 'dumps'",
        "assert it() == 'mine' and it.__module__ == 'json'",
    ),
    "builtins of its own": (
        """
        import builtins
        own = {**vars(builtins), "special": 5, "len": lambda x: -1}
        space = {"__builtins__": own, "__name__": "space"}
        exec("def it(): return special, len([])\\ndef other(): return special", space)
        it = space["it"], space["other"]
        """,
        "assert it[0]() == (5, -1) and it[1]() == 5 and it[0].__builtins__ is it[1].__builtins__",
    ),
    "what a namespace says of its module": (
        """
        import types
        module, bare = types.ModuleType("pack.mod"), types.ModuleType("bare")
        module.__package__, module.__path__, module.__file__ = "pack", ["/p"], "/p/x.py"
        for made in (module, bare): exec("def it(): return globals()", vars(made))
        it = module.it, bare.it
        """,
        """
        found = it[0]()
        assert (found["__name__"], found["__package__"], found["__path__"]) == ("pack.mod", "pack", ["/p"])
        assert found["__file__"] == "/p/x.py"
        assert it[1]()["__name__"] == "bare" and "__file__" not in it[1]() and "__path__" not in it[1]()
        """,
    ),
    "what is captured is the object that the rest of the pickle has": (
        """
        shared = [1]
        def f(): return shared
        def make():
            inner = {"x": shared}
            return lambda: inner
        closure = make()
        it = shared, f, closure, closure(), f, [f]
        """,
        """
        shared, f, closure, inner, again, listed = it
        assert f() is shared and closure() is inner and inner["x"] is shared and again is f is listed[0]
        """,
    ),
    "globals that are assigned, deleted or not there yet": (
        """
        a = b = c = d = 1
        attribute = open("/dev/null")
        def it(o=type("O", (), {"attribute": 5})):
            global b, c
            b = a + 1
            if b == 0: del c
            def inner():
                def deeper(): return d
                return deeper()
            return b, c, inner(), o.attribute, [missing for _ in range(0)]
        """,
        """
        assert it() == (2, 1, 1, 5, [])
        assert {name for name in it.__globals__ if not name.startswith("__")} == {"a", "b", "c", "d"}
        """,
    ),
    "the reader's builtins": (
        "def it(): return len",
        "import builtins\nassert it.__builtins__ is it.__globals__['__builtins__'] is vars(builtins)",
    ),
    "decorated": (
        """
        import contextlib, functools
        def deco(f):
            @functools.wraps(f)
            def inner(*args): return f(*args) + 1
            return inner
        @deco
        @deco
        def twice(x): "doc"; return x
        @contextlib.contextmanager
        def manager(x): yield x + 1
        it = twice, manager, functools.partial(twice, 1), functools.partialmethod(twice).func
        """,
        """
        assert it[0](1) == 3 and it[0].__doc__ == "doc" and it[0].__wrapped__.__wrapped__(1) == 1
        with it[1](1) as x: assert x == 2
        assert it[2]() == 3 and it[3] is it[0]
        """,
    ),
    "generators, coroutines and both": (
        """
        import asyncio
        def gen(): yield from [1, 2]
        async def co(): return await asyncio.sleep(0, 3)
        async def agen():
            yield 4
        it = gen, co, agen
        """,
        """
        import asyncio
        async def all(): return list(it[0]()), await it[1](), [x async for x in it[2]()]
        assert asyncio.run(all()) == ([1, 2], 3, [4])
        """,
    ),
    "code beside the functions that it belongs to": (
        """
        def f(x): return [y for y in x], x
        def g(x): return 1
        g.__code__ = f.__code__
        def h(x): return lambda: x in {1, 2}
        def k(): return k, k.__code__
        it = f.__code__, f, g, f.__code__, h, h.__code__, k, k.__code__
        """,
        """
        code, f, g, again, h, of_h, k, of_k = it
        assert f.__code__ is g.__code__ is code is again and h.__code__ is of_h
        assert k()[1] is k.__code__ is of_k and f([1]) == g([1]) == ([1], [1])
        """,
    ),
    "bound methods": (
        """
        import types
        class Base:
            def f(self): return "base"
        class C(Base):
            def __init__(self): self.n = 1
            def f(self): return self.n
            def __p(self): return self
            def private(self): return self.__p
            def above(self): return super().f
            @classmethod
            def c(cls): return cls
            def __getattr__(self, name): raise AttributeError(name)
        c = C()
        it = c, c.f, types.MethodType(lambda self, x: (self, x), c), c.private(), c.above(), C.c, [].append, "x".join
        """,
        """
        c, f, by_hand, private, above, of_class, append, join = it
        assert f() == 1 and f.__self__ is c and by_hand(2) == (c, 2) and private() is c and above() == "base"
        assert of_class() is type(c) and join(["a", "b"]) == "axb"
        append(1)
        assert append.__self__ == [1]
        """,
    ),
    "every kind of constant": (
        """
        def it(x=None):
            a = (1, -1, 2**70, -2**70, 255, 1.5, -0.0, 1e400, 2j, -1.5-2j, True, False, None, ..., "t", "\\xe9\\u20ac",
                 "\\ud800", b"b", b"", "", (), ((), ("n", (1,))))
            return a, x in {"p", "q", 1, None, 2.5, (1, "x")}, x in {frozenset()} or x in {1}
        """,
        """
        a, b, c = it("q")
        assert b and not c and a[2] == 2**70 and a[3] == -2**70 and str(a[6]) == "-0.0" and a[7] == float("inf")
        assert a[8:10] == (2j, -1.5-2j) and a[13] is ... and a[15:17] == ("\\xe9\\u20ac", "\\ud800")
        assert a[21] == ((), ("n", (1,))) and it((1, "x"))[1]
        """,
    ),
    "constants that are no constants": (
        """
        def it(): return "here"
        class C: pass
        it.__code__ = it.__code__.replace(co_consts=tuple([C] if k == "here" else k for k in it.__code__.co_consts))
        it = it, it.__code__, C
        """,
        "assert it[0]()[0] is it[2] and it[0].__code__ is it[1]",
    ),
    "code that was replaced": (
        "def it(): return 1\nit.__code__ = (lambda: 2).__code__",
        "assert it() == 2 and it.__name__ == 'it'",
    ),
    "where it was written": (
        "exec(compile('\\n\\n\\ndef it():\\n    raise ValueError', '/nowhere/source.py', 'exec'))",
        """
        import traceback
        assert it.__code__.co_filename == "/nowhere/source.py" and it.__code__.co_firstlineno == 4
        try: it()
        except ValueError as error: assert traceback.extract_tb(error.__traceback__)[-1].lineno == 5
        """,
    ),
    "70,000 globals": (
        """
        space = {"__name__": "space"}
        exec("".join(f"a{i}={i}\\n" for i in range(70_000)), space)
        exec("def it():\\n return [" + ",".join(f"a{i}" for i in range(70_000)) + "]", space)
        it = space["it"]
        """,
        "assert it() == list(range(70_000))",
    ),
}

# A class that comes home is the one that lives there, and keeps the cells that it has.
ELSEWHERE_ONLY = {"siblings share their cell through containers and classes"}

# The same, in words that not every Python knows.
CASES_3_12 = {
    "type parameters": (
        """
        class Item: pass
        def it[T: Item, *Ts, **P](x: T, *args: *Ts) -> T:
            def inner[U: Item](u: U) -> U: return u
            return inner(x)
        """,
        """
        assert [str(p) for p in it.__type_params__] == ["T", "Ts", "P"] and it(1) == 1
        assert it.__annotations__["x"] is it.__type_params__[0]
        assert it.__type_params__[0].__bound__.__name__ == "Item"
        """,
    ),
    "comprehensions that are part of a class body": (
        """
        n = 3
        def it():
            class C:
                x = [i * n for i in range(n)]
                seen = sorted(k for k in locals() if not k.startswith("__"))
            return C.x, C.seen, 'i' in vars(C)
        """,
        "assert it() == ([0, 3, 6], ['x'], False)",
    ),
}
