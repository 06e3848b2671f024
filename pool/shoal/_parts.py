# SPDX-License-Identifier: BSD-3-Clause
"""The tree that `shoal.explain` gives: a part of a pickle, its bytes, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

By = Literal["value", "reference", "shared", ""]
Line = tuple["Part | str", int]

ATOMS = frozenset({"None", "bool", "int", "float", "str", "bytes", "bytearray"})
CONTAINERS = frozenset({"list", "tuple", "set", "frozenset", "dict"})

SHOWN_DEPTH = 6
SHOWN_PARTS = 10
_WIDTH = 100
_TOLD_ANYHOW = 2  # levels at which what was captured is told however small it is


class Part:
    """A part of a pickle: what it is, why it is there, and how many bytes it takes.

    Iterating gives the parts that it consists of, largest first. `str()` is the whole tree as text, cut to a readable
    depth and breadth; `text()` cuts it as you like.

    Attributes
    ----------
    kind : str
        What it is: "function", "class", "object", "dict", "str", "array", "module", "buffer", ...
    name : str
        Its name, or a short form of its value.
    why : str
        Through what it came in: "closure variable 'client'", "global 'table'", "attribute 'x'", "item 3", ...
    by : str
        "value" or "reference" for what can travel in both ways; "shared" if it is told elsewhere in the tree already.
    reason : str
        Why by value, or by reference, where that can be told; where it is told, if it is shared.
    size : int
        Bytes of the pickle that it takes, its parts included, and those of its out-of-band buffers.
    own : int
        The bytes of these that are in none of its parts.
    children : sequence of Part
        What it consists of, largest first.
    folded : int
        How many small plain values it has besides, which `children` does not list; `folded_size`: their bytes.
    same_as : Part or None
        Where it is told, if it is shared.
    offset : int
        Where in the pickle it begins.
    """

    # Most parts differ from these in little, so the class has what an instance has not.
    name = ""
    why = ""
    by: By = ""
    reason = ""
    size = 0
    children: Sequence[Part] = ()
    folded = 0
    folded_size = 0
    same_as: Part | None = None
    detail = ""  # shape of an array, length of a list
    # While it is read: its value if it is a small atom, its key in a dict, where in the memo it is, what it is to our
    # reconstructors.
    value: Any = None
    key: Part | None = None
    memo_at = -1
    module = ""
    role = ""

    def __init__(self, kind: str, own: int = 0, offset: int = 0, name: str = "", value: Any = None) -> None:
        self.kind = kind
        self.own = own
        self.offset = offset
        if name:
            self.name = name
        if value is not None:
            self.value = value

    def add(self, child: Part) -> None:
        """One more part that it consists of."""
        if self.children:
            self.children.append(child)  # type: ignore[attr-defined]
        else:
            self.children = [child]

    def __iter__(self) -> Iterator[Part]:
        return iter(self.children)

    def __len__(self) -> int:
        return len(self.children)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{self.line()}, {size_text(self.size)}>"

    def __str__(self) -> str:
        return self.text()

    def walk(self) -> Iterator[Part]:
        """It and all that it consists of, in the order of the tree."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting.extend(reversed(part.children))

    def line(self) -> str:
        """What it is, in a line: without its size, and without its parts."""
        what = self._what()
        return f"{self.why}: {what}" if self.why and self.why != what else what

    def _what(self) -> str:
        words = (self.name, self.kind) if self.kind == "object" else (self.kind, self.name)
        text = " ".join(word for word in (*words, self.detail) if word)
        if self.same_as is not None:
            return text if self.kind in ATOMS else f"{text}, shared: told at {self.reason}"
        if self.by and self.kind != "reference":
            text += f" by {self.by}"
        return f"{text} ({self.reason})" if self.reason else text

    def text(self, depth: int = SHOWN_DEPTH, parts: int = SHOWN_PARTS, min_bytes: int | None = None) -> str:
        """The tree as text.

        Parameters
        ----------
        depth : int
            Levels below this part that are shown.
        parts : int
            Parts of each part that are shown; the others are summed up.
        min_bytes : int or None
            Smaller parts are summed up as well. None: those below a thousandth of the whole, deeper in the tree.
        """
        lines: list[str] = []
        _draw(self, lines, depth, parts, min_bytes)
        return "\n".join(lines)

    def as_dict(self, depth: int | None = None, min_bytes: int = 0) -> dict[str, Any]:
        """The tree as plain data, for JSON.

        Parameters
        ----------
        depth : int or None
            Levels below this part; None: all there are. JSON itself takes some hundred.
        min_bytes : int
            Smaller parts are left out.
        """
        whole: dict[str, Any] = {}
        waiting = [(self, whole, 0)]
        while waiting:
            part, into, level = waiting.pop()
            into.update(part._plain())
            if depth is not None and level >= depth:
                continue
            into["children"] = []
            for child in part.children:
                if child.size >= min_bytes:
                    plain: dict[str, Any] = {}
                    into["children"].append(plain)
                    waiting.append((child, plain, level + 1))
        return whole

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {name: getattr(self, name) for name in ("kind", "name", "why", "by", "size", "own")}
        plain["offset"] = self.offset
        for name in ("detail", "reason", "folded", "folded_size"):
            if getattr(self, name):
                plain[name] = getattr(self, name)
        if self.same_as is not None:
            plain["same_as"] = self.same_as.offset
        return plain


def size_text(size: int) -> str:
    """A size as people read it: 812 B, 3.4 KB, 1.2 GB."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("KB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} PB"


def _column(size: int, whole: int) -> str:
    share = 100 * size / whole if whole else 0
    return f"{size_text(size):>9} {share:4.0f}%  " if share >= 1 or not size else f"{size_text(size):>9}   <1%  "


def _draw(part: Part, lines: list[str], depth: int, parts: int, min_bytes: int | None) -> None:
    """Depth first, without recursion. On the stack: part or text, its size, what stands before it, its level."""
    whole = part.size
    waiting: list[tuple[Part | str, int, str, str, int]] = [(part, part.size, "", "", 0)]
    while waiting:
        what, size, lead, branch, level = waiting.pop()
        text = what if isinstance(what, str) else _cut(what.line())
        lines.append(f"{_column(size, whole)}{lead}{branch}{text}")
        if isinstance(what, str):
            continue
        below = _below(what, depth - level, level, parts, min_bytes, whole)
        under = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for number, (child, child_size) in enumerate(reversed(below)):
            waiting.append((child, child_size, under, "├─ " if number else "└─ ", level + 1))


def _below(part: Part, levels: int, level: int, parts: int, min_bytes: int | None, whole: int) -> list[Line]:
    """What to show of a part's parts, and a line for the others."""
    least = min_bytes if min_bytes is not None else whole // 1000
    if min_bytes is None and level < _TOLD_ANYHOW and part.kind not in CONTAINERS:
        least = 0
    shown = [child for child in part.children[:parts] if child.size >= least] if levels > 0 else []
    below: list[Line] = [(child, child.size) for child in shown]
    count = len(part.children) - len(shown) + part.folded
    size = part.size - part.own - sum(child.size for child in shown)
    if count and (shown or part.kind not in CONTAINERS):
        below.append((f"… and {count:,} more" if shown else f"… {count:,} part{'s'[: count > 1]}", size))
    return below


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
