# SPDX-License-Identifier: BSD-3-Clause
"""What the calls in a pickle mean: which argument of which reconstructor is what to a user.

`SHAPES` is the one table of it: for our own reconstructors (`shoal._rebuild`), for those of cloudpickle and dill, and
for some of the standard library and of numpy. A call that is not there is an object with its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from shoal._code_names import CodeNames
from shoal._explain_roles import (
    UNLESS_USUAL,
    Parts,
    class_body,
    closure,
    code,
    code_bytes,
    contents,
    dimensions,
    dtype_of,
    each,
    is_first,
    members,
    module_namespace,
    module_of,
    name_of,
    named,
    namespace,
    one,
    reference,
    resolved,
    skip,
    take,
)
from shoal._explain_state import built
from shoal._parts import By, Part


class Role(NamedTuple):
    """What one argument is."""

    how: Callable[[Part, str, Part], None]
    word: str = ""


class Shape(NamedTuple):
    """What a call makes."""

    kind: str
    roles: tuple[Role, ...]
    by: By = ""
    then: Callable[[Part, Parts], Part | None] | None = None  # last, with all arguments; may give another part


# ---- calls that are more than their arguments ----


def _found_type(part: Part, items: Parts) -> Part | None:
    found = reference("types", part.name)
    found.own = part.own
    return found


def _imported(part: Part, items: Parts) -> Part | None:
    part.role = "module"
    return None


def _got_attribute(part: Part, items: Parts) -> Part | None:
    """getattr(object, name): a nested name, a bound method, or a module's namespace."""
    if len(items) != 2 or not isinstance(resolved(items[1]).value, str):
        return None
    whole, name = resolved(items[0]), str(resolved(items[1]).value)
    if whole.kind == "reference" and not whole.children:
        module, _, qualname = str(whole.value).rpartition(".")
        found = reference(module, f"{qualname}.{name}")
        found.own = part.own + items[0].own + items[1].own
        return found
    part.name = name
    part.own += items[1].own
    if whole.role == "module" and name == "__dict__":
        part.kind, part.role, part.value = "namespace", "module namespace", whole
        part.module = whole.name
        part.own += items[0].own
    else:
        part.kind = "attribute" if whole.kind == "class" else "bound method"
        take(part, items[0], "of" if whole.kind == "class" else "self")
    return None


def _array_from_buffer(part: Part, items: Parts) -> Part | None:
    """numpy: _frombuffer(buffer, dtype, shape, order)."""
    part.name = "numpy.ndarray"
    if len(items) >= 3:
        part.detail = f"{dtype_of(items[1])} {dimensions(items[2])}"
    return None


_DTYPES = {"f": "float", "i": "int", "u": "uint", "c": "complex"}


def _data_type(part: Part, items: Parts) -> Part | None:
    """numpy: dtype(code, align, copy), and then a state that says the byte order and fields."""
    part.name = "numpy.dtype"
    code = str(resolved(items[0]).value).lstrip("<=|") if items else ""
    kind, size = _DTYPES.get(code[:1]), code[1:]
    part.detail = f"{kind}{8 * int(size)}" if kind and size.isascii() and size.isdigit() and len(size) < 4 else code
    return None


def _tensor(part: Part, items: Parts) -> Part | None:
    part.name = "torch.Tensor"
    part.detail = dimensions(items[2]) if len(items) > 2 else ""
    return None


def _code_object(part: Part, items: Parts) -> Part | None:
    """types.CodeType(...): 18 arguments from Python 3.11 on, 16 before."""
    at = {18: (11, 12, 10, 13, 16), 16: (11, 11, 10, 12, 14)}.get(len(items))
    if at is not None:
        name, qualname, filename, line, free = (resolved(items[number]).value for number in at)
        texts = tuple(str(resolved(item).value) for item in free) if isinstance(free, list) else ()
        local = resolved(items[9]).value
        names = tuple(str(resolved(item).value) for item in local) if isinstance(local, list) else ()
        count, keywords = resolved(items[0]).value, resolved(items[2]).value
        if isinstance(count, int) and isinstance(keywords, int):
            part.value = CodeNames(str(qualname or name), str(filename), line or 0, texts, names[:count])
            part.name, part.detail = part.value.qualname, f"({part.value.place})"
    for item in items:
        skip(part, "constant" if item.kind == "tuple" else "bytecode", item)
    return None


