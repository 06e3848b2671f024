# SPDX-License-Identifier: BSD-3-Clause
"""`python -m shoal explain`: a file with pickles, standard input, or an expression."""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from shoal._parts import SHOWN_DEPTH, Part, size_text
from shoal.explain import explain, explain_stream

_JSON_DEPTH = 200  # levels; the json module does not take many more

DESCRIPTION = """\
Tell what a pickle is made of: a tree of its parts and why each is there, largest first.

WHAT is a file with one or more pickles if a file of that name exists, or - for standard input: it is read, and nothing
in it is imported or run. Otherwise it is an expression: module:name (as package.module:function), or any Python
expression, whose names are imported as modules where they are met. Its value is pickled.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("what", metavar="WHAT", help="file with pickles, - for standard input, or an expression")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--file", action="store_true", help="WHAT is a file, whatever is there")
    kind.add_argument("--expression", action="store_true", help="WHAT is an expression, even if such a file exists")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--depth", type=int, help=f"levels to show (text: {SHOWN_DEPTH})")
    parser.add_argument("--min-bytes", type=int, metavar="N", help="sum up what is smaller (text: a thousandth)")


def run(chosen: argparse.Namespace) -> int:
    """Explain what the arguments name; return the exit status."""
    try:
        parts = _parts(chosen)
    except Exception as error:
        print(f"python -m shoal explain: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        depth = _JSON_DEPTH if chosen.depth is None else min(chosen.depth, _JSON_DEPTH)
        print(json.dumps([part.as_dict(depth, chosen.min_bytes or 0) for part in parts], indent=1, ensure_ascii=False))
        return 0
    depth = SHOWN_DEPTH if chosen.depth is None else chosen.depth
    for number, part in enumerate(parts, 1):
        if len(parts) > 1:
            print(f"{'' if number == 1 else chr(10)}pickle {number} of {len(parts)}, {size_text(part.size)}:")
        print(part.text(depth, min_bytes=chosen.min_bytes))
    return 0


def _parts(chosen: argparse.Namespace) -> list[Part]:
    if chosen.what == "-" and not chosen.expression:
        return explain_stream(sys.stdin.buffer.read())
    if chosen.file or (not chosen.expression and Path(chosen.what).is_file()):
        return explain_stream(Path(chosen.what).read_bytes())
    return [explain(evaluate(chosen.what))]


def evaluate(expression: str) -> Any:
    """The value of an expression. Names that are no built-in names are modules, which are imported.

    Of a dotted name as much as is a module is imported: ``package.module.function`` needs no import of its own.
    """
    colon = re.fullmatch(r"([\w.]+):([\w.]+)", expression)
    if colon:
        found: Any = importlib.import_module(colon[1])
        for name in colon[2].split("."):
            found = getattr(found, name)
        return found
    tree = ast.parse(expression.strip(), mode="eval")
    names: dict[str, Any] = {}
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        dotted = _dotted(node)
        if dotted and dotted[0] not in own and not hasattr(builtins, dotted[0]):
            names[dotted[0]] = _imported(dotted)
    return eval(compile(tree, "<expression>", "eval"), {"__name__": "__main__", **names})


def _dotted(node: ast.AST) -> list[str]:
    """["a", "b", "c"] for a.b.c; nothing for what does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def _imported(dotted: list[str]) -> Any:
    module = found = importlib.import_module(dotted[0])
    path = dotted[0]
    for name in dotted[1:]:
        path += f".{name}"
        if not hasattr(found, name) and hasattr(found, "__path__"):
            importlib.import_module(path)
        found = getattr(found, name)
    return module
