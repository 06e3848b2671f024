# SPDX-License-Identifier: BSD-3-Clause
"""What each opcode of a pickle does to the tree; called by `shoal._explain_stream` after its byte was read."""

from __future__ import annotations

import re
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal._explain_roles import PASSED, QUOTED, as_tuple, reference, resolved, value_text
from shoal._explain_settle import owner_of_items
from shoal._explain_shapes import called, is_plain_call
from shoal._explain_state import built
from shoal._parts import ATOMS, Part

if TYPE_CHECKING:
    from shoal._explain_stream import Reader

TEXT_KEPT = 200  # characters of a str that are kept: enough for any name


def _atom(kind: str, read: Callable[[Reader], Any]) -> Callable[[Reader], None]:
    def handler(reader: Reader) -> None:
        reader.push(Part(kind, value=read(reader)))

    return handler


def _text_of(data: memoryview) -> tuple[str, bool]:
    text = bytes(data[: 4 * TEXT_KEPT]).decode("utf-8", "replace")
    return text[:TEXT_KEPT], len(data) > 4 * TEXT_KEPT or len(text) > TEXT_KEPT


def _push_text(reader: Reader, data: memoryview) -> None:
    text, cut = _text_of(data)
    part = Part("str", value=text)
    if cut or len(text) > QUOTED:
        part.detail = f"({len(data):,} bytes)"
    reader.push(part)


def _push_bytes(reader: Reader, data: memoryview, kind: str) -> None:
    part = Part(kind, name=f"of {len(data):,}", value=data)
    reader.push(part)


def _text(form: str) -> Callable[[Reader], None]:
    return lambda reader: _push_text(reader, reader.take(reader.number(form)))


def _bytes(form: str, kind: str = "bytes") -> Callable[[Reader], None]:
    return lambda reader: _push_bytes(reader, reader.take(reader.number(form)), kind)


def _line_text(reader: Reader) -> None:
    text = reader.textline()
    reader.push(Part("str", value=text[:TEXT_KEPT]))


def _long(form: str) -> Callable[[Reader], None]:
    def handler(reader: Reader) -> None:
        data = reader.take(reader.number(form))
        if len(data) <= 16:
            reader.push(Part("int", value=int.from_bytes(data, "little", signed=True)))
        else:
            reader.push(Part("int", name=f"of {8 * len(data)} bits"))

    return handler


def _line_number(reader: Reader) -> None:
    text = reader.textline().removesuffix("L")
    if text in ("00", "01"):
        reader.push(Part("bool", value=text == "01"))
    else:
        known = re.fullmatch(r"[+-]?[0-9]{1,40}", text)
        reader.push(Part("int", name=text[:40], value=int(text) if known else None))


def _empty(kind: str) -> Callable[[Reader], None]:
    return lambda reader: reader.push(Part(kind))


def _collect(kind: str, count: int = -1) -> Callable[[Reader], None]:
    """TUPLE and its like: of as many parts, or of those since the mark."""

    def handler(reader: Reader) -> None:
        part = Part(kind)
        parts = [reader.pop() for _ in range(count)][::-1] if count >= 0 else reader.since_mark()
        for number, item in enumerate(parts):
            reader.add_item(part, item, f"item {number}" if kind != "frozenset" else "member")
        part.value = parts if kind == "tuple" else None
        reader.push(part)

    return handler


def _dict_of_marked(reader: Reader) -> None:
    part = Part("dict")
    parts = reader.since_mark()
    for key, value in zip(parts[::2], parts[1::2], strict=False):
        reader.add_pair(part, key, value)
    reader.push(part)


def _add_items(reader: Reader, items: list[Part], why: str) -> None:
    into = resolved(reader.top())
    for item in items:
        reader.add_item(into, item, f"{why} {len(into.children) + into.folded}" if why == "item" else why)
    reader.charge(into)


