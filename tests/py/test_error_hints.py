# SPDX-License-Identifier: BSD-3-Clause
"""The second line of a pickling error: what to do about an object of that type."""

import ctypes
import re
import socket
import sqlite3
import sys
import threading

import pytest

from shoal._hints import BY_TYPE
from test_error_paths import LOCK, Client, Pair, caught, closure


class Connection:
    """Of some library: refuses by itself."""

    def __reduce__(self):
        raise TypeError("cannot pickle 'Connection' object")


HINTS = {
    "lock": (lambda: threading.Lock(), "lock guards"),
    "rlock": (lambda: threading.RLock(), "lock guards"),
    "event": (lambda: threading.Event(), "lock guards"),
    "thread": (lambda: threading.Thread(), "thread belongs"),
    "local": (lambda: threading.local(), "values of one thread"),
    "socket": (lambda: socket.socket(), "connection belongs"),
    "file": (lambda: open("/dev/null", "wb"), "send its path"),
    "text file": (lambda: open("/dev/null", "w"), "send its path"),
    "generator": (lambda: (x for x in ()), "running generator"),
    "frame": (lambda: sys._getframe(), "frame or traceback"),
    "database": (lambda: sqlite3.connect(":memory:"), "database connection"),
    "pointer": (lambda: ctypes.pointer(ctypes.c_int(1)), "pointer means nothing"),
    "match": (lambda: re.match("a", "a"), "send its groups"),
    "no entry": (Connection, "copyreg.pickle"),
}


# Those that pickle itself takes before protocol 2, to fail when they are loaded.
TAKEN_BEFORE_2 = {"thread", "socket", "database", "match"}


@pytest.mark.parametrize("protocol", [0, 1, 5])
@pytest.mark.parametrize("name", HINTS)
def test_the_second_line_says_what_to_do(name, protocol):
    make, words = HINTS[name]
    if protocol < 2 and name in TAKEN_BEFORE_2:
        pytest.skip("pickle takes it in this protocol")
    thing = make()
    try:
        error = caught([thing], protocol, kind=Exception)
    finally:
        if hasattr(thing, "close"):
            thing.close()
    first, _, advice = str(error).partition("\n  ")
    assert first.startswith("item [0]")
    assert words in advice
    assert "\n" not in advice


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Client(LOCK), "leave '_lock' out in Client.__getstate__"),
        (lambda: Client(threading.Event()), "leave '_lock' out in Client.__getstate__"),
        (lambda: closure(LOCK), "make it inside of 'train', or in the pool's initializer"),
        (lambda: Pair(1, LOCK), "in the task or in the pool's initializer"),
    ],
)
def test_the_hint_names_the_place_where_it_can_be_left_out(make, words):
    assert words in str(caught(make())).partition("\n")[2]


def test_every_hint_is_one_line():
    assert all(text and "\n" not in text for text in BY_TYPE.values())
