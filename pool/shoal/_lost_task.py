# SPDX-License-Identifier: BSD-3-Clause
"""What a worker ran when it died, in a line: `resize('a.png', width=640)`.

The parent has the task as a stream. To unpickle it would run user code, and the repr of what came out would, too; so
the stream is read as text: each opcode makes a piece of text, or a container of such pieces, and nothing is imported,
called or made. Of live objects, only the names of functions and classes are read, past whatever they define themselves.

Everything is bounded: the bytes that are looked at, the opcodes, the members of a container, the depth, the line. A
stream that ends in the middle, because only its beginning is known, is told as far as it goes.
"""

from __future__ import annotations

import functools
import pickletools
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from shoal._code_names import code_names

if TYPE_CHECKING:
    from shoal._ext import Engine

LINE_MAX = 200  # characters
_ATOM_MAX = 50  # characters of a str or bytes
_MEMBERS = 8  # of a container
_DEPTH = 4
_OPCODES = 4000
_BRACKETS = {"tuple": "()", "list": "[]", "set": "{}", "frozenset": "{}", "dict": "{}"}
_NOT_TOLD = ("builtins", "__main__", "__mp_main__", "shoal._rebuild", "shoal._ext")
_BY_VALUE = ("_function", "_class")
_MARK = object()
_ELLIPSIS = "…"


class Told:
    """What is told of an object in a stream: a text, or a container of others."""

    __slots__ = ("count", "keys", "kind", "members", "text", "value")

    def __init__(self, text: str = "", kind: str = "", members: list[Told] | None = None, value: Any = None) -> None:
        self.text = text
        self.kind = kind  # "": only a text
        self.members = members or []
        self.keys: list[Told] = []
        self.count = len(self.members)
        self.value = value  # of an atom

    def add(self, member: Told, key: Told | None = None) -> None:
        """One more member, which is kept if it is one of the first."""
        self.count += 1
        if len(self.members) < _MEMBERS:
            self.members.append(member)
            if key is not None:
                self.keys.append(key)

    def render(self, depth: int = 0) -> str:
        """As text, a container's first members with it."""
        if not self.kind or self.kind == "call":
            return self.text
        if depth >= _DEPTH:
            return _ELLIPSIS
        inner = [member.render(depth + 1) for member in self.members[:_MEMBERS]]
        if self.kind == "dict":
            inner = [f"{key.render(depth + 1)}: {text}" for key, text in zip(self.keys, inner, strict=False)]
        if self.count > len(inner):
            inner.append(_ELLIPSIS)
        if self.kind in ("set", "frozenset") and not inner:
            return f"{self.kind}()"
        comma = "," if self.kind == "tuple" and self.count == 1 else ""
        brackets = _BRACKETS[self.kind]
        text = f"{brackets[0]}{', '.join(inner)}{comma}{brackets[1]}"
        return f"frozenset({text})" if self.kind == "frozenset" else text


def describe(task: tuple[str, Any, Any] | None, engine: Engine) -> str:
    """The task as a line; empty if nothing is known. `task`: what pool/ext/lost.c says."""
    if task is None:
        return ""
    form, function, arguments = task
    try:
        if form == "call":
            return _call(_read(function, engine))
        name = _read(function, engine).text if isinstance(function, bytes) else safe_name(function)
        parts = arguments if form == "common" else (arguments,)
        members: list[Told] = []
        more = False
        for part in parts:
            told = _read(part, engine) if isinstance(part, bytes) else _plain(*part)
            members += told.members if form != "item" and told.kind == "tuple" else [told]
            more = more or told.count > len(told.members)
        return _line(name, [member.render() for member in members], more)
    except Exception:  # it is only a help for whoever reads the error
        return ""


def safe_name(obj: object) -> str:
    """The name of a function or class, without running any code of its own."""
    kind = type(obj)
    if kind is FunctionType or kind is BuiltinFunctionType:
        return _found(obj.__module__, obj.__qualname__)  # type: ignore[attr-defined]
    if kind is MethodType:
        return safe_name(obj.__func__)  # type: ignore[attr-defined]
    if kind is functools.partial:
        return f"functools.partial({safe_name(obj.func)}, {_ELLIPSIS})"  # type: ignore[attr-defined]
    if issubclass(kind, type):
        return str(type.__getattribute__(obj, "__qualname__"))
    return f"<{kind.__qualname__} object>"


