# SPDX-License-Identifier: BSD-3-Clause
"""What workers that were started anew have of `__main__`: which globals its import makes. See pool/ext/imported.h.

This is read in the text of the main module, not in its namespace: that is the parent's, which has gone on since.
"""

from __future__ import annotations

import ast
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from shoal import _ext
from shoal._inherited import CachedFunction, Namespace, assigned_by, assigned_in, can_be_sent, is_a, main_namespace
from shoal._rebuild import _module

LITERAL_NODES_MAX = 200  # a larger one goes by value
EMPTY: dict[str, Callable[[], object]] = {"dict": dict, "list": list, "set": set}
Settled = dict[str, tuple[object, ...]]


def let_import(engine: _ext.Engine, called: Sequence[Callable[..., object]], path: str | None) -> None:
    """Before the workers are started: note what they will have of `__main__`, which they import from this path.

    called: what each calls by itself.
    """
    namespace = main_namespace()
    if namespace is None:
        return
    own = frozenset(assigned_by(namespace, called))
    engine.inherit(_ext.Imported(namespace, own, _settled(path), _assigned, can_be_sent), CachedFunction)


def take_main(engine: _ext.Engine) -> None:
    """In a worker, when the main module is imported: have what comes of `__main__` use its globals."""
    main = sys.modules["__main__"]
    if main.__name__ != "__mp_main__":  # nothing was imported, it is multiprocessing's own
        main = types.ModuleType("__main__")
    elif (namespace := _globals_of_functions(main)) is not vars(main):
        # What runpy leaves is a copy: what functions of the module assign would not be in it.
        main = _module("__mp_main__", namespace)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    engine.inherit(_ext.Imported(vars(main)), CachedFunction)


def _globals_of_functions(main: types.ModuleType) -> Namespace:
    for value in [*vars(main).values()]:
        for member in [value, *vars(value).values()] if is_a(value, type) else [value]:
            if is_a(member, types.FunctionType) and member.__module__ == "__mp_main__":
                found: Namespace = member.__globals__
                return found
    return vars(main)


def _assigned(code: types.CodeType) -> frozenset[str]:
    return frozenset(assigned_in(code))


# ---- the text of the main module ----


def _settled(path: str | None) -> Settled:
    """Names that its import assigns -> (the literal that it gives them,) or ()."""
    try:
        with open(path or "", "rb") as file:
            body = ast.parse(file.read()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}  # a package, an archive, a file that is gone
    return _settled_by(body)


def _settled_by(body: list[ast.stmt]) -> Settled:
    bound: Counter[str] = Counter()
    deleted: set[str] = set()
    for node in _at_import(body):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound[node.id] += 1
            if isinstance(node.ctx, ast.Del):
                deleted.add(node.id)
        bound.update(_defined(node))
    settled: Settled = {}
    for statement in body:
        for name in _defined(statement):
            settled[name] = ()
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            literal = _literal(statement.value)
            for target in targets:
                if isinstance(target, ast.Name):
                    settled[target.id] = literal if bound[target.id] == 1 else ()
                else:
                    settled.update({name: () for name in _stored(target)})
    return {name: literal for name, literal in settled.items() if name not in deleted}


def _stored(target: ast.expr) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]


def _at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What runs at the import: not what stands in functions and classes, or behind `if __name__ == "__main__"`."""
    to_do: list[ast.AST] = list(body)
    while to_do:
        node = to_do.pop()
        yield node
        if isinstance(node, ast.If) and _is_guard(node.test):
            to_do += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            to_do += ast.iter_child_nodes(node)


def _is_guard(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = [test.left, test.comparators[0]]
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)


def _literal(value: ast.expr) -> tuple[object, ...]:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and not value.args and not value.keywords:
        make = EMPTY.get(value.func.id)
        return (make(),) if make is not None else ()
    nodes = sum(1 for _ in zip(ast.walk(value), range(LITERAL_NODES_MAX + 1)))
    try:
        return (ast.literal_eval(value),) if nodes <= LITERAL_NODES_MAX else ()
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ()
