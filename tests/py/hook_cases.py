# SPDX-License-Identifier: BSD-3-Clause
"""What hooks of a definition do elsewhere, in registries of classes, as class_cases.py has it."""

CASES = {
    "registry of classes": (
        """
        class M(type):
            registry, by_name = [], {}
            def __init__(cls, *args):
                cls.registry.append(cls)
                cls.by_name[cls.__name__] = cls
        class A(metaclass=M): pass
        class it(A): pass
        """,
        """
        M = type(it)
        assert [c.__name__ for c in M.registry] == ['A', 'it'] and M.registry[1] is it
        assert list(M.by_name) == ['A', 'it']
        """,
    ),
    "registry that hooks reach as a global": (
        """
        NAMES, CLASSES, count = [], [], 0
        class Base:
            def __init_subclass__(cls, **kw):
                global count
                super().__init_subclass__(**kw)
                NAMES.append(cls.__name__)
                CLASSES.append(cls)
                count += 1
            @staticmethod
            def all(): return NAMES, CLASSES, count
        class it(Base): pass
        """,
        "assert it.all() == (['it'], [it], 1), it.all()",
    ),
    "registry of names": (
        "class M(type):\n    names = []\n    def __init__(cls, *a): M.names.append(cls.__name__)\n"
        "class it(metaclass=M): pass",
        "assert type(it).names == ['it']",
    ),
    "registry that is met before the subclasses in it": (
        """
        def make():
            class Base:
                subclasses = []
                def __init_subclass__(cls, **keywords): Base.subclasses.append(cls)
            class First(Base): pass
            class Second(First): pass
            return Base
        it = make()
        """,
        """
        assert [(c.__name__, c.__mro__[-2]) for c in it.subclasses] == [('First', it), ('Second', it)]
        class Third(it.subclasses[1]): pass
        assert it.subclasses.pop() is Third
        """,
    ),
    "registry inside of an object": (
        """
        class Registry:
            def __init__(self): self.items, self.last = {'none': None}, None
            def add(self, cls): self.items[cls.__name__] = self.last = cls
        class Base:
            registry = Registry()
            def __init_subclass__(cls): cls.registry.add(cls)
        class A(Base): pass
        class it(Base): pass
        """,
        "assert list(it.registry.items) == ['none', 'A', 'it'] and it.registry.last is it",
    ),
    "cached properties of a class and of its base": (
        """
        import functools
        class Base:
            @functools.cached_property
            def x(self): return [4]
        class it(Base):
            @functools.cached_property
            def x(self): return [*super().x, 5]
            @functools.cached_property
            def y(self): return [6]
        """,
        "i = it()\nassert i.x == [4, 5] and i.y is i.y and it.__mro__[1]().x == [4]",
    ),
    "registry that leaves its lock at home": (
        """
        import threading
        class Registry:
            def __init__(self): self.names, self.lock = [], threading.Lock()
            def __getstate__(self): return {'names': self.names}
        class Made:
            def __init__(self, names=()): self.names, self.lock = list(names), threading.Lock()
            def __reduce__(self): return Made, (self.names,)
        class Base:
            registry, made = Registry(), Made()
            def __init_subclass__(cls): cls.registry.names.append(cls.__name__)
        class it(Base): pass
        """,
        "assert it.registry.names == ['it'] and it.made.lock.acquire(False)\nit.made.lock.release()",
    ),
    "functions for metaclasses": (
        """
        class M(type):
            def __new__(m, name, bases, ns, **keywords): return super().__new__(m, name, bases, ns)
            def __init__(cls, name, bases, ns, **keywords): cls.keywords = keywords
        def uses(name, bases, ns, **keywords): return type(name, bases, {**ns, 'keywords': keywords})
        def passes(name, bases, ns, **keywords): return M(name, bases, ns, **keywords)
        class A(metaclass=uses, k=1): pass
        class B(metaclass=passes, k=2): pass
        it = A, B
        """,
        "A, B = it\nassert (A.keywords, B.keywords) == ({'k': 1}, {'k': 2}) and type(B).__name__ == 'M'",
    ),
    "hook that counts in an attribute of its base": (
        """
        class Base:
            count = 0
            def __init_subclass__(cls): Base.count += 1
        class it(Base): pass
        """,
        "assert it.__mro__[1].count == 1",
    ),
}
