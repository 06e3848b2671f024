# SPDX-License-Identifier: BSD-3-Clause
"""Large buffers of every kind reach a task byte by byte, whatever their number, size, alignment and type."""

import array
import hashlib
import os
import threading

import pytest

import shoal

np = pytest.importorskip("numpy")


KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def pool():
    with shoal.Pool(1) as pool:
        yield pool


def noise(size_bytes):
    return np.random.default_rng(size_bytes).integers(0, 256, size_bytes, np.uint8)


def digest(value):
    return hashlib.blake2b(np.ascontiguousarray(value).view(np.uint8).data).hexdigest()


def digests(values):
    return [digest(value) for value in values]


@pytest.mark.parametrize("size_bytes", [32 * KIB, 64 * KIB, MIB, 4 * MIB, 8 * MIB])
@pytest.mark.parametrize("more", [-65, -1, 0, 1, 63, 64, 200])
def test_every_size_arrives_whole(pool, size_bytes, more):
    value = noise(size_bytes + more)
    assert pool.apply(digest, (value,)) == digest(value)


@pytest.fixture(scope="module")
def pool_elsewhere():
    """Its worker runs on another CPU than we do."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    with shoal.Pool(1) as pool:
        os.sched_setaffinity(0, cpus[:1])
        try:
            pool.apply(os.sched_setaffinity, (0, cpus[-1:]))
            yield pool
        finally:
            os.sched_setaffinity(0, cpus)


@pytest.mark.parametrize("size_bytes", [64 * KIB, 256 * KIB, MIB])
@pytest.mark.parametrize("more", [-65, 0, 1, 63])
def test_what_goes_to_another_cpu_and_back_arrives_whole(pool_elsewhere, size_bytes, more):
    value = noise(size_bytes + more)
    assert pool_elsewhere.apply(digest, (value,)) == digest(value)
    copy = pool_elsewhere.apply(np.add, (value, np.uint8(1)))
    assert np.array_equal(copy, value + np.uint8(1))


@pytest.mark.parametrize("first", [0, 1, 3, 8, 63, 64, 65])
def test_sources_of_any_alignment_arrive_whole(pool, first):
    value = noise(6 * MIB)[first:]
    assert pool.apply(digest, (value,)) == digest(value)


def test_many_arrays_of_different_sizes_arrive_in_their_order(pool):
    values = [noise(size) for size in (MIB, 40 * KIB, 33 * KIB + 1, 3 * MIB + 7, 10, 64 * KIB, 0, 5 * MIB)] * 3
    assert pool.apply(digests, (values,)) == digests(values)


@pytest.mark.parametrize("dtype", ["i1", "<u2", ">i4", "f2", "f8", "c16", "?", "S7", "U5", [("a", "i4"), ("b", "f8")]])
def test_arrays_of_any_type_come_back_equal(pool, dtype):
    value = np.resize(np.arange(1000).astype(dtype) if isinstance(dtype, str) else np.zeros(1000, dtype), MIB)
    copy = pool.apply(same, (value,))
    assert copy.dtype == value.dtype and copy.shape == value.shape and copy.tobytes() == value.tobytes()


@pytest.mark.parametrize("dtype", ["M8[ns]", "m8[s]"])
def test_arrays_of_times_come_back_equal(pool, dtype):
    value = np.arange(MIB).astype(dtype)
    copy = pool.apply(same, (value,))
    assert copy.dtype == value.dtype and (copy == value).all()


def same(value):
    return value


LARGE = noise(5 * MIB)


@pytest.mark.parametrize(
    "value",
    [LARGE.tobytes(), bytearray(LARGE), memoryview(LARGE.tobytes()), array.array("d", range(MIB))],
    ids=["bytes", "bytearray", "memoryview", "array.array"],
)
def test_buffers_of_other_kinds_arrive_whole(pool, value):
    assert pool.apply(hash_of, (value,)) == hash_of(value)


def hash_of(value):
    return hashlib.blake2b(value).hexdigest()


def test_a_data_frame_arrives_whole(pool):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(MIB), "b": np.arange(MIB) * 0.5, "c": np.arange(MIB) % 7})
    frame["d"] = frame["c"].astype("category")
    pandas.testing.assert_frame_equal(pool.apply(same, (frame,)), frame)


STRIDED = {
    "every-second-column": lambda a: a[:, ::2],
    "every-third-row": lambda a: a[::3],
    "backwards": lambda a: a[::-1, ::-1],
    "inner-block": lambda a: a[10:-10, 5:-7],
    "transposed-block": lambda a: a[10:-10, 5:-7].T,
    "fortran": lambda a: np.asfortranarray(a),
    "three-dimensions": lambda a: a.reshape(64, -1, 16)[:, 1:-1, ::3].transpose(2, 0, 1),
    "repeated": lambda a: np.broadcast_to(a[0], a.shape),
    "one-column": lambda a: a.reshape(-1, 4)[:, 3],
    "field": lambda a: a.reshape(-1, 2).view([("x", a.dtype), ("y", a.dtype)])["y"],
}


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">f4", "f8", "c16", "S3"])
@pytest.mark.parametrize("name", list(STRIDED))
def test_arrays_that_are_not_contiguous_come_back_equal(pool, name, dtype):
    value = STRIDED[name]((np.arange(320 * KIB) % 251).astype(dtype).reshape(1024, -1))
    copy = pool.apply(same, (value,))
    assert copy.dtype == value.dtype and copy.shape == value.shape and copy.tobytes() == value.tobytes()


def test_other_threads_run_while_many_buffers_are_copied(pool):
    """And what they change, they change in their own arrays."""
    values = [noise(64 * KIB) for _ in range(256)]
    expected = digests(values)
    done = threading.Event()
    thread = threading.Thread(target=lambda: [None for _ in iter(done.is_set, True)])
    thread.start()
    try:
        assert pool.apply(digests, (values,)) == expected
    finally:
        done.set()
        thread.join()
