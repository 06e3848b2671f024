# SPDX-License-Identifier: BSD-3-Clause
"""Exceptions, for test_by_value_exceptions.py: as by_value_cases.py has them."""

import sys

CASES = {
    "links": (
        """
        class E(Exception): pass
        def work():
            try:
                try:
                    {}['k']
                except KeyError as first:
                    raise ValueError('second') from first
            except ValueError:
                raise E('third')
        try:
            work()
        except E as error:
            it = error
        """,
        """
        assert it.args == ('third',) and it.__cause__ is None and not it.__suppress_context__
        second = it.__context__
        assert type(second) is ValueError and second.__suppress_context__
        assert second.__cause__ is second.__context__ and second.__cause__.args == ('k',)
        assert it.__traceback__ is None
        """,
    ),
    "context that was suppressed": (
        """
        try:
            try: 1 / 0
            except ZeroDivisionError: raise ValueError('x') from None
        except ValueError as error: it = [error]
        it.append(KeyError())
        it[1].__suppress_context__ = True
        """,
        "assert it[0].__cause__ is None and it[0].__suppress_context__ and it[1].__suppress_context__\n"
        "assert type(it[0].__context__) is ZeroDivisionError",
    ),
    "links in a circle": (
        "a, b = ValueError('a'), KeyError('b')\na.__cause__ = b\nb.__cause__ = a\nb.me = b\nit = a",
        "b = it.__cause__\nassert b.__cause__ is it and b.me is b and b.args == ('b',)",
    ),
    "notes and attributes": (
        "it = ValueError('a')\nit.__notes__ = ['one']\nit.extra = lambda: 5\nit.__cause__ = OSError(2, 'x', 'file')",
        "assert it.__notes__ == ['one'] and it.extra() == 5\n"
        "assert type(it.__cause__) is FileNotFoundError and it.__cause__.filename == 'file'",
    ),
    "arguments that __init__ does not repeat": (
        """
        class Two(Exception):
            def __init__(self, kind, key):
                super().__init__(f'no {kind} {key}')
                self.kind, self.key = kind, key
        class Keyword(ValueError):
            def __init__(self, *, code):
                super().__init__(code + 1)
        class Silent(Exception):
            def __init__(self, a, b): self.b = b
        class New(Exception):
            def __new__(cls, a, b):
                made = super().__new__(cls, a)
                made.b = b
                return made
            def __init__(self, a, b): pass
        class Picky(Exception):
            def __init__(self, response): super().__init__(response['text'])
        it = Two('file', 3), Keyword(code=4), Silent(1, 2), New(3, 4), Picky({'text': 'x'})
        """,
        """
        two, keyword, silent, new, picky = it
        assert two.args == ('no file 3',) and (two.kind, two.key) == ('file', 3) and str(two) == 'no file 3'
        assert keyword.args == (5,) and silent.args == (1, 2) and silent.b == 2 and new.args == (3,) and new.b == 4
        assert str(picky) == 'x'
        """,
    ),
    "what the interpreter keeps for itself": (
        """
        class Os(OSError):
            def __init__(self, path): super().__init__(2, 'none', path)
        class Decode(UnicodeDecodeError):
            def __init__(self, why): super().__init__('utf-8', b'abc', 1, 2, why)
        class Stop(StopIteration):
            def __init__(self): super().__init__(7)
        class Import(ImportError):
            def __init__(self): super().__init__('m', name='n', path='p')
        class Exit(SystemExit):
            def __init__(self, text, code):
                super().__init__(text)
                self.code = code
        exit = SystemExit(1)
        exit.code = 5
        syntax = SyntaxError('m', ('f', 1, 2, 'text'))
        syntax.lineno = 9
        name = NameError('x')
        name.name = 'x'
        it = (Os('/x'), Decode('why'), Stop(), Import(), Exit('t', 3), exit, syntax, name,
              OSError(2, 'x', 'a', None, 'b'), BlockingIOError(11, 'x', 5), OSError('alone'),
              ImportError('m', name='n'))
        """,
        """
        os, decode, stop, imported, own_exit, exit, syntax, name, two, blocking, alone, other = it
        assert (os.errno, os.strerror, os.filename, os.args) == (2, 'none', '/x', (2, 'none'))
        assert str(os) == "[Errno 2] none: '/x'"
        assert (decode.reason, decode.object, decode.start) == ('why', b'abc', 1) and 'why' in str(decode)
        assert stop.value == 7 and (imported.name, imported.path, imported.msg) == ('n', 'p', 'm')
        assert own_exit.code == 3 and exit.code == 5 and exit.args == (1,)
        assert (syntax.lineno, syntax.filename, syntax.text) == (9, 'f', 'text') and name.name == 'x'
        assert (two.filename, two.filename2) == ('a', 'b') and blocking.characters_written == 5
        assert alone.errno is None and other.name == 'n'
        """,
    ),
    "slots": (
        """
        class E(Exception):
            __slots__ = ('x', '__y', 'unset')
            def __init__(self, x):
                super().__init__()
                self.x, self.__y = x, 5
            def get(self): return self.__y
        class F(Exception):
            __slots__ = ('x',)
        f = F(1)
        f.x = 3
        it = E(4), f
        """,
        "assert it[0].x == 4 and it[0].get() == 5 and not hasattr(it[0], 'unset')\n"
        "assert it[1].x == 3 and it[1].args == (1,)",
    ),
    "a class that allows no change": (
        """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class E(Exception):
            a: int
            b: str = 'x'
        class Refuses(Exception):
            def __setattr__(self, name, value): raise TypeError(name)
        it = E(1), Refuses(2)
        for error in it:
            BaseException.__dict__['__cause__'].__set__(error, ValueError('cause'))
        """,
        "assert (it[0].a, it[0].b, it[0].args) == (1, 'x', (1,)) and it[1].args == (2,)\n"
        "assert [repr(error.__cause__) for error in it] == [\"ValueError('cause')\"] * 2",
    ),
    "a class that says itself how it is made": (
        """
        class Red(Exception):
            def __init__(self, a, b):
                super().__init__('m')
                self.a, self.b = a, b
            def __reduce__(self): return Red, (self.a, self.b + 1)
        class State(Exception):
            def __reduce__(self): return State, self.args, ['state']
            def __setstate__(self, state): self.state = state
        it = Red(1, 2), State(3)
        for error in it: error.__context__ = KeyError('k')
        """,
        "assert (it[0].a, it[0].b) == (1, 3) and it[1].state == ['state'] and it[1].args == (3,)\n"
        "assert [error.__context__.args for error in it] == [('k',), ('k',)]",
    ),
}

if sys.version_info >= (3, 11):
    CASES["groups"] = (
        """
        class Own(ExceptionGroup):
            def __new__(cls, errors, code):
                made = super().__new__(cls, 'own', errors)
                made.code = code
                return made
            def __init__(self, errors, code): pass
            def derive(self, errors): return Own(errors, self.code)
        class Two(Exception):
            def __init__(self, a, b): super().__init__(a)
        plain = ExceptionGroup('g', [ValueError(1), Two(2, 3)])
        plain.add_note('note')
        plain.__cause__ = Own([plain.exceptions[1]], 7)
        it = plain
        """,
        """
        own = it.__cause__
        assert it.message == 'g' and it.__notes__ == ['note'] and own.code == 7 and own.message == 'own'
        assert own.exceptions[0] is it.exceptions[1] and own.exceptions[0].args == (2,)
        assert type(own.subgroup(lambda e: True)) is type(own)
        """,
    )

NEEDS_PROTOCOL_2 = {"a class that allows no change"}
