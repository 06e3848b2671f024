# SPDX-License-Identifier: BSD-3-Clause
"""Random numbers in workers: distinct by default, and those that a seed determines where one is given."""

import asyncio
import hashlib
import importlib
import os
import random
import sys

import numpy as np
import pytest

import shoal
from async_tasks import POOLS, run
from tasks import kill_self

pytestmark = pytest.mark.leakcheck


def draw(*_):
    """What the two global generators and the task's own give."""
    return random.random(), float(np.random.random()), float(shoal.rng().random())


def draw_alone(*_):
    return random.random(), float(np.random.random())


def by_hand(sequence, entropy, key):
    digest = hashlib.blake2b(f"{entropy};{key}".encode(), digest_size=32, person=b"shoal random").digest()
    legacy = np.random.RandomState(sequence.generate_state(8))
    own = np.random.default_rng(sequence)
    return random.Random(int.from_bytes(digest, "big")).random(), float(legacy.random()), float(own.random())


# ---- by default ----


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
@pytest.mark.usefixtures("no_main")
def test_workers_and_their_replacements_draw_different_numbers(context):
    random.seed(1)
    np.random.seed(1)
    workers, calls = (2, 6) if context == "fork" else (1, 3)  # those that are started anew take their time
    with shoal.Pool(workers, context=context, maxtasksperchild=1) as pool:
        drawn = [pool.apply(draw_alone) for _ in range(calls)]
    assert len({one for one, _ in drawn}) == len({other for _, other in drawn}) == calls


def test_a_worker_that_imports_numpy_itself_has_a_state_of_its_own(fresh_python):
    done = fresh_python("""
        import shoal, sys

        def draw():
            import numpy
            return float(numpy.random.random())

        with shoal.Pool(2, maxtasksperchild=1) as pool:
            assert "numpy" not in sys.modules
            print(len({pool.apply(draw) for _ in range(4)}))
    """)
    assert done.stdout == "4\n"


def test_outside_of_tasks_rng_is_a_new_generator_each_time():
    assert shoal.rng().random() != shoal.rng().random()


# ---- with a seed ----


@POOLS
def test_a_pools_seed_gives_each_call_its_numbers_whatever_worker_runs_it(kind):
    def drawn(workers):
        with kind(workers, seed=42) as pool:
            singles = [submit(pool) for _ in range(3)]
            mapped = [list(pool.map(draw, range(20))), list(pool.map(draw, range(20), chunksize=7))]
            return singles, mapped, list(pool.map(draw, range(3)))

    assert drawn(1) == drawn(3)


def submit(pool):
    return pool.apply(draw) if isinstance(pool, shoal.Pool) else pool.submit(draw).result()


@POOLS
def test_they_are_the_children_of_numpys_seed_sequence(kind):
    calls = np.random.SeedSequence(42).spawn(2)
    elements = calls[1].spawn(4)
    with kind(2, seed=42) as pool:
        assert submit(pool) == by_hand(calls[0], 42, "0")
        assert list(pool.map(draw, range(4))) == [by_hand(one, 42, f"1,{i}") for i, one in enumerate(elements)]


def test_a_seed_of_the_call_is_that_of_the_call():
    with shoal.Pool(2, seed=1) as pool:
        expected = [by_hand(one, 7, str(i)) for i, one in enumerate(np.random.SeedSequence(7).spawn(30))]
        assert pool.map(draw, range(30), seed=7) == expected
        assert pool.map(draw, range(30), chunksize=1, seed=7) == expected
        assert pool.starmap(draw, [(i,) for i in range(30)], seed=7) == expected
        assert list(pool.imap(draw, range(30), chunksize=4, seed=7)) == expected
        assert sorted(pool.imap_unordered(draw, range(30), seed=7)) == sorted(expected)
        assert pool.map_async(draw, range(30), seed=7).get() == expected
        assert pool.apply(draw, seed=7) == by_hand(np.random.SeedSequence(7), 7, "")
        assert pool.apply_async(draw, seed=7).get() == pool.apply(draw, seed=7)
        # None of them counted as one of the pool's.
        assert pool.apply(draw) == by_hand(np.random.SeedSequence(1).spawn(1)[0], 1, "0")


def test_the_executors_map_takes_a_seed_and_a_view_has_one():
    with shoal.ProcessPoolExecutor(2) as executor:
        expected = [by_hand(one, 7, str(i)) for i, one in enumerate(np.random.SeedSequence(7).spawn(9))]
        assert list(executor.map(draw, range(9), seed=7, chunksize=2)) == expected
        for _ in range(2):
            view = executor.options(seed=7)
            assert [view.submit(draw).result() for _ in range(9)] == expected
        assert executor.submit(draw).result() != executor.submit(draw).result()


def test_awaited_calls_have_the_same_numbers():
    async def main(pool):
        expected = [by_hand(one, 7, str(i)) for i, one in enumerate(np.random.SeedSequence(7).spawn(9))]
        assert [result async for result in pool.amap(draw, range(9), seed=7)] == expected
        view = pool.options(seed=7)
        assert await asyncio.gather(*[view.asubmit(draw) for _ in range(9)]) == expected

    with shoal.Pool(2) as pool:
        run(main(pool))


def draw_after_a_death(mark):
    drawn = draw()
    if not os.path.exists(mark):
        open(mark, "w").close()
        kill_self()
    return drawn


