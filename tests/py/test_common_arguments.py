# SPDX-License-Identifier: BSD-3-Clause
"""Arrays that all elements of a chunk have in common: sent once, and yet each element has them as its own and new."""

import ctypes
import gc
import os
import platform
import sys
import weakref

import pytest

import shoal

np = pytest.importorskip("numpy")

LARGE = 100_000  # numbers: many pages
COUNT = 60


@pytest.fixture(params=["fork", "spawn"], scope="module")
def one(request):
    with shoal.Pool(1, context=request.param) as pool:
        yield pool


def numbers(size=LARGE):
    return np.arange(1, size + 1, dtype="f8")


def shared(size=LARGE):
    return shoal.share(numbers(size))


def read(array, i):
    return float(array[i])


def read_and_write_every_third(array, i):
    was = float(array[:COUNT].sum())
    if i % 3 == 0:
        array[i] = -1e9
    return was


def write_last(array, i):
    was = float(array[-1])
    array[-1] = -i
    return was


def keep_third(array, i):
    if i == 3:
        sys.shoal_test_kept = array
    elif i == 10:
        sys.shoal_test_kept[0] = -7
    return float(array[0]), float(sys.shoal_test_kept[0]) if i >= 3 else None


def keep_a_part(array, i):
    if i == 3:
        sys.shoal_test_kept = array[:10]
    elif i == 4:
        sys.shoal_test_kept[:] = -7
    return float(array[0])


def keep_its_memory(array, i):
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    if i == 3:
        sys.shoal_test_kept = memoryview(base).cast("B").cast("d")
    elif i == 4:
        sys.shoal_test_kept[0] = -7
    return float(array[0])


def drop_kept():
    del sys.shoal_test_kept
    gc.collect()


def change_header(array, i):
    seen = array.shape, array.strides, array.dtype.str, array.flags.writeable
    change = i % 5
    if change == 0:
        array.shape = array.shape[::-1]
    elif change == 1:
        array.flags.writeable = False
    elif change == 2:
        array.dtype = "i8"
    elif change == 3:
        array.shape = (10, -1)
    return seen


def watch(array, i):
    before = sys.__dict__.get("shoal_test_watch")
    sys.shoal_test_watch = weakref.ref(array)
    return before is None or before() is None


def same_objects(first, second, *rest):
    return first is second, [item[0] is first for item in rest if isinstance(item, list)]


def raise_with_array(array, i):
    if i == 5:
        raise ValueError(i)
    array[0] += 1
    return float(array[0])


def give_back(array, i):
    return array if i % 7 == 0 else i


def write_and_give_back(array, i):
    array[0] = i
    return array


def fork_and_write(array, i):
    if i == 2 and os.fork() == 0:
        array[:] = -1
        os._exit(0)
    return float(array[0])


def shape_and_sum(array, i):
    array += 0
    return array.shape, array.dtype.str, float(array.sum()), array.flags.f_contiguous


def sum_of_table(table, array, i):
    array[0] += 1
    return table["a"] + float(array[0]) + i


def pairs(array, count=COUNT):
    return [(array, i) for i in range(count)]


def in_one_chunk(pool, function, items):
    return pool.starmap(function, items, chunksize=len(items))


@pytest.mark.parametrize("make", [shared, numbers])
@pytest.mark.parametrize("size", [1_000, 10_000, LARGE], ids=["in-stream", "in-message", "large"])
def test_what_one_element_writes_the_next_does_not_see(one, make, size):
    array = make(size)
    total = float(numbers(size)[:COUNT].sum())
    assert in_one_chunk(one, read_and_write_every_third, pairs(array)) == [total] * COUNT
    assert in_one_chunk(one, write_last, pairs(array)) == [float(size)] * COUNT
    assert in_one_chunk(one, read, pairs(array)) == [float(i + 1) for i in range(COUNT)]
    assert float(array[0]) == 1.0


def test_an_array_that_a_task_keeps_is_its_own_from_then_on(one):
    seen = in_one_chunk(one, keep_third, pairs(shared(), 20))
    assert seen == [(1.0, None if i < 3 else 1.0 if i < 10 else -7.0) for i in range(20)]
    one.apply(drop_kept)
    assert in_one_chunk(one, read, pairs(shared(), 3)) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("keep", [keep_a_part, keep_its_memory])
