# SPDX-License-Identifier: BSD-3-Clause
"""Where in an object the part sits that cannot be pickled, in words.

The pickler (``pool/pickle/error_path.c``) collects a step for each level while the exception unwinds: a word for its
kind, the object whose part it is, and which part. Here they become the text that goes in front of the exception's own:

    closure variable 'client' of function 'train' -> attribute '_lock': cannot pickle '_thread.lock' object

Some steps are about how things are pickled and mean nothing to a user: that an instance's state is a dict, that a
method is a call of getattr. They are merged with those that follow. Nothing here fails because of a key's or a class's
own code, and nothing grows with the size of what it names.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from shoal._hints import hint, type_name

Step = tuple[str, Any, Any]

_SHOWN = 10  # steps next to the root, and as many next to the culprit
_REPR = 60  # characters of a key

# What complains of an object's nature. All else that user code raises stays as it is and gets a note.
_COMPLAINT = re.compile(
    r"cannot (be )?pickle|can't (be )?pickle|Cannot pickle|Can't pickle|Can't get local|PickleBuffer can|"
    r"be pickled|to pickle|through inheritance|deep recursion|too deep|non-trivial __cinit__"
)
_COMPLAINING = (TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError)


# ---- names ----


def short(value: object) -> str:
    """A short repr that cannot fail."""
    kind = type(value)
    try:
        if kind is int and isinstance(value, int) and value.bit_length() > 200:
            return f"<int of {value.bit_length()} bits>"
        if kind in (str, bytes) and isinstance(value, (str, bytes)) and len(value) > _REPR:
            return f"{value[:_REPR]!r}..."
        if kind is tuple and isinstance(value, tuple) and len(value) > 4:
            return f"<tuple of {len(value)}>"
        text = repr(value)
    except Exception:
        return f"<{type_name(kind)} object>"
    return text if len(text) <= 2 * _REPR else f"{text[: 2 * _REPR]}..."


def function_name(function: Any) -> str:
    """The qualified name without the functions around it."""
    name = getattr(function, "__qualname__", None)
    return str(name).rpartition("<locals>.")[2] if isinstance(name, str) else "?"


def _a(cls: type) -> str:
    name = type_name(cls)
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def _class(cls: Any) -> str:
    return f"class {type_name(cls)!r}" if isinstance(cls, type) else "the class"


# ---- each kind of step: its text, how many steps it takes, and what a hint may say of it ----


class _Told:
    """A step in words."""

    __slots__ = ("step", "text", "used")

    def __init__(self, text: str, used: int = 1, step: Step = ("", None, None)) -> None:
        self.text = text
        self.used = used
        self.step = step


def _kind(steps: list[Step], at: int) -> str:
    return steps[at][0] if at < len(steps) else ""


def _attribute(owner: object, name: object, used: int) -> _Told:
    if isinstance(owner, types.FunctionType):
        what = "function wrapped by" if name == "__wrapped__" else f"attribute {short(name)} of function"
        return _Told(f"{what} {function_name(owner)!r}", used)
    if isinstance(owner, BaseException) and name in ("__cause__", "__context__"):
        return _Told(f"{str(name).strip('_')} of exception {type_name(type(owner))!r}", used)
    return _Told(f"attribute {short(name)}", used, ("attribute", owner, name))


def _says_its_state(owner: object) -> bool:
    own = getattr(type(owner), "__getstate__", None)
    return own is not None and own is not getattr(object, "__getstate__", None)


def _state(steps: list[Step], at: int) -> _Told:
    owner = steps[at][1]
    if isinstance(owner, functools.partial):
        return _partial_state(steps, at)
    if _says_its_state(owner) and not isinstance(owner, BaseException):
        cls = type_name(type(owner))
        if _kind(steps, at + 1) == "value":
            return _Told(f"{short(steps[at + 1][2])} in the state that {cls}.__getstate__ gives", 2)
        return _Told(f"the state that {cls}.__getstate__ gives")
    if _kind(steps, at + 1) == "value":
        return _attribute(owner, steps[at + 1][2], 2)
    if _kind(steps, at + 1) == "item" and _kind(steps, at + 2) == "value":
        return _attribute(owner, steps[at + 2][2], 3)
    return _Told(f"the state of {_a(type(owner))}" if owner is not None else "the state")


def _partial_state(steps: list[Step], at: int) -> _Told:
    if _kind(steps, at + 1) != "item":
        return _Told("the state of a partial")
    part = steps[at + 1][2]
    if part == 1 and _kind(steps, at + 2) == "item":
        return _Told(f"argument {steps[at + 2][2] + 1} of a partial", 3)
    if part == 2 and _kind(steps, at + 2) == "value":
        return _Told(f"argument {short(steps[at + 2][2])} of a partial", 3)
    if part == 3 and _kind(steps, at + 2) == "value":
        return _attribute(steps[at][1], steps[at + 2][2], 3)
    return _Told("function of a partial" if part == 0 else "arguments of a partial", 2)


_WRAPPERS = (staticmethod, classmethod, functools.cached_property, type(functools.lru_cache(short)))
_PROPERTY_PARTS = ("getter", "setter", "deleter", "docstring")


def _argument(steps: list[Step], at: int) -> _Told:
    _, owner, callable_ = steps[at]
    made = _a(type(owner)) if owner is not None else _a(callable_) if isinstance(callable_, type) else "an object"
    if _kind(steps, at + 1) != "item":
        return _Told(f"the arguments of the call that makes {made}")
    number = steps[at + 1][2]
    special = _special_argument(owner, number, steps, at)
    return special or _Told(f"argument {number + 1} of the call that makes {made}", 2)


def _special_argument(owner: Any, number: int, steps: list[Step], at: int) -> _Told | None:
    if isinstance(owner, (types.MethodType, types.BuiltinMethodType)):
        return _Told(f"self of method {function_name(owner)!r}", 2) if number == 0 else None
    if isinstance(owner, functools.partial):
        return _Told("function of a partial", 2)
    if isinstance(owner, property) and number < len(_PROPERTY_PARTS):
        return _Told(f"{_PROPERTY_PARTS[number]} of a property", 2)
    if isinstance(owner, _WRAPPERS):
        return _Told(f"function of {_a(type(owner)).removesuffix('_wrapper').replace(' _', ' ')}", 2)
    if isinstance(owner, BaseException):
        return _Told(f"argument {number + 1} of exception {type_name(type(owner))!r}", 2)
    fields = getattr(type(owner), "_fields", None) if isinstance(owner, tuple) else None
    if isinstance(fields, tuple) and number < len(fields):
        return _attribute(owner, fields[number], 2)
    inner = _kind(steps, at + 2)
    if number == 0 and inner in ("item", "value") and isinstance(owner, (tuple, types.MappingProxyType)):
        return _Told(f"[{short(steps[at + 2][2])}]", 3)
    if number == 0 and inner == "item" and isinstance(owner, (set, frozenset)):
        return _Told("a member of the set", 3)
    return None


def _keyword(steps: list[Step], at: int) -> _Told:
    _, owner, callable_ = steps[at]
    made = _a(type(owner) if owner is not None else callable_)
    if _kind(steps, at + 1) == "value":
        return _Told(f"argument {short(steps[at + 1][2])} of the call that makes {made}", 2)
    return _Told(f"the arguments of the call that makes {made}")


def _function(steps: list[Step], at: int) -> _Told:
    _, function, name = steps[at]
    of = f"function {function_name(function)!r}"
    inner = steps[at + 1][2] if _kind(steps, at + 1) in ("item", "value") else None
    if inner is None:
        return _Told(f"{name} of {of}")
    if name == "__defaults__":
        return _Told(f"default of parameter {_parameter(function, inner)!r} of {of}", 2)
    if name == "__kwdefaults__":
        return _Told(f"default of parameter {short(inner)} of {of}", 2)
    if name == "__annotations__":
        return _Told(f"annotation of {'its result' if inner == 'return' else short(inner)} in {of}", 2)
    return _Told(f"{name} of {of}")


def _parameter(function: Any, number: int) -> str:
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    first = len(positional) - len(function.__defaults__ or ())
    return positional[first + number] if 0 <= first + number < len(positional) else str(number)


def _class_attribute(steps: list[Step], at: int) -> _Told:
    _, cls, name = steps[at]
    if name in ("__annotations__", "__annotations_cache__") and _kind(steps, at + 1) == "value":
        return _Told(f"annotation of {short(steps[at + 1][2])} in {_class(cls)}", 2)
    return _Told(f"attribute {short(name)} of {_class(cls)}")


# What the arguments of our reconstructors are to a user. An argument that is not named here is told by its number.
_REBUILT: dict[str, tuple[str, ...]] = {
    "_enum": ("metaclass", "name", "bases", "namespace", "mark", "members", "keywords"),
    "_type_parameter": ("kind", "name", "constraints", "keywords"),
    "_view": ("kind", "parts"),
    "_descriptor": ("class",),
}


def _rebuilt(steps: list[Step], at: int) -> _Told:
    _, owner, name = steps[at]
    of = _class(owner) if isinstance(owner, type) else _a(type(owner))
    if _kind(steps, at + 1) != "item":
        return _Told(of)
    number = steps[at + 1][2]
    roles = _REBUILT.get(str(name), ())
    role = roles[number] if number < len(roles) else f"part {number + 1}"
    inner = steps[at + 2][2] if _kind(steps, at + 2) in ("item", "value") else None
    if role == "namespace" and inner is not None:
        return _Told(f"attribute {short(inner)} of {of}", 3)
    if role == "bases" and inner is not None:
        return _Told(_base(owner, inner), 3)
    if role == "members" and inner is not None:
        return _member(owner, inner, steps, at)
    if role in ("keywords", "constraints") and inner is not None:
        return _Told(f"{short(inner)} of {of}", 3)
    if role == "parts" and inner is not None:
        return _Told(f"[{inner}]", 3)
    return _Told(f"{role} of {of}", 2)


def _base(cls: Any, number: int) -> str:
    bases = type.__dict__["__bases__"].__get__(cls)
    base = type_name(bases[number]) if number < len(bases) else str(number)
    return f"base class {base!r} of {_class(cls)}"


def _bases(steps: list[Step], at: int) -> _Told:
    cls = steps[at][1]
    if _kind(steps, at + 1) == "item":
        return _Told(_base(cls, steps[at + 1][2]), 2)
    return _Told(f"bases of {_class(cls)}")


def _class_keyword(steps: list[Step], at: int) -> _Told:
    of = _class(steps[at][1])
    if _kind(steps, at + 1) == "value":
        return _Told(f"keyword {short(steps[at + 1][2])} of {of}", 2)
    return _Told(f"keywords of {of}")


def _member(owner: Any, number: int, steps: list[Step], at: int) -> _Told:
    names = list(owner.__members__)
    name = names[number] if number < len(names) else str(number)
    return _Told(f"value of member {name!r} of {_class(owner)}", 4 if _kind(steps, at + 3) == "item" else 3)


def _module(steps: list[Step], at: int) -> _Told:
    module = getattr(steps[at][1], "__name__", "?")
    if _kind(steps, at + 1) == "value":
        return _Told(f"attribute {short(steps[at + 1][2])} of module {module!r}", 2)
    return _Told(f"module {module!r}")


def _variable(what: str) -> Callable[[list[Step], int], _Told]:
    def told(steps: list[Step], at: int) -> _Told:
        _, function, name = steps[at]
        of = f" of function {function_name(function)!r}" if function is not None else ""
        return _Told(f"{what} {short(name)}{of}", 1, steps[at])

    return told


def _class_of(steps: list[Step], at: int) -> _Told:
    if at + 1 < len(steps) and steps[at + 1][1] is steps[at][2]:
        return _Told("")  # what follows names the class
    return _Told(_class(steps[at][2]))


_TELLERS: dict[str, Callable[[list[Step], int], _Told]] = {
    "text": lambda steps, at: _Told(str(steps[at][2])),
    "gap": lambda steps, at: _Told(f"... {steps[at][2]} more ..."),
    "root": lambda steps, at: _Told(str(steps[at][2])),
    "item": lambda steps, at: _Told(f"[{short(steps[at][2])}]"),
    "value": lambda steps, at: _Told(f"[{short(steps[at][2])}]"),
    "key": lambda steps, at: _Told(f"key {short(steps[at][2])}"),
    "member": lambda steps, at: _Told("a member of the set"),
    "state": _state,
    "arguments": _argument,
    "keywords": _keyword,
    "callable": lambda steps, at: _Told(f"the callable {short(steps[at][2])}"),
    "class": _class_of,
    "closure": _variable("closure variable"),
    "global": _variable("global"),
    "function": _function,
    "class attribute": _class_attribute,
    "rebuilt": _rebuilt,
    "metaclass": lambda steps, at: _Told(f"metaclass of {_class(steps[at][1])}"),
    "bases": _bases,
    "keywords of": _class_keyword,
    "module": _module,
}


# ---- the whole ----


def _task(steps: list[Step]) -> list[Step]:
    """The steps of a pool's call, whose root is (function, arguments, keyword arguments)."""
    part = steps[0][2] if _kind(steps, 0) == "item" else None
    if part == 0:
        return steps[1:] if len(steps) > 1 else [("root", None, "the task's function")]
    if part == 1 and _kind(steps, 1) == "item":
        return [("root", None, f"argument {steps[1][2] + 1} of the task"), *steps[2:]]
    if part == 2 and _kind(steps, 1) == "value":
        return [("root", None, f"argument {short(steps[1][2])} of the task"), *steps[2:]]
    return steps


