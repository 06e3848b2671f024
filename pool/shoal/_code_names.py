# SPDX-License-Identifier: BSD-3-Clause
"""The names in a code object that was pickled, without making it: see `pool/pickle/code_write.c` for the form."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

_HEADER = 6
_OWN_FILENAME = 1
_QUALNAME_OWN, _QUALNAME_MASK = 0, 6
_NAME_KNOWN, _KNOWN_NAMES = 2, 64
_FREE = 0x80  # the kind of a local variable that comes from outside


class CodeNames(NamedTuple):
    """What a code object says of itself."""

    qualname: str
    filename: str
    line: int
    free: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def place(self) -> str:
        """File and line, without directories."""
        return f"{os.path.basename(self.filename)}:{self.line}"


def code_names(data: Any) -> CodeNames | None:
    """The names, or None if this is no such form."""
    if not isinstance(data, (bytes, memoryview)) or len(data) < _HEADER:
        return None
    try:
        return _read(bytes(data))
    except (IndexError, UnicodeError):
        return None


# One function of plain loops for each kind of field, as there may be ten thousand codes: most numbers are one byte.


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends, as from all functions here."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _end(data: bytes, at: int, size: int) -> int:
    if size > len(data) - at:
        raise IndexError
    return at + size


def _text(data: bytes, at: int) -> tuple[str, int]:
    size, at = _number(data, at)
    end = _end(data, at, size >> 1)
    return data[at:end].decode("utf-8", "replace"), end


def _names(data: bytes, at: int, known: list[str]) -> tuple[list[str], int]:
    """A list of names; those that were read before are numbers in `known`."""
    count, at = _number(data, at)
    if count > len(data):
        raise IndexError
    found = []
    for _ in range(count):
        head = data[at]
        at += 1
        if head >= 0x80:
            head, at = _number(data, at - 1)
        if head & _NAME_KNOWN:
            found.append(known[head >> 2])
            continue
        end = _end(data, at, head >> 2)
        name = data[at:end].decode("utf-8", "replace")
        at = end
        if len(known) < _KNOWN_NAMES:
            known.append(name)
        found.append(name)
    return found, at


def _read(data: bytes) -> CodeNames:
    new = (data[0], data[1]) >= (3, 11)
    shape, at = data[_HEADER], _HEADER + 1
    name, at = _text(data, at)
    qualname, filename = name, ""
    if new and shape & _QUALNAME_MASK == _QUALNAME_OWN:
        qualname, at = _text(data, at)
    if shape & _OWN_FILENAME:
        filename, at = _text(data, at)
    fields = []
    for _ in range(6):  # how many arguments of each kind, the stack, flags, the first line: signed
        value, at = _number(data, at)
        fields.append((value >> 1) ^ -(value & 1))
    for _ in range(3 if new else 2):  # bytecode, line table, exception table
        size, at = _number(data, at)
        at = _end(data, at, size)
    known: list[str] = []
    _, at = _names(data, at, known)
    if new:
        local, at = _names(data, at, known)
        kinds = data[at : _end(data, at, len(local))]
        free = [each for each, kind in zip(local, kinds, strict=True) if kind & _FREE]
    else:
        _, at = _number(data, at)
        local, at = _names(data, at, known)
        _, at = _names(data, at, known)
        free, at = _names(data, at, known)
    return CodeNames(qualname, filename, fields[5], tuple(free), tuple(local[: fields[0]]))
