# SPDX-License-Identifier: BSD-3-Clause
"""How open files are told of: the standard streams by name, others by their content, at the same position."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

from shoal import _rebuild

__all__ = ["AND_SUBCLASSES", "EXACTLY", "LATER"]

Reduced = tuple[Any, ...]


def _text_file(file: Any, protocol: int) -> Reduced:
    return _standard_stream(file) or _content(file)


def _binary_file(file: Any, protocol: int) -> Reduced:
    return _standard_stream(file) or _content(file)


def _other_file(file: Any, protocol: int) -> Reduced | None:
    """What stands in for a standard stream may be of any kind."""
    return _standard_stream(file)


def _temporary_file(wrapper: Any, protocol: int) -> Reduced:
    """Without what deletes the file when it is closed: it is the sender's."""
    return _content(wrapper.file)


def _standard_stream(file: Any) -> Reduced | None:
    """The reader's own, or what is underneath it."""
    if any(file is part for part in _layers(sys.stdin)):
        raise pickle.PicklingError("Cannot pickle standard input")
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        text, buffered, raw = _layers(getattr(sys, name, None))
        if file is text:
            return getattr, (sys, name)
        if file is buffered:
            return getattr, (text, "buffer")
        if file is raw:
            return getattr, (buffered, "raw")
    return None


def _layers(stream: Any) -> tuple[Any, Any, Any]:
    buffered = getattr(stream, "buffer", None)
    return stream, buffered, getattr(buffered, "raw", None)


def _content(file: Any) -> Reduced:
    if file.closed:
        raise pickle.PicklingError("Cannot pickle closed files")
    if file.isatty():
        raise pickle.PicklingError("Cannot pickle files that map to tty objects")
    if not file.readable():
        raise pickle.PicklingError(f"Cannot pickle files that are not opened for reading: {_mode(file)}")
    name = getattr(file, "name", None)
    try:
        position = file.tell()
        try:
            rest = file.read()
            file.seek(0)
            content = file.read()
        finally:
            file.seek(position)
    except (OSError, UnicodeDecodeError) as error:
        raise pickle.PicklingError(f"Cannot pickle file {name} as it cannot be read") from error
    return _rebuild._memory_file, (name, content, len(content) - len(rest))


def _mode(file: Any) -> Any:
    return getattr(file, "mode", "wb")


EXACTLY = {
    io.TextIOWrapper: _text_file,
    io.BufferedReader: _binary_file,
    io.BufferedWriter: _binary_file,
    io.BufferedRandom: _binary_file,
    io.FileIO: _binary_file,
}
# From Python 3.12 on each of these refuses by a __reduce__ of its own.
AND_SUBCLASSES = {cls: _other_file for cls in (io.IOBase.__base__, *EXACTLY)}
LATER = {("tempfile", "_TemporaryFileWrapper"): _temporary_file}