NAME = Role(name_of)
MODULE = Role(module_of)
UNSHOWN = Role(skip)
TARGET = Role(skip, "target")  # the call completes this argument


def _state(part: Part, word: str, item: Part) -> None:
    built(part, item)


_FUNCTION = (Role(code, "code"), Role(namespace, "namespace"))
_CELLS = Role(closure, "closure variable")
_BODY = Role(class_body, "attribute")
_BASES = Role(each, "base class")
_CLASS = (Role(UNLESS_USUAL, "metaclass"), NAME, _BASES, _BODY)

_OURS: dict[str, Shape] = {
    "_function": Shape("function", (*_FUNCTION, _CELLS), "value"),
    "_code": Shape("code", (Role(code_bytes), Role(each, "constant")), "value"),
    "_cell": Shape("cell", (Role(one, "content"),)),
    "_fill_cell": Shape("cell", (TARGET, Role(one, "content"))),
    "_put_items": Shape("array", (TARGET, UNSHOWN, Role(each, "item"))),
    "_shared": Shape("handle", (UNSHOWN, Role(one, "content"), UNSHOWN, UNSHOWN, Role(each, "contained handle"))),
    "_shared_at": Shape("handle", (*[UNSHOWN] * 5, Role(each, "contained handle"))),
    "_find_shared": Shape("handle", (UNSHOWN, UNSHOWN, UNSHOWN)),
    "_unpack": Shape("content", (Role(one, "content"), UNSHOWN)),
    "_class": Shape("class", (*_CLASS, UNSHOWN, Role(named, "keyword")), "value"),
    "_fill_class": Shape("class", (TARGET, _BODY, Role(each, "registered class"))),
    "_enum": Shape("class", (*_CLASS, UNSHOWN, Role(members, "member"), Role(named, "keyword")), "value"),
    "_field": Shape("field", (UNSHOWN, NAME, Role(one, "type"), Role(one, "default"))),
    "_dataclass_params": Shape("object", (UNSHOWN,)),
    "_type_parameter": Shape(
        "type parameter", (UNSHOWN, NAME, Role(each, "constraint"), Role(named, ""), MODULE, UNSHOWN), "value"
    ),
    "_fill_type_parameter": Shape("type parameter", (TARGET, Role(named, ""))),
    "_module": Shape("module", (NAME, Role(module_namespace, "attribute"), Role(one, "class")), "value", _imported),
    "_fill_module": Shape("module", (TARGET, Role(named, "attribute"))),
    "_import": Shape("module", (NAME,), "reference", _imported),
    "_builtin_type": Shape("reference", (NAME,), "reference", _found_type),
    "_view": Shape("view", (NAME, Role(each, "item"))),
    "_descriptor": Shape("descriptor", (Role(one, "of"), NAME)),
    "_descriptor_of_kind": Shape("descriptor", (Role(one, "kind"), UNSHOWN, Role(each, "function"))),
    "_content": Shape("content", (TARGET, Role(contents, "item"))),
    "_cached_property": Shape("cached_property", (UNSHOWN, Role(one, "function"))),
    "_lru_cache": Shape("lru_cache", (Role(one, "function"), UNSHOWN, UNSHOWN), "value"),
    "_single_dispatch": Shape("singledispatch", (Role(one, "default"),), "value"),
    "_fill_single_dispatch": Shape("singledispatch", (TARGET, Role(contents, "registered"))),
    "_fill_weak_set": Shape("object", (TARGET, Role(contents, "member"))),
    "_system_record": Shape("record", (NAME, Role(each, "field"), UNSHOWN)),
    "_fill_exception": Shape("object", (TARGET, Role(contents, "attribute"))),
    "_memory_file": Shape("file", (NAME, Role(one, "content"), UNSHOWN), "value"),
    "_new_type": Shape("type", (NAME, Role(one, "supertype"), MODULE, UNSHOWN, UNSHOWN), "value"),
    "_type_alias": Shape("type alias", (NAME, MODULE, Role(each, "type parameter"), UNSHOWN, UNSHOWN), "value"),
    "_fill_type_alias": Shape("type alias", (TARGET, Role(contents, "value"))),
    "_forward_reference": Shape("forward reference", (NAME, UNSHOWN, MODULE, UNSHOWN)),
}

