# SPDX-License-Identifier: BSD-3-Clause
"""An arena array that was sent is what it was, whatever is written through views that were made before."""

import os

import pytest

import shoal
from tasks import TIMEOUT, await_file

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.leakcheck

COUNT = 100_000


class Grid(np.ndarray):
    pass


def read_only(array):
    view = array[:]
    view.flags.writeable = False
    return view


def first_and_sum(array):
    return float(array[0]), float(array.sum())


def when_told(path, array):
    await_file(path)
    return first_and_sum(array)


def ones():
    array = shoal.empty(COUNT)
    array[:] = 1
    return array


ALIASES = {
    "slice": lambda array: array[: COUNT // 2],
    "reshaped": lambda array: array.reshape(2, -1).T[0],
    "subclass": lambda array: array.view(Grid),
    "memoryview": memoryview,
    "from a buffer": np.frombuffer,
}
STARTED = [("spawn", "slice"), ("forkserver", "slice")]


@pytest.mark.usefixtures("no_main")
@pytest.mark.parametrize(("method", "alias"), [*(("fork", alias) for alias in ALIASES), *STARTED])
def test_what_is_written_through_an_older_view_no_task_sees_that_was_sent_before(tmp_path, method, alias):
    array, over = ones(), tmp_path / "over"
    older = ALIASES[alias](array)
    with shoal.Pool(1, context=method) as pool:
        sent = [pool.apply_async(when_told, (over, array)) for _ in range(2)]
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2
        older[0] = 5
        over.touch()
        assert [result.get(TIMEOUT) for result in sent] == [(1, COUNT)] * 2
        assert array[0] == older[0] == 5, "for the sender they are one memory, as ever"
        assert pool.apply(first_and_sum, (array,)) == (5, COUNT + 4), "what is sent now is what it is now"
        assert pool.apply(first_and_sum, (array[COUNT // 2 :],)) == (1, COUNT // 2)
        older[0] = 6
        assert pool.apply(first_and_sum, (array,)) == (6, COUNT + 5)


def test_a_part_that_cannot_be_written_is_as_well_protected_from_what_it_is_a_part_of(tmp_path):
    array, over = ones(), tmp_path / "over"
    with shoal.Pool(1) as pool:
        sent = pool.apply_async(when_told, (over, read_only(array)))
        array[:] = 5
        over.touch()
        assert sent.get(TIMEOUT) == (1, COUNT)
        assert pool.apply(first_and_sum, (read_only(array),)) == (5, 5 * COUNT)


def test_what_is_written_while_tasks_are_at_slices_of_one_array_they_do_not_see(tmp_path, pool):
    array = ones()
    older, parts, over = array[:], np.split(array, 4), tmp_path / "over"
    sent = [pool.apply_async(when_told, (over, part)) for part in parts]
    older[:] = 7
    over.touch()
    assert [result.get(TIMEOUT) for result in sent] == [(1, COUNT // 4)] * 4
    assert pool.map(first_and_sum, parts) == [(7, 7 * COUNT // 4)] * 4


def test_a_result_that_is_the_array_is_what_was_sent(pool):
    array = ones()
    older = array[:]
    result = pool.apply_async(lambda array: array, (array,))
    older[:] = 5
    back = result.get(TIMEOUT)
    assert first_and_sum(back) == (1, COUNT)
    back[0] = 3
    assert (older == 5).all()


def test_workers_that_are_forked_later_have_what_the_sender_has_then_and_get_what_is_sent():
    array = ones()
    older = array[:]
    with shoal.Pool(1) as pool:
        assert pool.apply(first_and_sum, (array,)) == (1, COUNT)
        older[:] = 5
        with shoal.Pool(1) as later:
            assert later.apply(first_and_sum, (array,)) == (5, 5 * COUNT)
        pool._pool[0].kill()
        assert pool.apply(first_and_sum, (array,)) == (5, 5 * COUNT)


GLOBAL = {}


def of_global():
    return first_and_sum(GLOBAL["array"])


def test_a_forked_child_sees_what_its_parent_wrote_and_keeps_it():
    GLOBAL["array"] = ones()
    older = GLOBAL["array"][:]
    with shoal.Pool(1) as pool:
        pool.apply(first_and_sum, (GLOBAL["array"],))
        older[:] = 5
        with shoal.Pool(1) as later:
            assert later.apply(of_global) == (5, 5 * COUNT)
            older[:] = 6
            pid = os.fork()
            if pid == 0:
                os._exit(of_global() == (6, 6 * COUNT))
            assert os.waitpid(pid, 0)[1] >> 8 == 1
            assert later.apply(of_global) == (5, 5 * COUNT)
            del older
            GLOBAL.clear()
            for number in range(10):  # the memory is used again, also in the worker that had it privately
                for one in (pool, later):
                    assert one.apply(first_and_sum, (np.full(COUNT, number),)) == (number, number * COUNT)
                    assert first_and_sum(one.apply(np.full, (COUNT, number))) == (number, number * COUNT)


def test_memory_that_was_written_meanwhile_is_as_good_as_any_afterwards(pool):
    used = pool._engine.stats()["arena_used"]
    for number in range(20):
        array = ones()
        older = array[:]
        assert pool.apply(first_and_sum, (array,)) == (1, COUNT)
        older[:] = number
        assert pool.apply(first_and_sum, (array,)) == (number, number * COUNT)
        del array, older
        again = shoal.empty(COUNT)
        again[:] = number
        assert pool.apply(first_and_sum, (again,)) == (number, number * COUNT)
        del again
    assert pool._engine.stats()["arena_used"] == used


def test_an_array_that_nobody_wrote_meanwhile_is_still_sent_without_a_copy(pool):
    array = ones()
    older = array[:]
    pool.apply(first_and_sum, (array,))
    array.sum()  # reading makes no page one's own
    used = pool._engine.stats()["arena_used"]
    results = [pool.apply_async(first_and_sum, (array,)) for _ in range(50)]
    assert pool._engine.stats()["arena_used"] == used
    assert [result.get(TIMEOUT) for result in results] == [(1, COUNT)] * 50
    older[0] = 1
    assert pool.apply(first_and_sum, (array,)) == (1, COUNT)