def _in_words(steps: list[Step]) -> tuple[list[tuple[str, int]], list[Step]]:
    """What is shown, each with the number of steps that it stands for; and the steps as a hint wants them."""
    texts = []
    plain = []
    at = 0
    while at < len(steps):
        teller = _TELLERS.get(steps[at][0])
        told = teller(steps, at) if teller else _Told(short(steps[at][2]))
        texts.append((told.text, steps[at][2] if steps[at][0] == "gap" else 1))
        plain.append(told.step)
        at += told.used
    return [text for text in texts if text[0]], plain


def _without_repeats(texts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """A step that is taken over and over, down a linked list, is told once."""
    told: list[tuple[str, int]] = []
    for (text, _), same in itertools.groupby(texts):
        steps = list(same)
        if len(steps) > 2 and not text.startswith("["):
            steps = [(f"{text} ({len(steps)} times)", len(steps))]
        told += steps
    return told


def _joined(texts: list[tuple[str, int]]) -> str:
    texts = _without_repeats(texts)
    if len(texts) > 2 * _SHOWN + 1:
        missing = sum(steps for _, steps in texts[_SHOWN:-_SHOWN])
        texts = [*texts[:_SHOWN], (f"... {missing} more ...", missing), *texts[-_SHOWN:]]
    path = ""
    subscript = False
    for text, _ in texts:
        sticks = text.startswith("[")
        if not (sticks and subscript):
            path += " -> " if path else ""
            path += "item " if sticks else ""
        path += text
        subscript = sticks
    return path


def path_text(steps: list[Step], after: int, missing: int, root: str, root_index: int) -> tuple[str, list[Step]]:
    """The path in words, and its steps as a hint wants them."""
    if missing:
        steps = [*steps[:after], ("gap", None, missing), *steps[after:]]
    if root == "task":
        steps = _task(steps)
    elif root == "function":
        steps = steps or [("root", None, "the task's function")]
    elif root == "element":
        steps = [("root", None, f"element {root_index} of the input"), *steps]
    texts, plain = _in_words(steps)
    return _joined(texts), plain


def _is_complaint(error: BaseException) -> bool:
    args = error.args
    if len(args) != 1 or type(args[0]) is not str:
        return False
    if isinstance(error, pickle.PicklingError):
        return True
    return isinstance(error, _COMPLAINING) and _COMPLAINT.search(args[0]) is not None


def tell(
    error: BaseException, steps: list[Step], after: int, missing: int, culprit: object, root: str, root_index: int
) -> None:
    """Put the path, and a hint, into the exception that a dump ends with."""
    path, plain = path_text(steps, after, missing, root, root_index)
    if _is_complaint(error):
        message = error.args[0]
        first = message.partition("\n")[0]
        advice = hint(culprit, first, plain, root) if first == message else ""
        text = f"{path}: {message}" if path else message
        error.args = (f"{text}\n  {advice}" if advice else text,)
    elif path and sys.version_info >= (3, 11):
        note = f"while pickling {path}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
