# SPDX-License-Identifier: BSD-3-Clause
"""A pickle read as a tree of parts. Nothing is imported, called or made.

It is an unpickler whose objects are `Part`s: each opcode's bytes are counted for the part that it makes or completes,
so that the parts of a pickle add up to it. What the calls in a stream mean is said by `shoal._explain_shapes`; a call
that is not known there is shown with its arguments.

The memory it takes is in proportion to the stream: of long values the beginning is kept, and plain values beyond the
first hundred of a container are only counted. In a long container `_ext._skip_plain` passes over them, and a part of
the kind PASSED stands for them until the container takes them. After many steps that is done in short ones, too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from shoal._explain_opcodes import OPCODES, TEXT_KEPT
from shoal._explain_roles import PASSED, resolved, small, value_text
from shoal._explain_settle import dropped, settle
from shoal._ext import UnpicklingError, _skip_plain
from shoal._parts import ATOMS, Part

_LISTED = 100  # parts of a container that are listed, however small they are
_FOLDED = 2000  # bytes: smaller ones beyond these are only counted; or a thousandth of the whole, if that is more
_LOOKED_AT = 2 * _LISTED  # parts above a mark, keys and values, before others are passed over
_STEPS = 20_000  # opcodes, after which any are
_STOP = ord(".")
_NUMBERS = {form: struct.Struct("<" + form) for form in "BHIQi"}


class Reader:
    """One run over one pickle."""

    def __init__(self, data: memoryview, at: int, buffers: Sequence[Any]) -> None:
        self.data = data
        self.at = at
        self.end = len(data)
        self.op_start = at
        self.buffers = iter(buffers)
        self.stack: list[Part] = []
        self.marks: list[int] = []
        self.limits: list[int] = []  # for each mark: how many parts above it are looked at
        self.memo: dict[int, Part] = {}
        self.overhead = 0  # bytes that are for no part: the header, frames
        self.lost: list[Part] = []  # what was made and dropped
        self.mark_bytes = 0
        self.protocol = 0
        self.small = max(_FOLDED, (self.end - at) // 1000)
        self.plain_calls: set[int] = set()  # memo numbers

    # ---- bytes ----

    def take(self, count: int) -> memoryview:
        """The next bytes; an exception if there are fewer."""
        start = self.at
        if count < 0 or count > self.end - start:
            raise self.damage("the pickle ends in the middle")
        self.at = start + count
        return self.data[start : start + count]

    def number(self, form: str) -> int:
        """A number of struct's format."""
        reader = _NUMBERS[form]
        start = self.at
        if reader.size > self.end - start:
            raise self.damage("the pickle ends in the middle")
        self.at = start + reader.size
        value: int = reader.unpack_from(self.data, start)[0]
        return value

    def textline(self) -> str:
        """Up to the next newline, which is not part of it."""
        at = self.at
        while True:
            piece = bytes(self.data[at : at + 4096])
            found = piece.find(b"\n")
            if found >= 0:
                break
            if not piece:
                raise self.damage("the pickle ends in the middle")
            at += len(piece)
        end = at + found
        text = bytes(self.data[self.at : min(end, self.at + 4 * TEXT_KEPT)]).decode("utf-8", "replace")
        self.at = end + 1
        return text

    def damage(self, what: str) -> UnpicklingError:
        """The exception for a stream that no pickler writes."""
        return UnpicklingError(f"not a pickle, or a damaged one: {what} (byte {self.op_start})")

    # ---- the stack ----

    def push(self, part: Part) -> None:
        """A new part on top. Its own bytes are those of this opcode."""
        part.offset = self.op_start
        self.charge(part)
        self.stack.append(part)

    def pop(self) -> Part:
        """The part on top of the stack."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.damage("its stack is empty")
        return self.stack.pop()

    def top(self) -> Part:
        """The same, and it stays."""
        part = self.pop()
        self.stack.append(part)
        return part

    def since_mark(self) -> list[Part]:
        """All above the last mark, whose byte is counted with this opcode's."""
        if not self.marks:
            raise self.damage("there is no mark")
        self.mark_bytes += 1
        mark = self.marks.pop()
        self.limits.pop()
        parts = self.stack[mark:]
        del self.stack[mark:]
        return parts

    def open_mark(self) -> None:
        """What follows is above a new mark. A container that is full already takes no more that is small."""
        full = bool(self.stack) and len(resolved(self.stack[-1]).children) >= _LISTED
        self.marks.append(len(self.stack))
        self.limits.append(0 if full else _LOOKED_AT)

    def charge(self, part: Part) -> None:
        """This opcode's bytes are for a part that is there already."""
        part.own += self.at - self.op_start + self.mark_bytes
        self.mark_bytes = 0

    def drop(self, part: Part, into: Part | None) -> None:
        """A part that is taken off the stack for good; into: what is under it."""
        if not dropped(part, into):
            self.lost.append(part)

    # ---- the run ----

    def run(self) -> Part:
        """The whole pickle, from here to STOP."""
        handlers = OPCODES
        data, end, stack, marks, limits = self.data, self.end, self.stack, self.marks, self.limits
        steps = resume = 0
        while self.at < end:
            self.op_start = self.at
            steps += 1
            if marks and self.at >= resume:
                above = len(stack) - marks[-1]
                if not above & 1 and (above >= limits[-1] or steps > _STEPS):
                    resume = self.pass_plain() + 1
            opcode = data[self.at]
            self.at += 1
            if opcode == _STOP:
                self.overhead += 1
                return self.finish()
            handler = handlers.get(opcode)
            if handler is None:
                raise self.damage(f"there is no opcode {bytes([opcode])!r}")
            handler(self)
        self.op_start = self.at
        raise self.damage("the pickle ends in the middle")

    def pass_plain(self) -> int:
        """Go on behind the plain values that are here. Two parts stand for them, as for a key and its value.

        Where it ends is given back; there is nothing to pass over before that.
        """
        at, values, memoized, frames = _skip_plain(self.data, self.at, self.small, len(self.memo), self.plain_calls)
        if values == 0:
            return at
        passed = Part(PASSED, offset=self.at)
        passed.folded = values
        passed.folded_size = at - self.at - frames
        self.memo.update(dict.fromkeys(range(len(self.memo), len(self.memo) + memoized), passed))
        self.overhead += frames
        self.stack += (passed, Part(PASSED, offset=self.at))
        self.at = self.op_start = at
        return at

    def finish(self) -> Part:
        """What is on the stack at the end is the whole."""
        root = self.pop()
        if root.same_as is not None:  # a pickle that ends with a mention, as that of a tuple that contains itself
            resolved(root).own += root.own
            root = resolved(root)
            root.why = ""
        for lost in self.lost:
            sizes = {id(part): part.own + part.folded_size for part in lost.walk()}
            if id(root) in sizes:
                for part in root.walk():
                    sizes.pop(id(part), None)
            self.overhead += sum(sizes.values())
        for left in self.stack:
            root.add(left)
        root.own += self.overhead
        return root

    # ---- parts ----

    def add_item(self, into: Part, item: Part, why: str) -> None:
        """Of a container: small values beyond the first are only counted."""
        if item.kind == PASSED:
            into.folded += item.folded
            into.folded_size += item.folded_size
            item.same_as = into
            return
        if len(into.children) >= _LISTED:
            size = item.own if item.kind in ATOMS else small(item, self.small)
            if 0 <= size < self.small:
                into.folded += 1
                into.folded_size += size
                if item.kind not in ATOMS:
                    self.dissolve(item, into)
                return
        if not item.why:
            item.why = why
        into.add(item)

    def dissolve(self, item: Part, into: Part) -> None:
        """Its bytes are counted already. Whatever is still to come for a part of it is the container's."""
        for part in item.walk():
            if part.same_as is None and part.kind not in ATOMS:
                part.same_as = into
                if part.memo_at >= 0:
                    self.memo[part.memo_at] = into
        item.children = ()

    def add_pair(self, into: Part, key: Part, value: Part) -> None:
        """Of a dict. The key's bytes are counted with the value, unless it has parts of its own."""
        known = resolved(key)
        if key.kind == PASSED:
            key.folded //= 2
            self.add_item(into, key, "")
        elif key.kind in ATOMS or key.same_as is not None:
            value.own += key.own
        else:
            key.why = "key"
            into.add(key)
        value.key = known
        self.add_item(into, value, f"item [{value_text(known)}]")


def read(data: Any, buffers: Sequence[Any] = ()) -> list[Part]:
    """All pickles in data, one after the other."""
    whole = memoryview(data).cast("B")
    roots: list[Part] = []
    at = 0
    while at < len(whole):
        reader = Reader(whole, at, buffers)
        root = reader.run()
        settle(root)
        roots.append(root)
        at = reader.at
    if not roots:
        raise UnpicklingError("not a pickle: it is empty")
    return roots