_CLOUDPICKLES: dict[str, Shape] = {
    "_make_function": Shape("function", (*_FUNCTION, UNSHOWN, UNSHOWN, UNSHOWN), "value"),
    "_function_setstate": Shape("function", (TARGET, Role(_state))),
    "_make_cell": Shape("cell", (Role(one, "content"),)),
    "_make_empty_cell": Shape("cell", ()),
    "_make_skeleton_class": Shape(
        "class", (Role(UNLESS_USUAL, "metaclass"), NAME, _BASES, _BODY, UNSHOWN, UNSHOWN), "value"
    ),
    "_class_setstate": Shape("class", (TARGET, Role(_state))),
    "_make_skeleton_enum": Shape(
        "class", (_BASES, NAME, UNSHOWN, Role(named, "member"), MODULE, UNSHOWN, UNSHOWN), "value"
    ),
    "_make_typevar": Shape(
        "type parameter", (NAME, Role(one, "bound"), Role(each, "constraint"), UNSHOWN, UNSHOWN, UNSHOWN), "value"
    ),
    "_builtin_type": Shape("reference", (NAME,), "reference", _found_type),
    "subimport": Shape("module", (NAME,), "reference", _imported),
    "dynamic_subimport": Shape("module", (NAME, Role(named, "attribute")), "value", _imported),
    "_make_dict_keys": Shape("view", (Role(each, "item"),)),
    "_make_dict_values": Shape("view", (Role(each, "item"),)),
    "_make_dict_items": Shape("view", (Role(named, "item"),)),
}

_DILLS: dict[str, Shape] = {
    "_create_function": Shape(
        "function", (*_FUNCTION, UNSHOWN, Role(each, "default"), _CELLS, Role(named, "attribute")), "value"
    ),
    "_create_cell": Shape("cell", (Role(one, "content"),)),
    "_create_type": Shape("class", (Role(UNLESS_USUAL, "metaclass"), NAME, _BASES, _BODY), "value"),
    "_import_module": Shape("module", (NAME,), "reference", _imported),
    "_load_type": Shape("reference", (NAME,), "reference", _found_type),
}

_OTHERS: dict[str, Shape] = {
    "importlib.import_module": Shape("module", (NAME,), "reference", _imported),
    "builtins.getattr": Shape("object", (), "", _got_attribute),
    "types.CodeType": Shape("code", (), "value", _code_object),
    "numpy.core.numeric._frombuffer": Shape("array", (Role(one, "data"), *[UNSHOWN] * 3), "", _array_from_buffer),
    "numpy._core.numeric._frombuffer": Shape("array", (Role(one, "data"), *[UNSHOWN] * 3), "", _array_from_buffer),
    "numpy.core.multiarray._reconstruct": Shape("array", (UNSHOWN,) * 3),
    "numpy._core.multiarray._reconstruct": Shape("array", (UNSHOWN,) * 3),
    "numpy.core.multiarray.scalar": Shape("number", (UNSHOWN, Role(one, "data"))),
    "numpy._core.multiarray.scalar": Shape("number", (UNSHOWN, Role(one, "data"))),
    "numpy.dtype": Shape("dtype", (UNSHOWN,) * 3, "", _data_type),
    "torch._utils._rebuild_tensor_v2": Shape("tensor", (Role(one, "storage"), *[UNSHOWN] * 5), "", _tensor),
    "array._array_reconstructor": Shape("array", (UNSHOWN, NAME, UNSHOWN, Role(one, "data"))),
    "builtins.set": Shape("set", (Role(each, "member"),)),
    "builtins.frozenset": Shape("frozenset", (Role(each, "member"),)),
    "builtins.bytearray": Shape("bytearray", (Role(one, "data"),)),
    "builtins.property": Shape(
        "property", (Role(skip, "getter"), Role(skip, "setter"), Role(skip, "deleter"), Role(skip, "docstring"))
    ),
    "builtins.staticmethod": Shape("staticmethod", (Role(one, "function"),)),
    "builtins.classmethod": Shape("classmethod", (Role(one, "function"),)),
    "functools.partial": Shape("partial", (Role(one, "function"),)),
    "types.MethodType": Shape("bound method", (Role(one, "function"), Role(one, "self"))),
    "types.MappingProxyType": Shape("mappingproxy", (Role(named, "item"),)),
}

