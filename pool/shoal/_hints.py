# SPDX-License-Identifier: BSD-3-Clause
"""What to do about an object that cannot be pickled, by its type.

Types are known by the names of their classes and of their bases', so that nothing is imported to tell them.
"""

from __future__ import annotations

import re
import sys
import types

Step = tuple[str, object, object]

LOCK = "a lock guards the memory of one process"
THREAD = "a thread belongs to the process that started it"
SOCKET = "a connection belongs to the process that opened it"
FILE = "an open file belongs to its process; send its path, or what was read from it"
FRAME = "a frame or traceback belongs to a running thread; send its text (traceback.format_exception) instead"
WEAK = "a weak reference is about the memory of one process; send what it refers to, and refer weakly again there"
DATABASE = "a database connection belongs to the process that opened it"
GENERATOR = "a running generator cannot be moved; send a list of what it gives, or the function and its arguments"
COROUTINE = "a running coroutine cannot be moved; send the function and its arguments, and await it there"
LOOP = "an event loop and what waits in it belong to one process"
POINTER = "a pointer means nothing in another process; send what it points to (bytes, or an array)"
CONTEXT = "a context variable is found by the module that makes it; import it from there"
MATCH = "a match cannot be pickled; send its groups (match.groupdict(), match.groups())"
HASH = "a hash under way cannot be pickled; send the data, or the digest"
STREAM = "a (de)compressor under way cannot be pickled; send the data"
PROCESS = "a child process belongs to its parent; send what is needed of it (its pid, its output)"
POOL = "a pool or executor belongs to the process that made it"
INHERITED = "it can only be inherited: hand it over when the workers start (the pool's initializer and initargs)"
MAPPED = "a memory map belongs to its process; send the file's path, or bytes(map)"
DEVICE = "a handle of a device belongs to its process; move the data to the host first (tensor.cpu(), numpy)"
MOCK = "a mock is made up in one process; send a small class of your own instead"
CAPSULE = "a handle of a C library means nothing in another process"
MODULE = "import it where it is used"
LOCAL = "only code that can be imported by its name goes this way; define it at the top of a module"

# Full names of classes, as the class itself says them; a trailing * stands for any ending.
BY_TYPE = {
    "_thread.lock": LOCK,
    "_thread.RLock": LOCK,
    "_thread._local": "values of one thread; send the value itself",
    "threading.Condition": LOCK,
    "threading.Thread": THREAD,
    "_thread._ThreadHandle": THREAD,
    "socket.socket": SOCKET,
    "_socket.socket": SOCKET,
    "ssl.*": SOCKET,
    "_ssl.*": SOCKET,
    "http.client.*": SOCKET,
    "selectors.*": SOCKET,
    "select.*": SOCKET,
    "_io._IOBase": FILE,
    "tempfile._TemporaryFile*": FILE,
    "builtins.generator": GENERATOR,
    "builtins.coroutine": COROUTINE,
    "builtins.async_generator": GENERATOR,
    "builtins.frame": FRAME,
    "builtins.traceback": FRAME,
    "weakref.*": WEAK,
    "builtins.weakref": WEAK,
    "builtins.weakproxy": WEAK,
    "builtins.weakcallableproxy": WEAK,
    "builtins.module": MODULE,
    "builtins.PyCapsule": CAPSULE,
    "sqlite3.*": DATABASE,
    "psycopg*": DATABASE,
    "pymysql.*": DATABASE,
    "MySQLdb.*": DATABASE,
    "mysql.*": DATABASE,
    "sqlalchemy.engine*": DATABASE,
    "sqlalchemy.orm.session*": DATABASE,
    "pymongo.*": DATABASE,
    "redis.*": DATABASE,
    "duckdb.*": DATABASE,
    "_duckdb.*": DATABASE,
    "oracledb.*": DATABASE,
    "pyodbc.*": DATABASE,
    "_ctypes.*": POINTER,
    "_contextvars.*": CONTEXT,
    "builtins.ContextVar": CONTEXT,
    "builtins.Context": CONTEXT,
    "builtins.Token": CONTEXT,
    "re.Match": MATCH,
    "_hashlib.*": HASH,
    "_hmac.*": HASH,
    "_md5.*": HASH,
    "_sha*": HASH,
    "_blake2.*": HASH,
    "zlib.*": STREAM,
    "_bz2.*": STREAM,
    "_lzma.*": STREAM,
    "subprocess.Popen": PROCESS,
    "mmap.mmap": MAPPED,
    "asyncio.*": LOOP,
    "_asyncio.*": LOOP,
    "uvloop.*": LOOP,
    "multiprocessing.pool.*": POOL,
    "multiprocessing.synchronize.*": INHERITED,
    "multiprocessing.queues.*": INHERITED,
    "multiprocessing.*": PROCESS,
    "concurrent.futures.*": POOL,
    "shoal.pool.*": POOL,
    "shoal.executor.*": POOL,
    "shoal.future.*": POOL,
    "shoal._ext.*": POOL,
    "unittest.mock.*": MOCK,
    "torch.*": DEVICE,
    "cupy*": DEVICE,
    "numba.cuda*": DEVICE,
    "pycuda.*": DEVICE,
    "jaxlib.*": DEVICE,
    "tensorflow.*": DEVICE,
}

