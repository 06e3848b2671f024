# SPDX-License-Identifier: BSD-3-Clause
"""The end of reading a pickle as a tree: what is taken off the stack, and the tree's sizes and order."""

from __future__ import annotations

from shoal._explain_roles import Parts, atom_name, take
from shoal._parts import CONTAINERS, Part

_STEPS = 3  # of the way to what is shared


def owner_of_items(into: Part, under: Part | None) -> Part:
    """Whose items these are: those of a namespace belong to the function that needs them."""
    if into.role in ("namespace", "module namespace"):
        if under is not None and under.role == "function":
            return under
        if into.role == "module namespace" and isinstance(into.value, Part):
            return into.value
    return into


def dropped(part: Part, into: Part | None) -> bool:
    """A part that was made for what it does: counted for what that was. False: it is nobody's."""
    if part.kind == "filled" and part.same_as is not None:
        part.same_as.own += part.own
        return True
    if part.same_as is not None:
        return False
    if part.role == "module namespace" and isinstance(part.value, Part):
        part.value.own += part.own
        return True
    if part.role == "module" and part.by == "reference" and into is not None:
        take(into, part, "submodule that it uses")
        return True
    first = part.value[0] if isinstance(part.value, list) and part.value else None
    owner = first.same_as if isinstance(first, Part) and first.same_as is not None else into
    if owner is None or owner is part:
        return False
    take(owner, part, f"call of {part.name}" if part.kind == "object" else "made on the way")
    return True


def settle(root: Part) -> None:
    """Sizes, largest first; what was needed for reading only is dropped."""
    order: Parts = []
    seen: set[int] = set()
    root.name = root.name or atom_name(root)
    waiting = [root]
    seen.add(id(root))
    while waiting:
        part = waiting.pop()
        order.append(part)
        for number, child in enumerate(part.children):
            if not child.name:
                child.name = atom_name(child)
            if id(child) in seen:  # in a damaged stream, or a tuple that contains itself
                mention = Part(child.kind, name=child.name, offset=child.offset)
                mention.by, mention.same_as, mention.why = "shared", child, child.why
                part.children[number] = child = mention  # type: ignore[index]
            seen.add(id(child))
            waiting.append(child)
    for part in reversed(order):
        part.size = part.own + part.folded_size
        if part.children:
            children = [_spliced(child) for child in part.children]
            part.size += sum(child.size for child in children)
            children.sort(key=lambda child: child.size, reverse=True)
            part.children = children
        if part.kind in CONTAINERS and part.by != "shared":
            keys = sum(child.why == "key" for child in part.children)
            part.detail = f"of {len(part.children) - keys + part.folded:,}"
    for part in order:
        if part.value is not None:
            part.value = None
        if part.key is not None:
            part.key = None
    _tell_places(root)


def _tell_places(root: Part) -> None:
    """Of what is shared: where it is told."""
    above: dict[int, Part] = {}
    shared: Parts = []
    for part in root.walk():
        for child in part.children:
            above[id(child)] = part
        if part.same_as is not None:
            shared.append(part)
    for part in shared:
        steps: list[str] = []
        there = part.same_as
        while there is not None and len(steps) < _STEPS:
            if there.why:
                steps.append(there.why)
            there = above.get(id(there))
        part.reason = " of ".join(steps) or "the whole"


def _spliced(cell: Part) -> Part:
    """A closure variable is its content; the cell is a matter of how it travels."""
    if cell.kind != "cell" or len(cell.children) != 1 or cell.by == "shared":
        return cell
    content = cell.children[0]
    content.why = cell.why
    content.own += cell.own
    content.size += cell.own
    return content
