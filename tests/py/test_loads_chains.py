# SPDX-License-Identifier: BSD-3-Clause
"""Chains of objects that Python frees by recursion: those that would overflow the stack are refused, and freed."""

import collections
import gc
import io
import random
import struct
import types

import pytest

import shoal

MANY = 250_000
BEARABLE = 40_000


class Counted:
    alive = 0

    def __init__(self):
        Counted.alive += 1

    def __del__(self):
        Counted.alive -= 1


def named(*names):
    """The first opcodes: these names are numbers 0, 1, ... of the memo."""
    return b"\x80\x04" + b"".join(b"c%s\n%s\n\x94" % name for name in names)


CELL, FILL_CELL = (b"shoal._rebuild", b"_cell"), (b"shoal._rebuild", b"_fill_cell")
COUNTED = (__name__.encode(), b"Counted")
MADE = b"h\x00)R"  # an instance of Counted


def number(index):
    return b"j" + struct.pack("<I", index)


def inside_out(*name, levels=MANY):
    """Each is made with the one before as its only argument."""
    return named(COUNTED, name) + b"h\x01" * levels + MADE + b"\x85R" * levels


def methods(levels):
    return (
        named(COUNTED, (b"types", b"MethodType"), (b"builtins", b"len"))
        + b"h\x01h\x02" * levels
        + MADE
        + (b"\x86R" * levels)
    )


def deques(levels):
    return named(COUNTED, (b"collections", b"deque")) + b"h\x01)R" * levels + MADE + b"a" * levels


def filled(order, ring=False):
    """Cells first, then their contents; the cells are numbers 3, 4, ... of the memo."""
    links = [*zip(order, order[1:], strict=False), *([(order[-1], order[0])] if ring else [])]
    fills = (b"h\x02%s%s\x86R0" % (number(3 + outer), number(3 + inner)) for outer, inner in links)
    last = b"" if ring else b"h\x02" + number(3 + order[-1]) + MADE + b"\x86R0"
    cells = b"h\x01)R\x940" * len(order)
    return named(COUNTED, CELL, FILL_CELL) + cells + b"".join(fills) + last + number(3 + order[0])


def any_order(levels):
    order = list(range(levels))
    random.Random(1).shuffle(order)
    return order


TOO_DEEP = {
    "cells": inside_out(*CELL),
    "cells of plain pickle": inside_out(b"types", b"CellType"),
    "slices": inside_out(b"builtins", b"slice"),
    "properties": inside_out(b"builtins", b"property"),
    "methods": methods(MANY),
    "deques": deques(200_000),
    "cells filled from outside": filled(range(200_000)),
    "cells filled from inside": filled(range(199_999, -1, -1)),
    "cells filled in any order": filled(any_order(200_000)),
    "a ring of cells": filled(range(200_000), ring=True),
    "a ring of cells in any order": filled(any_order(200_000), ring=True),
    "two halves": named(COUNTED, CELL) + b"(" + (b"h\x01" * MANY + MADE + b"\x85R" * MANY) * 2 + b"t",
    "dropped on the way": inside_out(*CELL) + b"0N",
}


def from_file(stream):
    return shoal.load(io.BytesIO(stream))


@pytest.mark.parametrize("load", [shoal.loads, from_file])
@pytest.mark.parametrize("name", TOO_DEEP)
def test_a_chain_that_would_overflow_the_stack_is_refused_and_freed(name, load):
    with pytest.raises(shoal.UnpicklingError, match="Python frees by recursion"):
        load(TOO_DEEP[name] + b".")
    gc.collect()
    assert Counted.alive == 0


@pytest.mark.parametrize("load", [shoal.loads, from_file])
@pytest.mark.parametrize("name", TOO_DEEP)
def test_a_stream_of_such_a_chain_that_breaks_off_is_freed(name, load):
    with pytest.raises(EOFError):
        load(TOO_DEEP[name])
    gc.collect()
    assert Counted.alive == 0


def test_an_unpickler_whose_memo_holds_the_chain_lets_it_go():
    stream = named(COUNTED, CELL) + b"h\x01" * MANY + MADE + b"\x85R\x94" * MANY + b"."
    unpickler = shoal.Unpickler(io.BytesIO(stream))
    with pytest.raises(shoal.UnpicklingError, match="Python frees by recursion"):
        unpickler.load()
    assert Counted.alive == 0
    assert unpickler.memo.copy() == {}


BEARABLE_CHAINS = {
    "cells": (inside_out(*CELL, levels=BEARABLE), lambda cell: cell.cell_contents),
    "slices": (inside_out(b"builtins", b"slice", levels=BEARABLE), lambda part: part.stop),
    "properties": (inside_out(b"builtins", b"property", levels=BEARABLE), lambda part: part.fget),
    "methods": (methods(BEARABLE), lambda method: method.__self__),
    "deques": (deques(BEARABLE), lambda deque: deque[0]),
    "cells filled from outside": (filled(range(BEARABLE)), lambda cell: cell.cell_contents),
}


@pytest.mark.parametrize("name", BEARABLE_CHAINS)
def test_a_chain_that_python_can_free_loads(name):
    stream, inner = BEARABLE_CHAINS[name]
    value = shoal.loads(stream + b".")
    levels = 0
    while type(value) is not Counted:
        value, levels = inner(value), levels + 1
    assert levels == BEARABLE
    del value
    assert Counted.alive == 0


def test_hundreds_of_thousands_that_do_not_hang_in_each_other_load():
    pair = b"h\x01h\x01N\x85R\x85R"
    cells = shoal.loads(named(COUNTED, CELL) + b"](" + pair * 200_000 + b"e.")
    assert [type(cells[i].cell_contents) for i in (0, -1)] == [types.CellType] * 2
    queues = shoal.loads(named(COUNTED, (b"collections", b"deque")) + b"](" + b"h\x01)R" * 200_000 + b"e.")
    assert len(queues) == 200_000
    assert queues[-1] == collections.deque()


def test_a_list_between_two_objects_ends_a_chain():
    stream = named(COUNTED, CELL) + b"](h\x01" * 200_000 + MADE + b"\x85Re" * 200_000 + b"."
    value = shoal.loads(stream)
    assert type(value[0]) is types.CellType
    del value
    assert Counted.alive == 0


def test_what_is_refused_spares_what_lives_elsewhere():
    """A cell that somebody else holds too keeps what is in it."""
    kept = types.CellType([1])
    unpickler = shoal.Unpickler(io.BytesIO(named(COUNTED, CELL) + b"h\x01" * MANY + b"NQ" + b"\x85R" * MANY + b"."))
    unpickler.persistent_load = lambda pid: kept
    with pytest.raises(shoal.UnpicklingError, match="Python frees by recursion"):
        unpickler.load()
    assert kept.cell_contents == [1]
