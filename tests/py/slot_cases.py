# SPDX-License-Identifier: BSD-3-Clause
"""Slots of every form, for test_by_value_classes.py: as class_cases.py has them."""

CASES = {
    "slots as a string": ("class it: __slots__ = 'x'", "it().x = 1\nassert not hasattr(it(), '__dict__')"),
    "slots with documentation": (
        "class it:\n    __slots__ = {'x': 'the x', 'y': None}",
        "import inspect\nassert it.__slots__ == {'x': 'the x', 'y': None} and inspect.getdoc(it.x) == 'the x'\n"
        "with pytest.raises(AttributeError): it().z = 1",
    ),
    "slots out of an iterator": (
        "class it: __slots__ = iter(['x', '__p'])",
        "it().x = it()._it__p = 1\nassert not hasattr(it(), '__dict__')",
    ),
    "slots in a list": (
        """
        class A: __slots__ = ['__p', 'q', '__dict__']
        class B: __slots__ = ['x']
        B.__slots__.append('y')
        class C: __slots__ = ['z']
        C.__slots__.clear()
        it = A, B, C
        """,
        """
        A, B, C = it
        assert A.__slots__ == ['__p', 'q', '__dict__'] and hasattr(A, '_A__p') and vars(A()) == {}
        B().x = C().z = 1
        assert not hasattr(B(), '__dict__') and not hasattr(B, 'y') and not hasattr(C(), '__dict__')
        """,
    ),
    "private slots": (
        "class it:\n    __slots__ = ('__x',)\n    def set(self): self.__x = 1\n    def get(self): return self.__x",
        "i = it()\ni.set()\nassert i.get() == 1 == i._it__x",
    ),
    "inherited slots": (
        "class A: __slots__ = ('a',)\nclass B(A): __slots__ = ('b',)\nit = B()\nit.a, it.b = 1, 2",
        "assert (it.a, it.b) == (1, 2) and not hasattr(it, '__dict__')",
    ),
    "slots for dict and weakref": (
        "class it: __slots__ = ('x', '__dict__', '__weakref__')",
        "import weakref\ni = it()\ni.x = i.y = 1\nassert weakref.ref(i)() is i and vars(i) == {'y': 1}",
    ),
    "a slot that was replaced": (
        "class it: __slots__ = ('x',)\nit.x = property(lambda self: 7)",
        "assert it().x == 7",
    ),
}
