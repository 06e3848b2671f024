# SPDX-License-Identifier: BSD-3-Clause
"""What `shoal.empty`, `array` and `share` promise, and that arrays keep the semantics of a copy on their way."""

import gc
import os
import sys

import pytest

import shoal

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.leakcheck


@pytest.fixture
def pool():
    with shoal.Pool(2) as pool:
        yield pool


# ---- making them ----


@pytest.mark.parametrize("shape", [5, (5,), (2, 3), [4, 2], (), 0, (0, 3), (3, 0), np.int64(4)])
@pytest.mark.parametrize("dtype", [float, "i1", "complex128", "U5", "M8[ns]", [("a", "i4"), ("b", "f8", (2,))]])
def test_empty_has_shape_and_type_of_numpys(shape, dtype):
    ours, theirs = shoal.empty(shape, dtype), np.empty(shape, dtype)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype and ours.strides == theirs.strides
    assert type(ours) is np.ndarray
    assert ours.flags.writeable and ours.flags.aligned


def test_empty_takes_an_order():
    assert shoal.empty((3, 4)).flags.c_contiguous
    assert shoal.empty((3, 4), order="F").flags.f_contiguous
    with pytest.raises(ValueError, match="order must be 'C' or 'F'"):
        shoal.empty((3, 4), order="K")


def test_a_type_with_a_shape_of_its_own():
    kind = np.dtype(("f4", (2, 2)))
    assert shoal.empty(3, kind).shape == np.empty(3, kind).shape == (3, 2, 2)


def test_the_default_type_is_float():
    assert shoal.empty(1).dtype == float


def test_array_copies_what_it_is_given():
    source = np.arange(12.0).reshape(3, 4)
    copy = shoal.array(source)
    source[:] = 0
    assert (copy == np.arange(12.0).reshape(3, 4)).all()
    assert shoal.array([1, 2, 3]).dtype == np.array([1, 2, 3]).dtype
    assert shoal.array([1, 2], dtype="f4").dtype == np.float32
    assert shoal.array(np.asfortranarray(np.ones((3, 4)))).flags.f_contiguous
    assert (shoal.array(np.arange(10)[::2]) == [0, 2, 4, 6, 8]).all()
    assert shoal.array(7).shape == ()


def test_share_is_read_only():
    source = np.arange(10)
    shared = shoal.share(source)
    assert (shared == source).all()
    assert source.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        shared[0] = 1
    with pytest.raises(ValueError):
        shared.flags.writeable = True
    assert shoal.share(shared) is shared, "it is shared already"
    assert not shoal.share(np.empty(0)).flags.writeable


@pytest.mark.parametrize("make", [lambda: shoal.empty(3, object), lambda: shoal.array([object()])])
def test_arrays_of_objects_are_refused(make):
    with pytest.raises(TypeError, match="Python objects cannot lie in shared memory"):
        make()


def test_a_structure_with_objects_in_it_is_refused():
    with pytest.raises(TypeError, match="Python objects"):
        shoal.share(np.empty(2, [("number", int), ("object", object)]))


@pytest.mark.parametrize("shape", [-1, (2, -3)])
def test_negative_dimensions_are_refused(shape):
    with pytest.raises(ValueError, match="negative dimensions"):
        shoal.empty(shape)


@pytest.mark.parametrize("shape", [1 << 60, (1 << 40, 1 << 40)])
def test_more_than_there_is_room_for_is_a_memory_error(shape):
    with pytest.raises((MemoryError, OverflowError)):
        shoal.empty(shape)


def test_the_budget_is_named(fresh_python):
    done = fresh_python(
        """
        import shoal
        try:
            shoal.empty(256 << 20, "u1")
        except MemoryError as error:
            print(error)
        print(shoal.empty(1 << 20, "u1").nbytes)
        """,
        env={"SHOAL_ARENA_LIMIT": "64M"},
    )
    assert "SHOAL_ARENA_LIMIT" in done.stdout
    assert done.stdout.splitlines()[-1] == str(1 << 20)


def test_memory_comes_back_when_the_last_view_is_gone(fresh_python):
    fresh_python(
        """
        import shoal
        for _ in range(100):
            array = shoal.empty(16 << 20, "u1")
            view = array[100:200]
            del array
            view[:] = 1
        """,
        env={"SHOAL_ARENA_LIMIT": "64M"},
    )


def test_numpy_is_named_where_it_is_missing(fresh_python):
    done = fresh_python("""
        import sys
        sys.modules["numpy"] = None
        import shoal
        for function in (shoal.empty, shoal.array, lambda obj: shoal.share(obj, writable=True)):
            try:
                function(3)
            except ImportError as error:
                print(error.name, error)
    """)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0] == "numpy shoal.empty() needs numpy, which is not installed (pip install numpy)"


