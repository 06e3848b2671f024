# SPDX-License-Identifier: BSD-3-Clause
"""What an argument of a call in a pickle becomes in the tree: a part, its parts, a name, or nothing worth telling.

Each role is called with the part that the call makes, a word, and the argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from shoal._code_names import CodeNames, code_names
from shoal._parts import ATOMS, Part

QUOTED = 40  # characters of a str that are shown
PASSED = "others"  # the kind of a part that stands for plain values which were not looked at
_SMALL = 200  # bytes: a shape, a name, a few numbers

Parts = list[Part]


def quoted(text: str) -> str:
    """A short repr of a str."""
    return repr(text) if len(text) <= QUOTED else f"{text[:QUOTED]!r}…"


def value_text(part: Part) -> str:
    """A key, in a word."""
    return part.name or atom_name(part) or part.kind


def atom_name(part: Part) -> str:
    """The name of a plain value; it is made when it is asked for."""
    if part.kind not in ATOMS or part.value is None:
        return ""
    return quoted(part.value) if part.kind == "str" else repr(part.value)


def resolved(part: Part) -> Part:
    """The part itself, where this is a mention of it."""
    while part.same_as is not None:
        part = part.same_as
    return part


def reference(module: str, name: str) -> Part:
    """What is found by its name."""
    full = f"{module}.{name}"
    part = Part("reference", name=name if module == "builtins" else full, value=full)
    part.by = "reference"
    part.module = module
    return part


def as_tuple(items: Parts) -> Part:
    """Arguments that the stream has as a sequence on the stack."""
    part = Part("tuple", value=items)
    part.children = items[:]
    return part


def is_first(part: Part, kind: str) -> bool:
    return part.kind == kind and part.same_as is None


# ---- roles: how an argument becomes a part ----


def take(part: Part, item: Part, why: str) -> None:
    item.why = why
    part.add(item)


def one(part: Part, word: str, item: Part) -> None:
    take(part, item, word)


def usual(*names: str) -> Callable[[Part, str, Part], None]:
    """What is told only if it is not the usual: a metaclass that is not type, a base that is not object."""

    def told(part: Part, word: str, item: Part) -> None:
        if resolved(item).value in names and not item.children:
            part.own += item.own
        else:
            take(part, item, word)

    return told


def small(item: Part, limit: int = _SMALL) -> int:
    """The bytes of a part that is small and brings nothing along; -1 if it is not."""
    size = 0
    for part in item.walk():
        size += part.own + part.folded_size
        if size > limit or part.by == "value" or (part.kind == "object" and limit == _SMALL):
            return -1
    return size


def skip(part: Part, word: str, item: Part) -> None:
    """Of no interest, unless it is more than a few values."""
    size = item.own if not item.children else small(item)
    if size < 0:
        take(part, item, word)
    else:
        part.own += size


def text_for(attribute: Literal["name", "module"]) -> Callable[[Part, str, Part], None]:
    """What the part is called, or where it is from."""

    def told(part: Part, word: str, item: Part) -> None:
        text = resolved(item).value
        if isinstance(text, str):
            setattr(part, attribute, text)
        part.own += item.own

    return told


name_of, module_of = text_for("name"), text_for("module")


def absorb(part: Part, container: Part) -> None:
    """What a container takes itself, and what was only counted in it, is the part's. Its children are left to tell."""
    part.own += container.own
    part.folded += container.folded
    part.folded_size += container.folded_size


def each(part: Part, word: str, item: Part) -> None:
    """The elements of a tuple or list, all by the same word."""
    if item.same_as is not None or item.kind not in ("tuple", "list"):
        skip(part, word, item)
        return
    absorb(part, item)
    for child in item.children:
        UNLESS_USUAL(part, word, child)


UNLESS_USUAL = usual("builtins.type", "builtins.object")


def named(part: Part, word: str, item: Part) -> None:
    """The values of a dict, by their keys."""
    if not is_first(item, "dict"):
        skip(part, word, item)
        return
    absorb(part, item)
    for child in item.children:
        take(part, child, f"{word} {value_text(child.key)}".strip() if child.key is not None else f"{word}'s key")


