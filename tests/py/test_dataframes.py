# SPDX-License-Identifier: BSD-3-Clause
"""pandas and pyarrow objects travel by their buffers, arrive equal, and keep the semantics of a copy."""

import pytest

import shoal

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")

ROWS = 50_000

NAMES = [f"name {n % 1000}" for n in range(ROWS)]

FRAMES = {
    "numeric": lambda: pd.DataFrame({"i": np.arange(ROWS), "f": np.arange(ROWS) / 3, "g": np.arange(ROWS, dtype="f4")}),
    "one-block": lambda: pd.DataFrame(np.arange(4.0 * ROWS).reshape(ROWS, 4), columns=list("abcd")),
    "strings": lambda: pd.DataFrame({"s": pd.Series(NAMES)}),
    "objects": lambda: pd.DataFrame({"o": pd.Series(NAMES, dtype=object)}),
    "categories": lambda: pd.DataFrame({"c": pd.Categorical(NAMES)}),
    "times": lambda: pd.DataFrame(
        {
            "t": pd.date_range("2020", periods=ROWS, freq="s"),
            "z": pd.date_range("2020", periods=ROWS, freq="s", tz="UTC"),
            "d": pd.to_timedelta(np.arange(ROWS), unit="s"),
        }
    ),
    "nullable": lambda: pd.DataFrame({"i": pd.array([1, None] * (ROWS // 2), dtype="Int64")}),
    "hierarchical": lambda: pd.DataFrame(
        {"v": np.arange(ROWS) / 7}, index=pd.MultiIndex.from_product([range(ROWS // 100), range(100)])
    ),
    "empty": lambda: pd.DataFrame({"v": []}),
}


def echo(frame):
    return frame


def change(frame):
    frame.iloc[0:10] = frame.iloc[10:20].values
    return frame.iloc[0:20]


@pytest.fixture(scope="module")
def pool():
    with shoal.Pool(2) as pool:
        yield pool


@pytest.mark.parametrize("name", list(FRAMES))
def test_a_frame_arrives_equal(pool, name):
    frame = FRAMES[name]()
    back = pool.apply(echo, (frame,))
    pd.testing.assert_frame_equal(back, frame)


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "empty"])
def test_what_is_written_into_a_frame_nobody_else_sees(pool, name):
    frame = FRAMES[name]()
    expected = change(frame.copy())
    pd.testing.assert_frame_equal(pool.apply(change, (frame,)), expected)
    pd.testing.assert_frame_equal(frame, FRAMES[name]())
    first, second = pool.apply(echo, (frame,)), pool.apply(echo, (frame,))
    change(first)
    pd.testing.assert_frame_equal(second, frame)


def test_a_frame_over_arena_arrays_is_sent_without_a_copy(pool):
    frame = pd.DataFrame({"v": shoal.share(np.arange(1_000_000.0))}, copy=False)
    before = pool._engine.stats()["arena_used"]
    waiting = [pool.apply_async(lambda f: float(f.v.sum()), (frame,)) for _ in range(20)]
    assert pool._engine.stats()["arena_used"] - before < frame.v.nbytes
    assert [each.get(60) for each in waiting] == [frame.v.sum()] * 20


TIMES = {
    "dates": lambda: np.arange(40_000).astype("M8[s]").reshape(4, 10_000),
    "small": lambda: np.arange(8).astype("M8[D]").reshape(2, 4),
    "durations": lambda: np.arange(40_000).astype("m8[ns]"),
    "big-endian": lambda: np.arange(40_000).astype(">M8[ms]"),
    "columns-first": lambda: np.asfortranarray(np.arange(40_000).astype("M8[s]").reshape(4, 10_000)),
    "in-pieces": lambda: np.arange(80_000).astype("M8[s]").reshape(8, 10_000)[::2, ::-1],
    "none": lambda: np.arange(0).astype("M8[s]"),
    "one": lambda: np.array(np.datetime64("NaT")),
    "in-the-arena": lambda: shoal.share(np.arange(40_000).astype("M8[s]")),
}


@pytest.mark.parametrize("name", list(TIMES))
def test_arrays_of_times_arrive_equal_and_writable(pool, name):
    array = TIMES[name]()
    back = pool.apply(echo, (array,))
    assert back.dtype == array.dtype and back.shape == array.shape and back.flags.writeable
    assert np.array_equal(np.ascontiguousarray(back).view("i8"), np.ascontiguousarray(array).view("i8"))
    assert back.flags.f_contiguous or not array.flags.f_contiguous
    back[...] = np.array(0).astype(back.dtype)
    again = pool.apply(echo, (array,))
    assert np.array_equal(np.ascontiguousarray(again).view("i8"), np.ascontiguousarray(array).view("i8"))


def test_a_large_array_of_times_is_copied_once(pool):
    array = np.arange(1_000_000).astype("M8[ns]")
    before = pool._engine.stats()["arena_used"]
    waiting = pool.apply_async(len, (array,))
    used = pool._engine.stats()["arena_used"] - before
    assert waiting.get(60) == 1_000_000
    assert used in (0, *range(array.nbytes, array.nbytes + 65_536))


# ---- Arrow ----


def arrow_cases():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"n": np.arange(ROWS), "s": NAMES, "l": [[1, 2], None] * (ROWS // 2)})
    return {
        "table": table,
        "slice": table.slice(10, 1000),
        "batch": table.to_batches()[0],
        "array": pa.array(np.arange(ROWS)),
        "chunks": pa.chunked_array([np.arange(ROWS), np.arange(3)]),
        "dictionary": pa.array(NAMES).dictionary_encode(),
        "schema": table.schema,
        "buffer": pa.py_buffer(bytes(100_000)),
    }


@pytest.mark.parametrize("name", ["table", "slice", "batch", "array", "chunks", "dictionary", "schema", "buffer"])
def test_arrow_objects_arrive_equal(pool, name):
    thing = arrow_cases()[name]
    back = pool.apply(echo, (thing,))
    assert type(back) is type(thing) and back.equals(thing)


def test_arrow_memory_stays_read_only(pool):
    pa = pytest.importorskip("pyarrow")
    assert not pool.apply(lambda buffer: buffer.is_mutable, (pa.py_buffer(bytes(100_000)),))


def test_a_frame_of_arrow_columns_arrives_equal(pool):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"q": pd.array(range(ROWS), dtype="int64[pyarrow]"), "s": pd.array(NAMES, "string[pyarrow]")})
    pd.testing.assert_frame_equal(pool.apply(echo, (frame,)), frame)