def test_what_is_written_through_something_kept_is_not_seen_by_later_elements(one, keep):
    assert in_one_chunk(one, keep, pairs(shared(), 20)) == [1.0] * 20
    one.apply(drop_kept)


def test_each_element_has_an_array_as_it_was_sent_whatever_others_did_to_theirs(one):
    seen = in_one_chunk(one, change_header, pairs(shared()))
    assert seen == [((LARGE,), (8,), "<f8", True)] * COUNT
    seen = in_one_chunk(one, change_header, pairs(shared().reshape(10, -1)))
    assert seen == [((10, LARGE // 10), (8 * LARGE // 10, 8), "<f8", True)] * COUNT


def test_the_array_of_an_element_that_is_over_is_gone(one):
    assert all(in_one_chunk(one, watch, pairs(shared())))


def test_arguments_that_are_one_object_arrive_as_one(one):
    for array in (shared(), shared(1_000), numbers()):
        assert in_one_chunk(one, same_objects, [(array, array, i) for i in range(5)]) == [(True, [])] * 5
    for array in (shared(), shared(1_000)):
        assert in_one_chunk(one, same_objects, [(array, array, [array], i) for i in range(5)]) == [(True, [True])] * 5


def test_an_element_that_raises_leaves_the_others_as_they_are(one):
    array = shared()
    with pytest.raises(ValueError, match="5"):
        in_one_chunk(one, raise_with_array, pairs(array, 20))
    outcomes = one.imap(raising_pair, pairs(array, 20), chunksize=20)
    seen = []
    while len(seen) < 20:
        try:
            seen.append(next(outcomes))
        except ValueError:
            seen.append(None)
    assert seen == [None if i == 5 else 2.0 for i in range(20)]


def raising_pair(pair):
    return raise_with_array(*pair)


def test_results_that_are_the_array_are_the_callers_own(one):
    array = shared()
    results = in_one_chunk(one, give_back, pairs(array, 30))
    for i, result in enumerate(results):
        if i % 7 == 0:
            assert float(result[0]) == 1.0
            result[0] = -i
        else:
            assert result == i
    written = in_one_chunk(one, write_and_give_back, pairs(array, 10))
    assert [float(result[0]) for result in written] == [float(i) for i in range(10)]
    assert [float(result[1]) for result in written] == [2.0] * 10 and float(array[0]) == 1.0


@pytest.mark.skipif("address" in os.environ.get("SHOAL_SANITIZER", ""), reason="a fork of a sanitized worker")
def test_a_child_that_a_task_forks_writes_for_itself(one):
    assert in_one_chunk(one, fork_and_write, pairs(shared(), 20)) == [1.0] * 20


@pytest.mark.parametrize(
    "shape",
    [
        lambda a: a[::2],
        lambda a: a.reshape(100, -1).T,
        lambda a: a.reshape(100, -1)[:, 3:700],
        lambda a: a[5:-7],
        lambda a: a.reshape(10, 10, 10, 10, -1),
        lambda a: a.astype("M8[s]"),
        lambda a: a.view("f4,f4"),
        lambda a: a[:0],
        lambda a: a[0:1].reshape(()),
    ],
    ids=["strided", "fortran", "columns", "slice", "five-axes", "times", "records", "empty", "scalar"],
)
@pytest.mark.parametrize("make", [shared, numbers])
def test_arrays_of_any_form_arrive_as_with_one_call_each(one, make, shape):
    array = shape(make())
    function = shape_and_sum if array.dtype.kind == "f" else describe
    assert in_one_chunk(one, function, pairs(array, 12)) == [one.apply(function, (array, i)) for i in range(12)]


def describe(array, i):
    return array.shape, array.dtype.str, array.strides, array.tobytes()[:64]


def test_arrays_of_objects_and_subclasses_arrive_whole(one):
    words = np.array(["a", "b", {"c": 1}], dtype=object)
    assert in_one_chunk(one, describe_items, [(words, i) for i in range(4)]) == [["a", "b", {"c": 1}]] * 4
    masked = np.ma.masked_array(numbers(), numbers() > 3)
    assert in_one_chunk(one, sum_of, [(masked, i) for i in range(4)]) == [6.0] * 4


def describe_items(array, i):
    return list(array)


def sum_of(array, i):
    return float(array.sum())


def test_handles_and_arrays_together(one):
    table, array = shoal.share({"a": 100}), shared()
    assert in_one_chunk(one, sum_of_table, [(table, array, i) for i in range(20)]) == [102.0 + i for i in range(20)]
    swapped = in_one_chunk(one, sum_with_table, [(array, table, i) for i in range(20)])
    assert swapped == [102.0 + i for i in range(20)]


def sum_with_table(array, table, i):
    return sum_of_table(table, array, i)


def test_what_all_are_to_see_is_seen_by_all_and_what_is_readonly_stays_so(one):
    is_open = shoal.share(np.zeros(LARGE), writable=True)
    assert in_one_chunk(one, count_up, pairs(is_open, 20)) == [float(i + 1) for i in range(20)]
    assert float(is_open[0]) == 20.0
    readonly = shoal.share(numbers(), readonly=True)
    assert in_one_chunk(one, is_writeable, pairs(readonly, 20)) == [False] * 20


def count_up(array, i):
    array[0] += 1
    return float(array[0])


def is_writeable(array, i):
    return array.flags.writeable


def test_it_is_the_same_through_the_executor_and_imap():
    array = shared()
    with shoal.ProcessPoolExecutor(1) as executor:
        assert list(executor.map(write_last, [array] * 20, range(20), chunksize=10)) == [float(LARGE)] * 20


def kill_self(array, number, i):
    if i == 7:
        os.kill(os.getpid(), 9)
    array[0] += 1
    return float(array[0])


def test_a_batch_goes_on_behind_an_element_that_killed_its_worker_and_the_error_names_all_arguments():
    with shoal.ProcessPoolExecutor(1) as executor:
        array = shared()
        results = executor.map(kill_self, [array] * 20, [1.5] * 20, range(20), chunksize=20)
        assert [next(results) for _ in range(7)] == [2.0] * 7
        with pytest.raises(shoal.WorkerLost, match=r"kill_self\(.*, 1\.5, 7\)"):
            next(results)
    with shoal.Pool(1) as pool:
        outcomes = pool.imap(kill_pair, [(array, 1.5, i) for i in range(20)], chunksize=20)
        seen = []
        while len(seen) < 20:
            try:
                seen.append(next(outcomes))
            except shoal.WorkerLost:
                seen.append(None)
        assert seen == [None if i == 7 else 2.0 for i in range(20)]


def kill_pair(triple):
    return kill_self(*triple)


# ---- a kernel that does not say which pages were written ----

REFUSED = 25  # ENOTTY


class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]


def refuse_pagemap_scan():
    """As before Linux 6.7: ioctl(PAGEMAP_SCAN) is not known."""
    load, if_equal, answer = 0x20, 0x15, 0x06
    steps = (Filter * 6)(
        Filter(load, 0, 0, 0),  # number of the system call
        Filter(if_equal, 0, 3, 16),  # ioctl
        Filter(load, 0, 0, 24),  # its second argument
        Filter(if_equal, 0, 1, 0xC0606610),
        Filter(answer, 0, 0, 0x00050000 | REFUSED),
        Filter(answer, 0, 0, 0x7FFF0000),
    )
    program = Program(len(steps), steps)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.prctl(22, 2, ctypes.addressof(program), 0, 0) == 0  # the filter


def scan_is_refused():
    import errno
    import fcntl

    with open("/proc/self/pagemap", "rb") as pagemap:
        try:
            fcntl.ioctl(pagemap, 0xC0606610, bytearray(96))
        except OSError as error:
            return errno.errorcode[error.errno]
    return None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls")
def test_where_the_kernel_does_not_tell_what_was_written_elements_see_the_same():
    with shoal.Pool(1, refuse_pagemap_scan) as pool:
        assert pool.apply(scan_is_refused) == "ENOTTY"
        array = shared()
        total = float(numbers()[:COUNT].sum())
        assert in_one_chunk(pool, read_and_write_every_third, pairs(array)) == [total] * COUNT
        assert in_one_chunk(pool, write_last, pairs(array)) == [float(LARGE)] * COUNT
        assert in_one_chunk(pool, read, pairs(array)) == [float(i + 1) for i in range(COUNT)]