def contents(part: Part, word: str, item: Part) -> None:
    """What is added to a container or an object that was made before: a list or dict of it, or tuples of these."""
    if is_first(item, "dict"):
        named(part, word, item)
    elif is_first(item, "tuple"):
        part.own += item.own
        for inner in item.value or ():
            contents(part, word, inner)
    else:
        each(part, word, item)


def members(part: Part, word: str, item: Part) -> None:
    """Of an enum: a list of (name, value), some with what they are made from."""
    if not is_first(item, "list"):
        skip(part, word, item)
        return
    absorb(part, item)
    for child in item.children:
        pair = child.value
        if is_first(child, "tuple") and isinstance(pair, list) and len(pair) >= 2:
            pair[1].own += child.own + pair[0].own
            take(part, pair[1], f"{word} {value_text(resolved(pair[0]))}")
            for other in pair[2:]:
                take(part, other, f"{word} {value_text(resolved(pair[0]))} is made from")
        else:
            take(part, child, word)


def _key_and_text(child: Part) -> tuple[Any, str | None]:
    """Of an item of a dict: its key, and its value if that is a str."""
    text = resolved(child).value
    return child.key.value if child.key is not None else None, text if isinstance(text, str) else None


def _by_key(word: str, child: Part, otherwise: str) -> str:
    return otherwise if child.key is None else f"{word} {value_text(child.key)}"


def class_body(part: Part, word: str, item: Part) -> None:
    """The attributes of a class; some of them name it."""
    if not is_first(item, "dict"):
        skip(part, word, item)
        return
    part.own += item.own
    for child in item.children:
        key, text = _key_and_text(child)
        if key == "__qualname__" and text is not None:
            part.name, part.own = text, part.own + child.own
        elif key == "__module__" and text is not None:
            part.module, part.own = text, part.own + child.own
        else:
            take(part, child, _by_key("attribute", child, word))


def code(part: Part, word: str, item: Part) -> None:
    code = resolved(item)
    names = code.value if isinstance(code.value, CodeNames) else code_names(code.value)
    if item.kind == "bytes" and item.same_as is None:
        item.kind, item.name = "code", ""
    take(part, item, word)
    if names is not None:
        part.value = names
        part.name = names.qualname
        part.detail = f"({names.place})"


def code_bytes(part: Part, word: str, item: Part) -> None:
    names = code_names(resolved(item).value)
    part.own += item.own
    if names is not None:
        part.value, part.name, part.detail = names, names.qualname, f"({names.place})"


def namespace(part: Part, word: str, item: Part) -> None:
    """The globals of a function: what it uses is added later, on its own account."""
    space = resolved(item)
    part.role = "function"
    if item.same_as is not None:
        part.own += item.own
    else:
        item.kind, item.role = "namespace", "namespace"
        kept: Parts = []
        for child in item.children:
            key, text = _key_and_text(child)
            if key == "__name__" and text is not None:
                item.module = text
            if child.children or child.size > 200:
                kept.append(child)
            else:
                item.own += child.own
        item.children = kept
        for child in kept:
            child.why = _by_key("global", child, word)
        take(part, item, word)
    part.module = space.module


def module_namespace(part: Part, word: str, item: Part) -> None:
    """The attributes of a module: its functions' globals, which may have been there before it."""
    space = resolved(item)
    part.own += item.own
    if item.same_as is None:
        item.own = 0
        for child in item.children:
            take(part, child, _by_key(word, child, word))
        item.children = []
    space.kind, space.role, space.value, space.module = "namespace", "module namespace", part, part.name


def closure(part: Part, word: str, item: Part) -> None:
    names = part.value.free if isinstance(part.value, CodeNames) else ()
    cells = item.value if is_first(item, "tuple") else None
    if cells is None:
        skip(part, word, item)
        return
    part.own += item.own
    for number, cell in enumerate(cells):
        take(part, cell, f"{word} {names[number]!r}" if number < len(names) else f"{word} {number + 1}")


def dtype_of(part: Part) -> str:
    """Of a numpy dtype."""
    return resolved(part).detail or "?"


def dimensions(part: Part) -> str:
    """Of a tuple of numbers: (1000, 10)."""
    sizes = resolved(part).value
    if not isinstance(sizes, list):
        return "(?)"
    inner = ", ".join(str(resolved(size).value) for size in sizes)
    return f"({inner},)" if len(sizes) == 1 else f"({inner})"