SHAPES: dict[str, Shape] = {
    **{f"shoal._rebuild.{name}": shape for name, shape in _OURS.items()},
    **_OTHERS,
}
_OUR_MODULES = "shoal._rebuild"  # and what begins so


def _shape_of(full: str) -> Shape | None:
    found = SHAPES.get(full)
    if found is None and "." in full:
        module, _, name = full.rpartition(".")
        if module.endswith("cloudpickle.cloudpickle") or module.endswith("cloudpickle_fast"):  # or a copy of it
            found = _CLOUDPICKLES.get(name)
        elif module.startswith(_OUR_MODULES):
            found = _OURS.get(name)
        elif module == "dill._dill":
            found = _DILLS.get(name)
    return found


# ---- REDUCE and NEWOBJ ----


def is_plain_call(function: Part) -> bool:
    """Whether calls of it make objects of which nothing more is known here."""
    full = str(function.value)
    return _shape_of(full) is None and not full.startswith("copyreg.")


def called(function: Part, arguments: Part, keywords: Part | None) -> Part:
    """What a call makes. All parts are counted for it, or for the argument that it completes."""
    whole = resolved(function)
    full = str(whole.value) if whole.kind == "reference" else ""
    items = arguments.value if is_first(arguments, "tuple") and isinstance(arguments.value, list) else None
    shape = _shape_of(full)
    if full in ("copyreg._reconstructor", "copyreg.__newobj__") and items:
        return _made_instance(function.own + arguments.own, items[0], items[1:], None)
    if shape is None or items is None:
        own = 0 if items is None else arguments.own
        return _made_instance(own, function, [arguments] if items is None else items, keywords)
    own = arguments.own
    if function.children:
        own += function.own
    target = resolved(items[0]) if shape.roles[:1] == (TARGET,) and items else None
    part = Part(shape.kind) if target is None else target
    part.own += own + (function.own if not function.children else 0)
    if target is None:
        part.by = shape.by
    for role, item in zip(shape.roles, items, strict=False):
        role.how(part, role.word, item)
    if shape.roles:
        for number, item in enumerate(items[len(shape.roles) :], len(shape.roles) + 1):
            skip(part, f"argument {number}", item)
    other = shape.then(part, items) if shape.then else None
    if target is not None:
        done = Part("filled")
        done.same_as, done.by = target, "shared"
        return done
    return other if other is not None else part


def _made_instance(own: int, cls: Part, items: Parts, keywords: Part | None) -> Part:
    whole = resolved(cls)
    part = Part("object", own=own, name=whole.name)
    part.module = whole.module
    if cls.same_as is None and (cls.children or whole.by == "value"):
        take(part, cls, "its class" if cls.kind == "class" else "callable")
    else:
        part.own += cls.own
    for number, item in enumerate(items, 1):
        take(part, item, f"argument {number}")
    if keywords is not None:
        named(part, "argument", keywords)
    part.value = items
    return part