# Where there is no culprit at hand, or its type says nothing: by the text of the complaint.
BY_TEXT = (
    (r"[Cc]an't (pickle|get) local object", LOCAL),
    (r"through inheritance", INHERITED),
    (r"ctypes objects containing pointers", POINTER),
    (r"it's not the same object", "its name leads to another object now: it was redefined, or a decorator hides it"),
    (r"PicklingError.*(closed|tty)|Cannot pickle (closed )?files|Cannot pickle standard input", FILE),
    (r"non-trivial __cinit__", "a class made by Cython says itself how it is pickled: it needs a __reduce__"),
)

_SMALL_FIX = "define __getstate__ or __reduce__, or register a reducer with copyreg.pickle"


def type_name(cls: type) -> str:
    """The class's qualified name, whatever its metaclass makes of it."""
    return str(type.__dict__["__qualname__"].__get__(cls))


def full_name(cls: type) -> str:
    """The class's name with its module's in front."""
    module = type.__dict__["__module__"].__get__(cls)
    return f"{module}.{type_name(cls)}"


def _of_type(cls: type) -> str:
    """The most exact entry for the class itself; then those of its bases."""
    for base in type.__dict__["__mro__"].__get__(cls)[:-1]:
        name = full_name(base)
        if name in BY_TYPE:
            return BY_TYPE[name]
        matching = [key for key in BY_TYPE if key.endswith("*") and name.startswith(key[:-1])]
        if matching:
            return BY_TYPE[max(matching, key=len)]
    return ""


def _by_text(message: str) -> str:
    return next((hint for pattern, hint in BY_TEXT if re.search(pattern, message)), "")


def _is_somebody_elses(cls: type) -> bool:
    """A class of the standard library or of Shoal: the user cannot change it."""
    module = type.__dict__["__module__"].__get__(cls)
    top = str(module).partition(".")[0]
    return (top in sys.stdlib_module_names and top != "__main__") or top == "shoal"


def _remedy(step: Step, root: str) -> str:
    """Where it is reached through: the place at which it can be left out."""
    kind, owner, name = step
    if kind == "attribute" and not isinstance(owner, tuple) and not _is_somebody_elses(type(owner)):
        cls = type_name(type(owner))
        return f"leave {name!r} out in {cls}.__getstate__ and make it again in __setstate__"
    if kind in ("closure", "global") and isinstance(owner, types.FunctionType):
        return f"make it inside of {owner.__name__!r}, or in the pool's initializer"
    if root == "result":
        return "leave it out of the result"
    return "make it where it is used, in the task or in the pool's initializer"


def _outermost(culprit: object, steps: list[Step]) -> tuple[str, Step]:
    """The reason, and the step at which the user can do something: out of an Event's lock, say, to the Event."""
    reason = _of_type(type(culprit))
    last: Step = ("", None, None)
    for step in reversed(steps):
        last = step
        if step[0] != "attribute" or not _is_somebody_elses(type(step[1])):
            break
        reason = _of_type(type(step[1])) or reason
        last = ("", None, None)
    return reason, last


def _advice(reason: str, step: Step, root: str) -> str:
    return reason if re.search("[;:]", reason) else f"{reason}: {_remedy(step, root)}"


def hint(culprit: object, message: str, steps: list[Step], root: str) -> str:
    """One line on what to do, or an empty string where nothing is known.

    Parameters
    ----------
    culprit : object
        The innermost object that could not be pickled, or None.
    message : str
        What was complained of.
    steps : list of tuple
        What leads to it: kind, whose part it is, and the part's name.
    root : str
        "result" if it is that of a task.
    """
    if isinstance(culprit, type) and _of_type(culprit):
        # Before protocol 2 an object is made of its class, which no module has a name for.
        step = next((step for step in reversed(steps) if step[0]), ("", None, None))
        return _advice(_of_type(culprit), step, root)
    if culprit is not None and not isinstance(culprit, (type, types.FunctionType)):
        reason, step = _outermost(culprit, steps)
        reason = reason or _by_text(message)
        if reason:
            return _advice(reason, step, root)
        if not re.search(r"an(no|')t pickle '", message):  # a name that cannot be found, say
            return ""
        if type(culprit).__module__ == "builtins":
            return _remedy(step, root)
        return f"{_remedy(step, root)}; or, if it can be made again: {_SMALL_FIX} for {type_name(type(culprit))}"
    return _by_text(message)
