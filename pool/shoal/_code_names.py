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


class _Form:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = _HEADER
        self.known: list[str] = []

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def signed(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def data_of(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise IndexError
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        return self.data_of(self.number() >> 1).decode("utf-8", "replace")

    def name(self) -> str:
        head = self.number()
        if head & _NAME_KNOWN:
            return self.known[head >> 2]
        name = self.data_of(head >> 2).decode("utf-8", "replace")
        if len(self.known) < _KNOWN_NAMES:
            self.known.append(name)
        return name

    def names(self) -> tuple[str, ...]:
        count = self.number()
        if count > len(self.data):
            raise IndexError
        return tuple(self.name() for _ in range(count))


def code_names(data: Any) -> CodeNames | None:
    """The names, or None if this is no such form."""
    if not isinstance(data, (bytes, memoryview)) or len(data) < _HEADER:
        return None
    form = _Form(bytes(data))
    try:
        return _read(form)
    except (IndexError, UnicodeError):
        return None


def _read(form: _Form) -> CodeNames:
    version = (form.data[0], form.data[1])
    shape = form.byte()
    name = form.text()
    new = version >= (3, 11)
    qualname = form.text() if new and shape & _QUALNAME_MASK == _QUALNAME_OWN else name
    filename = form.text() if shape & _OWN_FILENAME else ""
    arguments, _, _, _, _, line = (form.signed() for _ in range(6))
    for _ in range(3 if new else 2):  # bytecode, line table, exception table
        form.data_of(form.number())
    form.names()
    if new:
        local = form.names()
        kinds = form.data_of(len(local))
        free = tuple(each for each, kind in zip(local, kinds, strict=True) if kind & _FREE)
    else:
        form.number()
        local = form.names()
        form.names()
        free = form.names()
    return CodeNames(qualname, filename, line, free, local[:arguments])