def _call(told: Told) -> str:
    """Of (function, arguments, keywords), as far as it is known."""
    function, *rest = told.members or [told]
    arguments = rest[0] if rest else Told(_ELLIPSIS)
    texts = [member.render() for member in arguments.members] if arguments.kind == "tuple" else [arguments.render()]
    more = arguments.count > len(arguments.members) if arguments.kind == "tuple" else False
    if len(rest) > 1 and rest[1].kind == "dict":
        texts += [f"{key.value}={value.render()}" for key, value in zip(rest[1].keys, rest[1].members, strict=False)]
        more = more or rest[1].count > len(rest[1].members)
    return _line(function.text, texts, more)


def _line(name: str, arguments: list[str], more: bool) -> str:
    if not name:
        return ""
    name = name if len(name) <= 80 else _ELLIPSIS + name[-79:]
    text = f"{name}({', '.join([*arguments, *([_ELLIPSIS] if more else [])])})"
    return text if len(text) <= LINE_MAX else f"{text[: LINE_MAX - 2]}{_ELLIPSIS})"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + _ELLIPSIS


def _atom(value: Any) -> Told:
    if isinstance(value, (str, bytes, bytearray)) and len(value) > _ATOM_MAX:
        return Told(f"{value[:_ATOM_MAX]!r}{_ELLIPSIS}", value=value)
    if isinstance(value, int) and value.bit_length() > 200:
        return Told(f"<int of {value.bit_length()} bits>")
    return Told(repr(value), value=value)


def _plain(value: Any) -> Told:
    """What pool/ext/plain.c makes: atoms, and tuples of them."""
    if type(value) is tuple:
        return Told(kind="tuple", members=[_plain(member) for member in value])
    return _atom(value)


# ---- the stream ----


def _read(data: bytes, engine: Engine) -> Told:
    reader = _Reader(engine)
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if steps > _OPCODES:
                break
            reader.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError):
        pass  # it is cut short
    return reader.result()


