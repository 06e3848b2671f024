# SPDX-License-Identifier: BSD-3-Clause
"""Batches of plain values (numbers, short texts, small tuples), which travel packed: what arrives is what a pickle of
each item alone gives, and each item still ends by itself.
"""

import collections
import itertools
import math
import mmap
import os
import pickle
import signal
import threading

import pytest

import shoal
from tasks import TIMEOUT

pytestmark = pytest.mark.leakcheck

Point = collections.namedtuple("Point", "x y")


class Number(int):
    pass


class Text(str):
    pass


INTS = [sign * (1 << bits) + off for bits in range(0, 72) for off in (-1, 0, 1) for sign in (1, -1)]
FLOATS = [0.0, -0.0, 1.5, -1e308, 5e-324, math.inf, -math.inf, math.nan]
TEXTS = ["", "a", "a" * 255, "a" * 256, "é", "\x7f", "\x80", "\ud800", "𝄞", "nul\0"]
BYTES = [b"", b"\0", b"b" * 255, b"b" * 256, bytes(range(256))]
TUPLES = [(), (1,), (1, 2.5), ("a", b"a"), (None, True, False), (1, 2, 3, 4), (1, 2, 3, 4, 5), ((1,), 2), ([1], 2)]
OTHERS = [None, True, False, Number(3), Text("t"), Point(1, 2), [1], {"a": 1}, 2 + 3j, bytearray(b"x")]
ALL = INTS + FLOATS + TEXTS + BYTES + TUPLES + OTHERS


def same(value):
    return value


def what(value):
    return type(value).__name__, repr(value)


def described(values):
    return [(type(value).__name__, repr(value)) for value in values]


def outcomes(iterator):
    """What each element gave: its value, or the exception."""
    found = []
    while True:
        try:
            found.append(iterator.next(TIMEOUT))
        except StopIteration:
            return found
        except Exception as error:
            found.append(error)


@pytest.mark.parametrize("values", [INTS, FLOATS, TEXTS, BYTES, TUPLES, OTHERS, ALL, ALL[::-1]])
@pytest.mark.parametrize("chunksize", [1, 2, 1000])
def test_values_arrive_with_their_type_in_the_task_and_come_back(pool, values, chunksize):
    assert pool.map(what, values, chunksize) == described(values)
    assert described(pool.map(same, values, chunksize)) == described(values)
    assert described(pool.imap(same, values, chunksize)) == described(values)


def test_values_that_are_packed_alternate_with_others_in_every_pattern(pool):
    for pattern in itertools.product([7, [7], "text", (1, "a")], repeat=4):
        values = list(pattern) * 3
        assert pool.map(same, values, len(values)) == values


def test_a_single_call_takes_and_gives_them_too(pool):
    assert described(pool.apply(same, (value,)) for value in ALL) == described(ALL)


def test_starmap_unpacks_them(pool):
    assert pool.starmap(divmod, [(n, 7) for n in range(1000)], 100) == [divmod(n, 7) for n in range(1000)]


def shared_parts(value):
    return value[0] is value[1]


def test_what_is_one_object_in_an_item_stays_one_as_with_pickle(pool):
    text, data, number = "text" * 3, b"data" * 3, 10**15
    items = [(text, text), (data, data), (number, number), (text, "".join(["text"] * 3))]
    alone = [shared_parts(pickle.loads(pickle.dumps(item))) for item in items]
    assert pool.map(shared_parts, items, len(items)) == alone
    assert [shared_parts(item) for item in pool.map(same, items, len(items) + 1)] == alone


def test_items_do_not_share_objects(pool):
    results = pool.map(same, ["some text"] * 4 + [1.5] * 4 + [10**12] * 4, 12)
    assert len(set(map(id, results))) == len(results)


def test_results_larger_than_any_ring_arrive(pool):
    texts = [f"{n:0250}" for n in range(20_000)]
    assert pool.map(same, texts, len(texts)) == texts
    assert list(pool.imap(same, texts, 10_000)) == texts


def raise_on_odd(value):
    if value % 2:
        raise ValueError(value)
    return value


def test_items_that_raise_between_packed_ones_fail_alone(pool):
    found = outcomes(pool.imap(raise_on_odd, range(101), 101))
    assert [value if isinstance(value, int) else value.args[0] for value in found] == list(range(101))
    assert [isinstance(value, ValueError) for value in found] == [n % 2 == 1 for n in range(101)]


def unpicklable_on_odd(value):
    return threading.Lock() if value % 2 else value


def test_results_that_do_not_pickle_between_packed_ones_fail_alone(pool):
    found = outcomes(pool.imap(unpicklable_on_odd, range(21), 21))
    assert [isinstance(value, shoal.ResultEncodingError) for value in found] == [n % 2 == 1 for n in range(21)]
    assert found[::2] == list(range(0, 21, 2))


COUNT = 9
ran = mmap.mmap(-1, COUNT)  # how often each item ran; inherited by the workers


def die_at(item):
    number, deadly, way = item
    ran[number] += 1
    if number == deadly:
        if way == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("way", ["kill", "exit"])
def test_a_worker_that_dies_at_any_item_of_a_batch_costs_that_item_alone(pool, way):
    for deadly in range(COUNT):
        ran[:] = bytes(COUNT)
        found = outcomes(pool.imap(die_at, [(n, deadly, way) for n in range(COUNT)], COUNT))
        assert [n for n, value in enumerate(found) if isinstance(value, shoal.WorkerLost)] == [deadly]
        assert f"element {deadly} of the input" in str(found[deadly])
        assert [value for value in found if not isinstance(value, shoal.WorkerLost)] == [
            n for n in range(COUNT) if n != deadly
        ]
        assert ran[:] == b"\1" * COUNT
    pool._engine.verify()


def test_every_item_of_a_batch_may_kill_its_worker(pool):
    ran[:] = bytes(COUNT)
    found = outcomes(pool.imap(die_at, [(n, n, "kill") for n in range(COUNT)], COUNT))
    assert [type(value) for value in found] == [shoal.WorkerLost] * COUNT
    assert ran[:] == b"\1" * COUNT


class Shortens:
    """Pickling it takes all that follows out of the list."""

    def __init__(self, items):
        self.items = items

    def __reduce__(self):
        del self.items[4:]
        return int, (7,)


def test_a_list_that_is_changed_while_it_is_sent_does_no_harm(pool):
    items = [1, 2, 3]
    items += [Shortens(items), 4, 5, 6, 7, 8, 9]
    assert pool.map(same, items, 2)[:4] == [1, 2, 3, 7]
    assert pool.map(same, range(3)) == [0, 1, 2]


def test_a_list_that_is_changed_after_it_was_sent_makes_no_difference(pool):
    items = list(range(10_000))
    result = pool.map_async(same, items)
    items[:] = ["changed"] * len(items)
    assert result.get(TIMEOUT) == list(range(10_000))


@pytest.mark.parametrize("values", [range(5, 100_000, 3), tuple(range(1000)), dict.fromkeys("keys"), "text", b"bytes"])
def test_inputs_of_every_kind_are_taken_whole(pool, values):
    assert pool.map(same, values) == list(values)