def test_an_attempt_after_a_death_draws_the_same(tmp_path):
    expected = by_hand(np.random.SeedSequence(7).spawn(2)[1], 7, "1")
    with shoal.Pool(2) as pool:
        marks = [str(tmp_path / "first"), str(tmp_path / "second")]
        assert pool.map(draw_after_a_death, marks, seed=7, retries=3)[1] == expected
        again = list(pool.imap(draw_after_a_death, [str(tmp_path / "third"), marks[0]], seed=7, retries=3))
        assert again[1] == expected
        assert pool.apply(draw_after_a_death, (str(tmp_path / "fourth"),), seed=7, retries=3) == by_hand(
            np.random.SeedSequence(7), 7, ""
        )
    with shoal.ProcessPoolExecutor(2, retries=3) as executor:
        assert list(executor.map(draw_after_a_death, [str(tmp_path / "fifth"), marks[0]], seed=7))[1] == expected


def test_elements_after_one_that_killed_its_worker_draw_the_same(pool):
    def kill_or_draw(x):
        return kill_self() if x == 2 else draw()

    expected = [by_hand(one, 7, str(i)) for i, one in enumerate(np.random.SeedSequence(7).spawn(6))]
    results = pool.imap(kill_or_draw, range(6), chunksize=6, seed=7)
    drawn = []
    for _ in range(6):
        try:
            drawn.append(next(results))
        except shoal.WorkerLost:
            drawn.append(expected[2])
    assert drawn == expected


def test_helpers_of_a_task_share_its_generator(pool):
    def several():
        return [float(shoal.rng().random()) for _ in range(3)]

    assert pool.apply(several, seed=5) == list(np.random.default_rng(np.random.SeedSequence(5)).random(3))


def test_a_seeded_task_leaves_the_workers_own_numbers_alone():
    def set_up():
        random.seed(3)
        np.random.seed(3)

    own, legacy = random.Random(3), np.random.RandomState(3)
    expected = [(own.random(), float(legacy.random())) for _ in range(3)]
    with shoal.Pool(1, initializer=set_up) as pool:
        drawn = [pool.apply(draw_alone)]
        assert pool.map(draw_alone, range(5), seed=1) == pool.map(draw_alone, range(5), seed=1)
        with pytest.raises(ZeroDivisionError):
            pool.apply(lambda: (draw_alone(), 1 / 0), seed=1)
        drawn += [pool.apply(draw_alone), pool.apply(draw_alone)]
    assert drawn == expected


def test_an_old_numpy_draws_the_same():
    def grow_old():
        del np.random.set_bit_generator
        np.random.seed(3)

    with shoal.Pool(1, initializer=grow_old) as old:
        expected = [by_hand(one, 7, str(i)) for i, one in enumerate(np.random.SeedSequence(7).spawn(3))]
        assert old.map(draw, range(3), seed=7) == expected
        assert old.apply(draw_alone)[1] == float(np.random.RandomState(3).random())


def test_numpy_that_a_seeded_task_is_first_to_import_is_seeded(fresh_python):
    done = fresh_python("""
        import shoal, sys

        def draw():
            import random, numpy
            return random.random(), float(numpy.random.random()), float(shoal.rng().random())

        with shoal.Pool(1, maxtasksperchild=1) as pool:
            once = [pool.apply(draw, seed=9) for _ in range(3)]
            assert "numpy" not in sys.modules
        with shoal.Pool(1) as pool:
            pool.apply(__import__, ("numpy.random",))
            once.append(pool.apply(draw, seed=9))
            assert pool.apply(lambda: [type(one).__name__ for one in sys.meta_path]) == [
                type(one).__name__ for one in sys.meta_path
            ]
        print(len(set(once)))
    """)
    assert done.stdout == "1\n"


def test_without_numpy_the_numbers_of_random_are_the_same(fresh_python):
    source = """
        import sys
        if sys.argv[1] == "without":
            sys.modules["numpy"] = None
        import shoal, random

        def draw(x):
            return random.random()

        with shoal.Pool(2) as pool:
            print(pool.map(draw, range(4), seed=3), pool.apply(draw, (0,), seed=[1, 2]))
    """
    assert fresh_python(source, "with").stdout == fresh_python(source, "without").stdout


def test_spawned_workers_draw_the_same(no_main):
    with shoal.Pool(2) as forked, shoal.Pool(1, context="forkserver") as started:
        assert forked.map(draw, range(10), seed=3) == started.map(draw, range(10), seed=3)


@pytest.mark.parametrize("seed", [0, 2**200, [1, 2, 3], (5,), np.int64(7), np.random.SeedSequence(5, spawn_key=(1, 2))])
def test_a_seed_is_an_integer_or_several_or_a_sequence_of_numpys(pool, seed):
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    expected = float(np.random.default_rng(sequence).random())
    assert pool.apply(draw, seed=seed)[2] == expected


@pytest.mark.parametrize(
    "seed, error", [(-1, ValueError), ([1, -1], ValueError), (1.5, TypeError), ("1", TypeError), ([], TypeError)]
)
def test_a_bad_seed_is_refused(pool, seed, error):
    with pytest.raises(error, match="seed"):
        pool.map(draw, [1], seed=seed)
    with pytest.raises(error, match="seed"):
        shoal.Pool(1, seed=seed)


def test_without_a_seed_nothing_of_it_is_imported():
    assert importlib.util.find_spec("shoal._random_streams")
    source = "import sys, shoal\nwith shoal.Pool(1) as pool: pool.map(abs, [1])\nprint(sorted(sys.modules))"
    import subprocess

    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert "shoal.pool" in done.stdout and "_random_streams" not in done.stdout
