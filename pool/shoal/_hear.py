# SPDX-License-Identifier: BSD-3-Clause
"""What workers say, in the parent: see _forward.py. Called by the engine, one message at a time, in order.

Handlers and streams run in whatever thread collects results. What they raise is reported as an exception that nobody
can catch (`sys.unraisablehook`), and the next message is heard all the same.
"""

from __future__ import annotations

import builtins
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

from shoal import _ext
from shoal._forward import LOGGING, STDERR, STDOUT, WARNINGS

# By file, where the module of a warning is not known here: what has been shown of it.
_registries: dict[str, dict[Any, Any]] = {}


def hear(message: bytes) -> None:
    """Take a message of a worker."""
    kind, *told = _ext.loads(message)
    _HEARERS[kind](*told)


def _write_out(text: str) -> None:
    _write(sys.stdout, text)


def _write_err(text: str) -> None:
    _write(sys.stderr, text)


def _write(stream: Any, text: str) -> None:
    if stream is not None:
        stream.write(text)
        stream.flush()


def _log(plain: dict[str, Any], added: bytes | None) -> None:
    record = logging.makeLogRecord(plain)
    if added is not None:
        try:
            vars(record).update(_ext.loads(added))
        except Exception as error:
            record.not_received = f"{type(error).__name__}: {error}"
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _warn(told: bytes | None, text: str, category_name: str, filename: str, lineno: int, module: str | None) -> None:
    message, category = _loaded(told, text, category_name)
    known = sys.modules.get("__main__" if module == "__mp_main__" else module or "")
    if known is None:
        registry = _registries.setdefault(filename, {})
    else:
        registry = vars(known).setdefault("__warningregistry__", {})
        module = known.__name__
    try:
        warnings.warn_explicit(message, category, filename, lineno, module, registry)
    except Warning:  # here it is to be an error by now; there it was none
        warnings.showwarning(message, category, filename, lineno)


def _loaded(told: bytes | None, text: str, category_name: str) -> tuple[Any, type[Warning]]:
    if told is not None:
        try:
            message, category = _ext.loads(told)
            return message, category
        except Exception:
            pass
    known = getattr(builtins, category_name, UserWarning)
    category = known if isinstance(known, type) and issubclass(known, Warning) else UserWarning
    return category(text), category


_HEARERS: dict[str, Callable[..., None]] = {
    STDOUT: _write_out,
    STDERR: _write_err,
    LOGGING: _log,
    WARNINGS: _warn,
}
