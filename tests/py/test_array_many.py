# SPDX-License-Identifier: BSD-3-Clause
"""Tens of thousands of arena arrays in one task: more than a result's record, or the ring, has room to speak of."""

import random

import numpy as np
import pytest

import shoal

pytestmark = pytest.mark.leakcheck

COUNT = 33_000
kept = []


def total(arrays):
    return sum(int(array[0]) for array in arrays)


def keep(arrays):
    kept.extend(arrays)
    return bytes(1000)


def total_kept():
    return total(kept)


def forget():
    kept.clear()


def shared(count, size, readonly):
    numbers = [number % 251 for number in range(count)]
    return numbers, [shoal.share(np.full(size, number, "u1"), readonly=readonly) for number in numbers]


@pytest.fixture
def pool():
    with shoal.Pool(1) as pool:
        yield pool


@pytest.mark.parametrize("readonly", [False, True])
def test_they_arrive_and_can_be_kept_beyond_the_task(pool, readonly):
    numbers, arrays = shared(COUNT, 64 if readonly else 16, readonly)
    assert pool.apply(total, (arrays,)) == sum(numbers)
    assert pool.apply(keep, (arrays,)) == bytes(1000)
    del arrays
    assert pool.apply(total_kept) == sum(numbers)
    pool.apply(forget)
    assert pool.apply(total_kept) == 0


def test_as_private_views_they_arrive_in_any_order(pool):
    numbers, arrays = shared(9000, 32768, False)  # more than there may be mappings of their own
    order = list(range(len(arrays)))
    random.Random(1).shuffle(order)
    assert pool.apply(keep, ([arrays[index] for index in order],)) == bytes(1000)
    assert pool.apply(total, (arrays,)) == sum(numbers)  # once more, while the first views are out
    del arrays
    assert pool.apply(total_kept) == sum(numbers)
    pool.apply(forget)


def test_what_a_dead_worker_kept_comes_back(pool):
    used = pool._engine.stats()["arena_used"]
    _, arrays = shared(COUNT, 64, True)
    pool.apply(keep, (arrays,))
    del arrays
    assert pool._engine.stats()["arena_used"] > used
    with pytest.raises(shoal.WorkerLost):
        pool.apply(exit_at_once)
    assert pool.apply(total_kept) == 0
    assert pool._engine.stats()["arena_used"] == used


def exit_at_once():
    import os

    os._exit(1)
