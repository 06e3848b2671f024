# SPDX-License-Identifier: BSD-3-Clause
"""What BUILD does in a pickle: an object is given a state. What that means for functions, arrays and others."""

from __future__ import annotations

from collections.abc import Callable

from shoal._code_names import CodeNames
from shoal._explain_roles import (
    Parts,
    class_body,
    closure,
    dimensions,
    dtype_of,
    each,
    is_first,
    named,
    resolved,
    skip,
    take,
    value_text,
)
from shoal._parts import Part


def built(part: Part, state: Part) -> None:
    """The state that an object is given."""
    halves = state.value if is_first(state, "tuple") and isinstance(state.value, list) else None
    special = _STATES.get(part.name) or _STATES.get(part.kind)
    if special is not None and halves is not None and special(part, state, halves):
        return
    word = "attribute"
    if is_first(state, "dict"):
        _attributes(part, word, state)
    elif halves is not None and len(halves) == 2 and all(half.kind in ("None", "dict") for half in halves):
        part.own += state.own
        for half in halves:
            _attributes(part, word, half)
    elif state.kind == "None":
        part.own += state.own
    else:
        take(part, state, "state")


def _attributes(part: Part, word: str, state: Part) -> None:
    if part.kind == "function":
        _function_attributes(part, state)
    elif part.kind == "class":
        class_body(part, word, state)
    else:
        named(part, word, state)


def _function_attributes(part: Part, state: Part) -> None:
    if not is_first(state, "dict"):
        skip(part, "attributes", state)
        return
    part.own += state.own
    names = part.value if isinstance(part.value, CodeNames) else None
    for child in state.children:
        key = child.key.value if child.key is not None else ""
        text = resolved(child).value
        if key == "__defaults__" and is_first(child, "tuple"):
            part.own += child.own
            first = len(names.arguments) - len(child.value) if names else 0
            for number, default in enumerate(child.value, first):
                name = repr(names.arguments[number]) if names and 0 <= number < len(names.arguments) else number + 1
                take(part, default, f"default of {name}")
        elif key == "__kwdefaults__":
            named(part, "default of", child)
        elif key == "__annotations__":
            named(part, "annotation of", child)
        elif key == "__globals__":
            named(part, "global", child)
        elif key == "__closure__":
            closure(part, "closure variable", child)
        elif key == "__wrapped__":
            take(part, child, "wrapped function")
        elif key in ("__qualname__", "__module__") and isinstance(text, str):
            part.name, part.module = (text, part.module) if key == "__qualname__" else (part.name, text)
            part.own += child.own
        elif isinstance(key, str) and key.startswith("__") and not child.children and child.own < 100:
            part.own += child.own  # its name, its docstring, nothing
        else:
            take(part, child, f"attribute {value_text(child.key)}" if child.key else "attribute")


def _array_state(part: Part, state: Part, halves: Parts) -> bool:
    if len(halves) != 5:
        return False
    part.name, part.detail = "numpy.ndarray", f"{dtype_of(halves[2])} {dimensions(halves[1])}"
    part.own += state.own
    for half in halves[:4]:
        skip(part, "dtype", half)
    take(part, halves[4], "data")
    return True


def _dtype_state(part: Part, state: Part, halves: Parts) -> bool:
    part.own += state.own
    for half in halves:
        skip(part, "fields", half)
    return True


def _partial_state(part: Part, state: Part, halves: Parts) -> bool:
    if len(halves) != 4:
        return False
    part.own += state.own
    skip(part, "function", halves[0])
    each(part, "argument", halves[1])
    named(part, "argument", halves[2])
    named(part, "attribute", halves[3])
    return True


_STATES: dict[str, Callable[[Part, Part, Parts], bool]] = {
    "array": _array_state,
    "numpy.dtype": _dtype_state,
    "partial": _partial_state,
}