class _Reader:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stack: list[Any] = []
        self.memo: dict[int, Told] = {}

    def result(self) -> Told:
        """The whole, or, of a stream that was cut short, what was there of it."""
        if len(self.stack) == 1:
            whole: Told = self.stack[0]
            return whole
        known = self.stack[: self.stack.index(_MARK)] if _MARK in self.stack else self.stack[:]
        if not known:
            return Told()
        function, *rest = known
        if function.text in _BY_VALUE and rest:  # the call that makes it was still to come
            function, rest = _made(function.text, Told(kind="tuple", members=rest)), []
        arguments = Told(kind="tuple", members=rest)
        arguments.count += 1  # what follows
        return Told(kind="tuple", members=[function, arguments])

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in _CONSTANTS:
            self.stack.append(Told(_CONSTANTS[name]))
        elif name in _EMPTY:
            self.stack.append(Told(kind=_EMPTY[name]))
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif argument is not None and type(argument) in (int, float, str, bytes, bytearray, bool):
            if name not in ("PROTO", "FRAME"):
                self.stack.append(_atom(argument))

    def since_mark(self) -> list[Told]:
        """What is above the last mark, which goes as well."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
        members = self.stack[at + 1 :]
        del self.stack[at:]
        return members

    def extend(self, members: list[Told]) -> None:
        """Of the list, dict or set on top; an object's own items are not told."""
        into = self.stack[-1]
        if into.kind in ("list", "set"):
            for member in members:
                into.add(member)
        elif into.kind == "dict":
            for key, value in zip(members[::2], members[1::2], strict=False):
                into.add(value, key)

    def fixed_tuple(self, size: int) -> None:
        """The last so many become a tuple."""
        members = self.stack[len(self.stack) - size :]
        del self.stack[len(self.stack) - size :]
        self.stack.append(Told(kind="tuple", members=members))

    def call(self) -> None:
        """A function and its arguments give way to what the call makes."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(function.text, arguments))

    def new(self, argument_count: int) -> None:
        """A class and arguments for its __new__ give way to an instance."""
        del self.stack[len(self.stack) - argument_count :]
        name = self.stack.pop().text
        self.stack.append(Told(f"<{name.rpartition('.')[2]} object>", "call"))

    def name(self) -> None:
        """Module and name give way to what is found there."""
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Told(_found(module.value, name.value)))

    def inherited(self) -> None:
        """A number gives way to what forked workers have under it."""
        number = self.stack.pop().value
        self.stack.append(Told(safe_name(self.engine.inherited_object(number))))


def _found(module: Any, name: Any) -> str:
    return f"{module}.{name}" if isinstance(module, str) and module not in _NOT_TOLD else str(name)


def _made(function: str, arguments: Told) -> Told:
    members = arguments.members
    if function == "_function" and members:
        names = code_names(members[0].value)
        return Told(names.qualname if names is not None else "<function>")
    if function == "_class" and len(members) > 1:
        return Told(str(members[1].value))
    if function == "getattr" and len(members) == 2:
        return Told(f"{members[0].render()}.{members[1].value}")
    if function.endswith("._frombuffer") and len(members) > 2:
        return Told(f"<array of shape {members[2].render()}>", "call")
    inner = ", ".join(member.render(2) for member in members[:4])
    return Told(_short(f"{function.rpartition('.')[2]}({inner})", 80), "call")


_CONSTANTS = {"NONE": "None", "NEWTRUE": "True", "NEWFALSE": "False", "NEXT_BUFFER": "<buffer>"}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple", "EMPTY_DICT": "dict", "EMPTY_SET": "set"}
_HANDLERS: dict[str, Any] = {
    "MARK": lambda reader, argument: reader.stack.append(_MARK),
    "POP": lambda reader, argument: reader.stack.pop(),
    "POP_MARK": lambda reader, argument: reader.since_mark(),
    "DUP": lambda reader, argument: reader.stack.append(reader.stack[-1]),
    "MEMOIZE": lambda reader, argument: reader.memo.__setitem__(len(reader.memo), reader.stack[-1]),
    "BINPUT": lambda reader, argument: reader.memo.__setitem__(argument, reader.stack[-1]),
    "LONG_BINPUT": lambda reader, argument: reader.memo.__setitem__(argument, reader.stack[-1]),
    "BINGET": lambda reader, argument: reader.stack.append(reader.memo[argument]),
    "LONG_BINGET": lambda reader, argument: reader.stack.append(reader.memo[argument]),
    "TUPLE": lambda reader, argument: reader.stack.append(Told(kind="tuple", members=reader.since_mark())),
    "TUPLE1": lambda reader, argument: reader.fixed_tuple(1),
    "TUPLE2": lambda reader, argument: reader.fixed_tuple(2),
    "TUPLE3": lambda reader, argument: reader.fixed_tuple(3),
    "FROZENSET": lambda reader, argument: reader.stack.append(Told(kind="frozenset", members=reader.since_mark())),
    "APPEND": lambda reader, argument: reader.extend([reader.stack.pop()]),
    "APPENDS": lambda reader, argument: reader.extend(reader.since_mark()),
    "ADDITEMS": lambda reader, argument: reader.extend(reader.since_mark()),
    "SETITEM": lambda reader, argument: reader.extend([reader.stack.pop(), reader.stack.pop()][::-1]),
    "SETITEMS": lambda reader, argument: reader.extend(reader.since_mark()),
    "STACK_GLOBAL": lambda reader, argument: reader.name(),
    "GLOBAL": lambda reader, argument: reader.stack.append(Told(_found(*argument.split(" ", 1)))),
    "REDUCE": lambda reader, argument: reader.call(),
    "NEWOBJ": lambda reader, argument: reader.new(1),
    "NEWOBJ_EX": lambda reader, argument: reader.new(2),
    "BUILD": lambda reader, argument: reader.stack.pop(),
    "BINPERSID": lambda reader, argument: reader.inherited(),
}