def _add_pairs(reader: Reader, pairs: list[Part]) -> None:
    into = resolved(reader.top())
    under = reader.stack[-2] if len(reader.stack) > 1 else None
    owner = owner_of_items(into, resolved(under) if under else None)
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        reader.add_pair(owner, key, value)
        if owner is not into:
            word = "global" if owner.role == "function" else "attribute"
            value.why = f"{word} {value_text(resolved(key))}"
    reader.charge(owner)


def _set_item(reader: Reader) -> None:
    value = reader.pop()
    _add_pairs(reader, [reader.pop(), value])


def _put(index: Callable[[Reader], int]) -> Callable[[Reader], None]:
    def handler(reader: Reader) -> None:
        number = index(reader)
        top = reader.top()
        reader.memo[number] = resolved(top)
        top.memo_at = number
        if top.kind == "reference" and is_plain_call(top):
            reader.plain_calls.add(number)
        reader.charge(top)

    return handler


def _get(index: Callable[[Reader], int]) -> Callable[[Reader], None]:
    def handler(reader: Reader) -> None:
        target = reader.memo.get(index(reader))
        if target is None:
            raise reader.damage("it refers to something that is not there")
        target = resolved(target)
        mention = Part(target.kind if target.kind != PASSED else "object", name=target.name, value=target.value)
        mention.by = "shared"
        mention.same_as = target
        reader.push(mention)

    return handler


def _line_index(reader: Reader) -> int:
    text = reader.textline()
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise reader.damage("a number is expected")
    return int(text)


def _named(reader: Reader) -> Part:
    """Old protocols have the names of Python 2."""
    module, name = reader.textline(), reader.textline()
    if reader.protocol < 3:
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return reference(module, name)


def _global(reader: Reader) -> None:
    reader.push(_named(reader))


def _stack_global(reader: Reader) -> None:
    name, module = reader.pop(), reader.pop()
    part = reference(str(resolved(module).value), str(resolved(name).value))
    part.own = module.own + name.own
    reader.push(part)


def _reduce(reader: Reader) -> None:
    arguments, function = reader.pop(), reader.pop()
    reader.push(called(function, arguments, None))


def _newobj(reader: Reader) -> None:
    arguments, cls = reader.pop(), reader.pop()
    reader.push(called(cls, arguments, None))


def _newobj_ex(reader: Reader) -> None:
    keywords, arguments, cls = reader.pop(), reader.pop(), reader.pop()
    reader.push(called(cls, arguments, keywords))


def _obj(reader: Reader) -> None:
    parts = reader.since_mark()
    if not parts:
        raise reader.damage("it makes an instance of nothing")
    reader.push(called(parts[0], as_tuple(parts[1:]), None))


def _inst(reader: Reader) -> None:
    cls = _named(reader)
    reader.push(called(cls, as_tuple(reader.since_mark()), None))


def _build(reader: Reader) -> None:
    state = reader.pop()
    mention = reader.top()
    part = resolved(mention)
    built(part, state)
    reader.charge(part)


def _pop(reader: Reader) -> None:
    if reader.marks and reader.marks[-1] == len(reader.stack):
        reader.since_mark()
        reader.overhead += 1
        return
    gone = reader.pop()
    into = resolved(reader.stack[-1]) if reader.stack else None
    reader.overhead += 1
    reader.drop(gone, into)


def _pop_mark(reader: Reader) -> None:
    for part in reader.since_mark():
        reader.drop(part, resolved(reader.stack[-1]) if reader.stack else None)
    reader.overhead += 1


def _dup(reader: Reader) -> None:
    top = resolved(reader.top())
    mention = Part(top.kind, name=top.name, value=top.value)
    mention.by, mention.same_as = "shared", top
    reader.push(mention)


def _next_buffer(reader: Reader) -> None:
    part = Part("buffer", name="out of band")
    buffer = next(reader.buffers, None)
    if buffer is not None:
        with memoryview(buffer) as view:
            part.own = view.nbytes
            part.detail = f"of {view.nbytes:,}"
    reader.push(part)