def test_importing_shoal_does_not_import_numpy(fresh_python):
    done = fresh_python("""
        import sys, shoal
        with shoal.Pool(1) as pool:
            pool.apply(abs, (-1,))
            print("numpy" in sys.modules, pool.apply(lambda: "numpy" in __import__("sys").modules))
    """)
    assert done.stdout == "False False\n"


# ---- sending them ----


def test_an_arena_array_arrives_as_it_is(pool):
    shared = shoal.share(np.arange(1_000_000))
    assert pool.apply(np.sum, (shared,)) == shared.sum()
    assert pool.map(lambda n: int(shared[n]), [1, 10, 100]) == [1, 10, 100]


def test_parts_of_an_arena_array_travel(pool):
    shared = shoal.share(np.arange(100_000).reshape(100, 1000))
    for part in (shared[5], shared[:, 3], shared[::2, ::-1], shared.T, shared[3:3]):
        assert (pool.apply(lambda a: a.copy(), (part,)) == part).all()


def test_sending_an_array_of_the_arena_makes_no_copy_of_it(pool):
    shared = shoal.share(np.zeros(32 << 20, "u1"))
    before = pool._engine.stats()["arena_used"]
    results = [pool.apply_async(len, (shared,)) for _ in range(20)]
    assert pool._engine.stats()["arena_used"] - before < shared.nbytes
    assert [result.get(60) for result in results] == [len(shared)] * 20


def test_an_arena_array_freezes_when_it_is_first_sent(pool):
    array = shoal.empty(100_000)
    array[:] = 1
    assert pool.apply(np.sum, (array,)) == 100_000
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 5


def test_an_ordinary_array_stays_writable_and_is_what_it_was_when_sent(pool):
    array = np.ones(1_000_000)
    results = [pool.apply_async(np.sum, (array,)) for _ in range(4)]
    array[:] = 0
    assert [result.get(60) for result in results] == [1_000_000.0] * 4


def test_what_a_task_writes_into_an_argument_nobody_else_sees(pool):
    def scribble(array):
        array[:] = 7
        return os.getpid()

    array = np.zeros(1_000_000)
    pool.map(scribble, [array] * 4, chunksize=2)
    assert (array == 0).all()
    shared = shoal.share(array)
    pool.map(scribble, [shared] * 4)
    assert (shared == 0).all()
    assert pool.apply(np.sum, (shared,)) == 0


def test_results_are_writable_arrays(pool):
    result = pool.apply(np.ones, (1_000_000,))
    result[0] = 5
    assert result.sum() == 1_000_004


def test_an_array_comes_back_as_it_was_sent(pool):
    for size in (0, 1, 1000, 100_000, 4_000_000):
        array = np.random.default_rng(0).integers(0, 256, size, "u1")
        assert (pool.apply(lambda a: a, (array,)) == array).all()


def test_an_arena_array_comes_back_as_it_was_sent(pool):
    shared = shoal.share(np.arange(100_000))
    assert (pool.apply(lambda a: a, (shared,)) == shared).all()
    assert (pool.apply(lambda a: a[10:], (shared,)) == shared[10:]).all()


def test_an_array_that_a_task_makes_in_the_arena_comes_back(pool):
    def make():
        array = shoal.empty(100_000)
        array[:] = 3
        return array

    assert pool.apply(make).sum() == 300_000


def test_kept_results_stay_what_they_were(pool):
    kept = [pool.apply(np.full, (100_000, n)) for n in range(20)]
    gc.collect()
    assert [int(array[0]) for array in kept] == list(range(20))
    assert all((array == n).all() for n, array in enumerate(kept))


def test_a_task_may_keep_an_array_beyond_its_end(pool):
    def keep(array):
        sys.shoal_test_kept = array

    def sum_of_kept():
        return float(sys.shoal_test_kept.sum()) if hasattr(sys, "shoal_test_kept") else None

    with shoal.Pool(1) as one:
        one.apply(keep, (np.ones(1_000_000),))
        for n in range(5):
            one.apply(np.sum, (np.full(1_000_000, n),))
        assert one.apply(sum_of_kept) == 1_000_000


def test_memory_is_flat_over_many_rounds(fresh_python):
    fresh_python(
        """
        import numpy, shoal
        array = numpy.ones(2 << 20)
        with shoal.Pool(2) as pool:
            for _ in range(50):
                assert pool.apply(lambda a: a + 1, (array,))[0] == 2
        """,
        env={"SHOAL_ARENA_LIMIT": "128M"},
    )


def test_read_only_arrays_of_other_kinds_travel(pool):
    array = np.frombuffer(b"abc" * 100_000, "u1")
    assert (pool.apply(lambda a: a, (array,)) == array).all()
    masked = np.ma.masked_array(np.arange(100_000), np.arange(100_000) % 2)
    assert (pool.apply(lambda a: a, (masked,)) == masked).all()
    objects = np.array([1, "two", None] * 1000, dtype=object)
    assert (pool.apply(lambda a: a, (objects,)) == objects).all()
