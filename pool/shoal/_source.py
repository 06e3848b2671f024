# SPDX-License-Identifier: BSD-3-Clause
"""The text of functions that come from no file: typed into a notebook, a doctest or a program that runs text.

Where such a function was defined, ``linecache`` has its lines; where it is unpickled, nobody has, and a traceback would
show numbers alone. So its own lines, and no others, travel in its code, and are given to ``linecache`` there under the
same file name. They are marked as those of a file that does not change, which ``linecache.checkcache`` leaves alone.
What the reader can read by itself is never replaced, and of what came in, the oldest files are forgotten when they are
too many.

A program that came from standard input is read again if that is a file. What came through a pipe is gone; and what was
typed at the prompt before Python 3.13 stays behind: each statement there begins with line 1 of "<stdin>", so that a
reader could not tell the lines of two functions apart.

Some names stand for many texts: all that is executed without saying a name is "<string>" (the methods that dataclasses
makes, say), and from Python 3.13 on linecache has the text of ``python -c`` under it. There the lines must begin with
the function.
"""

from __future__ import annotations

import linecache
import os
import re
import stat
import types
from collections import OrderedDict

__all__ = ["keep", "own_lines"]

_SIZE_MAX = 64 * 1024  # characters of one function
_LINE_MAX = 100_000
_FILES_KEPT = 256
_SCRIPT_MAX = 1024 * 1024
_NAMES_OF_MANY = frozenset({"<string>", "<stdin>"})

_kept: OrderedDict[str, list[str]] = OrderedDict()


def _last_line(code: types.CodeType) -> int:
    last = max((line for _, _, line in code.co_lines() if line is not None), default=code.co_firstlineno)
    if hasattr(code, "co_positions"):
        last = max((end for _, end, _, _ in code.co_positions() if end is not None), default=last)
    return max([last, *(_last_line(inner) for inner in code.co_consts if isinstance(inner, types.CodeType))])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _begins_with(text: str, code: types.CodeType) -> bool:
    name = code.co_name
    if name == "<lambda>":
        return "lambda" in text.partition("\n")[0]
    head = re.compile(rf"^[ \t]*(async\s+)?(def|class)\s+{re.escape(name)}\b", re.MULTILINE)
    found = head.search if text.lstrip().startswith("@") else head.match
    return not name.isidentifier() or found(text) is not None


def _script_lines() -> list[str]:
    """Of standard input, from its beginning; where it stands does not change."""
    status = os.fstat(0)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _SCRIPT_MAX:
        return []
    return os.pread(0, status.st_size, 0).decode(errors="replace").splitlines(keepends=True)


def own_lines(code: types.CodeType) -> str | None:
    """The lines of the function, or None if its file can be read, or nobody knows them."""
    name = code.co_filename
    entry = linecache.cache.get(name)
    if entry is None and name.startswith("<doctest "):
        lines = linecache.getlines(name)
    elif entry is None and name == "<stdin>":
        lines = _script_lines()
    elif entry is not None and len(entry) == 4 and entry[1] is None:
        lines = entry[2]
    else:
        return None
    first, end = code.co_firstlineno, min(_last_line(code), len(lines))
    if not 0 < first <= end:
        return None
    # What the compiler has no code for: comments at the end, closing brackets.
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > _indent(lines[first - 1])):
        end += 1
    while end > first and not lines[end - 1].strip():
        end -= 1
    text = "".join(lines[first - 1 : end])
    if name in _NAMES_OF_MANY and not _begins_with(text, code):
        return None
    return text if len(text) <= _SIZE_MAX else None


def keep(code: types.CodeType, text: str) -> None:
    """Give the lines of a function that has come in to linecache."""
    name = code.co_filename
    entry = linecache.cache.get(name)
    lines = _kept.get(name)
    if entry is None:
        if os.path.exists(name):
            return
        lines = []
    elif lines is None or len(entry) != 4 or entry[2] is not lines:
        return
    first = code.co_firstlineno - 1
    own = text.splitlines(keepends=True)
    if not 0 <= first <= _LINE_MAX - len(own):
        return
    lines.extend(["\n"] * (first + len(own) - len(lines)))
    lines[first : first + len(own)] = own
    linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    _kept[name] = lines
    _kept.move_to_end(name)
    while len(_kept) > _FILES_KEPT:
        old, forgotten = _kept.popitem(last=False)
        entry = linecache.cache.get(old)
        if entry is not None and len(entry) == 4 and entry[2] is forgotten:
            del linecache.cache[old]