def _readonly(reader: Reader) -> None:
    reader.charge(reader.top())


def _persistent(reader: Reader) -> None:
    identity = reader.pop()
    part = Part("persistent", name=f"id {value_text(resolved(identity))}")
    if identity.kind in ATOMS or identity.same_as is not None:
        part.own = identity.own
    else:
        part.add(identity)
    reader.push(part)


def _persistent_line(reader: Reader) -> None:
    reader.push(Part("persistent", name=f"id {reader.textline()}"))


def _extension(form: str) -> Callable[[Reader], None]:
    def handler(reader: Reader) -> None:
        part = Part("reference", name=f"extension code {reader.number(form)}")
        part.by = "reference"
        reader.push(part)

    return handler


def _protocol(reader: Reader) -> None:
    reader.protocol = reader.number("B")
    reader.overhead += 2


def _frame(reader: Reader) -> None:
    reader.number("Q")
    reader.overhead += 9


def _mark(reader: Reader) -> None:
    reader.open_mark()


def _float(reader: Reader) -> float:
    value: float = struct.unpack(">d", reader.take(8))[0]
    return value


OPCODES: dict[int, Callable[[Reader], None]] = {
    ord(byte): handler
    for byte, handler in {
        "(": _mark,
        "0": _pop,
        "1": _pop_mark,
        "2": _dup,
        "N": _atom("None", lambda reader: None),
        "\x88": _atom("bool", lambda reader: True),
        "\x89": _atom("bool", lambda reader: False),
        "J": _atom("int", lambda reader: reader.number("i")),
        "K": _atom("int", lambda reader: reader.number("B")),
        "M": _atom("int", lambda reader: reader.number("H")),
        "I": _line_number,
        "L": _line_number,
        "\x8a": _long("B"),
        "\x8b": _long("i"),
        "G": _atom("float", _float),
        "F": lambda reader: reader.push(Part("float", name=reader.textline()[:40])),
        "S": _line_text,
        "V": _line_text,
        "T": _text("i"),
        "U": _text("B"),
        "X": _text("I"),
        "\x8c": _text("B"),
        "\x8d": _text("Q"),
        "B": _bytes("I"),
        "C": _bytes("B"),
        "\x8e": _bytes("Q"),
        "\x96": _bytes("Q", "bytearray"),
        "\x97": _next_buffer,
        "\x98": _readonly,
        "]": _empty("list"),
        "}": _empty("dict"),
        "\x8f": _empty("set"),
        ")": _collect("tuple", 0),
        "\x85": _collect("tuple", 1),
        "\x86": _collect("tuple", 2),
        "\x87": _collect("tuple", 3),
        "t": _collect("tuple"),
        "l": _collect("list"),
        "\x91": _collect("frozenset"),
        "d": _dict_of_marked,
        "a": lambda reader: _add_items(reader, [reader.pop()], "item"),
        "e": lambda reader: _add_items(reader, reader.since_mark(), "item"),
        "\x90": lambda reader: _add_items(reader, reader.since_mark(), "member"),
        "s": _set_item,
        "u": lambda reader: _add_pairs(reader, reader.since_mark()),
        "p": _put(_line_index),
        "q": _put(lambda reader: reader.number("B")),
        "r": _put(lambda reader: reader.number("I")),
        "\x94": _put(lambda reader: len(reader.memo)),
        "g": _get(_line_index),
        "h": _get(lambda reader: reader.number("B")),
        "j": _get(lambda reader: reader.number("I")),
        "c": _global,
        "\x93": _stack_global,
        "R": _reduce,
        "\x81": _newobj,
        "\x92": _newobj_ex,
        "o": _obj,
        "i": _inst,
        "b": _build,
        "P": _persistent_line,
        "Q": _persistent,
        "\x82": _extension("B"),
        "\x83": _extension("H"),
        "\x84": _extension("i"),
        "\x80": _protocol,
        "\x95": _frame,
    }.items()
}
