# SPDX-License-Identifier: BSD-3-Clause
"""numpy arrays, which `dumps` writes without asking them: what comes back is what pickle would give."""

import copyreg
import io
import pickle
import sys

import pytest

import shoal

np = pytest.importorskip("numpy")


class Labelled(np.ndarray):
    """A subclass, with an attribute that pickle drops."""


def read_only(array):
    array.flags.writeable = False
    return array


ARRAYS = {
    "floats": lambda: np.arange(12.0).reshape(3, 4),
    "empty": lambda: np.zeros((0, 3)),
    "scalar": lambda: np.array(7),
    "bools": lambda: np.array([True, False]),
    "complex": lambda: np.array([1j, 2]),
    "half": lambda: np.arange(3, dtype="f2"),
    "big-endian": lambda: np.arange(3, dtype=">i4"),
    "bytes": lambda: np.array([b"a", b"bc"]),
    "text": lambda: np.array(["ä", "ö"]),
    "records": lambda: np.array([(1, 2.0)], [("O", "i4"), ("T", "f8")]),
    "objects": lambda: np.array([1, "two", None], object),
    "dates": lambda: np.array(["2024-02-29"], "M8[D]"),
    "no-bytes": lambda: np.zeros(3, "S0"),
    "fortran": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "transposed": lambda: np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "column": lambda: np.arange(12.0).reshape(3, 4)[:, 1],
    "every-second": lambda: np.arange(12)[::2],
    "backwards": lambda: np.arange(12.0).reshape(3, 4)[::-1, ::-2],
    "one-value": lambda: np.broadcast_to(np.float64(3), (2, 3)),
    "part-of-fortran": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4))[1:],
    "fortran-read-only": lambda: read_only(np.asfortranarray(np.arange(12.0).reshape(3, 4))),
    "mixed-records": lambda: np.zeros((2, 2), [("a", "i4"), ("b", [("c", "f8", 2), ("d", "S3")])]),
    "aligned-records": lambda: np.zeros(4, np.dtype([("a", "i1"), ("b", "f8")], align=True))[::3],
    "records-of-objects": lambda: np.array([(1, "x")], [("a", "i4"), ("b", object)]),
    "read-only": lambda: read_only(np.arange(3)),
    "subclass": lambda: np.arange(3).view(Labelled),
    "masked": lambda: np.ma.masked_array([1, 2], [True, False]),
    "metadata": lambda: np.zeros(2, np.dtype("f8", metadata={"unit": "m"})),
    "five-dimensions": lambda: np.arange(32).reshape(2, 2, 2, 2, 2),
}


def assert_alike(copy, expected):
    assert type(copy) is type(expected)
    assert copy.dtype == expected.dtype and copy.shape == expected.shape and copy.strides == expected.strides
    assert copy.flags.writeable == expected.flags.writeable
    assert repr(copy.tolist()) == repr(expected.tolist())


@pytest.mark.filterwarnings("ignore:.*metadata")
@pytest.mark.parametrize("load", [pickle.loads, shoal.loads])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", list(ARRAYS))
def test_an_array_comes_back_as_pickle_gives_it(name, protocol, load):
    array = ARRAYS[name]()
    assert_alike(load(shoal.dumps(array, protocol)), pickle.loads(pickle.dumps(array, protocol)))


@pytest.mark.filterwarnings("ignore:.*metadata")
@pytest.mark.parametrize("name", list(ARRAYS))
def test_its_buffers_are_those_of_pickle(name):
    array = ARRAYS[name]()
    ours, theirs = [], []
    stream = shoal.dumps(array, 5, buffer_callback=ours.append)
    expected = pickle.dumps(array, 5, buffer_callback=theirs.append)
    assert [bytes(buffer.raw()) for buffer in ours] == [bytes(buffer.raw()) for buffer in theirs]
    assert_alike(pickle.loads(stream, buffers=ours), pickle.loads(expected, buffers=theirs))


def test_a_buffer_that_goes_out_of_band_is_the_arrays_own_memory():
    array, buffers = np.zeros(10), []
    stream = shoal.dumps(array, buffer_callback=buffers.append)
    copy = shoal.loads(stream, buffers=buffers)
    array[3] = 5
    assert copy[3] == 5


def test_a_callback_may_keep_a_buffer_in_band():
    stream = shoal.dumps(np.arange(3), buffer_callback=lambda buffer: True)
    assert pickle.loads(stream).tolist() == [0, 1, 2]


def test_a_callback_that_releases_the_buffer_gives_an_exception():
    with pytest.raises(ValueError, match="released"):
        shoal.dumps(np.arange(3), buffer_callback=lambda buffer: buffer.release())


def test_identity_is_kept_and_types_are_shared():
    array = np.arange(3.0)
    first, second, third, dtype = shoal.loads(shoal.dumps([array, array, np.ones(2), array.dtype]))
    assert first is second and third is not first
    assert first.dtype is third.dtype is dtype is np.dtype("f8")


def test_a_type_that_was_sent_before_the_array_is_the_same_after():
    dtype, array = shoal.loads(shoal.dumps([np.dtype("f8"), np.arange(3.0)]))
    assert array.dtype == dtype


def test_arrays_of_one_stream_do_not_share_memory():
    first, second = shoal.loads(shoal.dumps([np.arange(3), np.arange(3)]))
    first[0] = 9
    assert second.tolist() == [0, 1, 2]


def test_a_reducer_for_arrays_goes_before(monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, np.ndarray, lambda array: (list, (array.tolist(),)))
    assert shoal.loads(shoal.dumps(np.arange(3))) == [0, 1, 2]


def test_hooks_see_arrays_and_their_parts():
    seen = []

    class Watching(shoal.Pickler):
        def persistent_id(self, obj):
            seen.append(type(obj))

    class Asking(shoal.Pickler):
        def reducer_override(self, obj):
            seen.append(type(obj))
            return NotImplemented

    for pickler, part in ((Watching, pickle.PickleBuffer), (Asking, type(np.dtype("f8")))):
        seen.clear()
        file = io.BytesIO()
        pickler(file, 5).dump(np.arange(3.0))
        assert np.ndarray in seen and part in seen
        assert pickle.loads(file.getvalue()).tolist() == [0, 1, 2]


def test_it_loads_where_shoal_is_not(fresh_python):
    stream = shoal.dumps([np.arange(3.0), np.ones((2, 2), "i1")])
    fresh_python(
        f"""
        import sys
        sys.modules["shoal"] = None
        import pickle
        first, second = pickle.loads({stream!r})
        assert first.tolist() == [0, 1, 2] and second.tolist() == [[1, 1], [1, 1]]
        """
    )


@pytest.mark.parametrize("name", list(ARRAYS))
def test_dumping_keeps_neither_the_array_nor_memory(name):
    array = ARRAYS[name]()
    kept = array if array.base is None else array.base

    def counts():
        return [sys.getrefcount(each) for each in (array, array.dtype, kept)]

    shoal.dumps([array, array])
    before, growth = counts(), []
    for _ in range(10):  # caches of the interpreter and of numpy fill up at first
        blocks = sys.getallocatedblocks()
        for _ in range(200):
            shoal.dumps([array, array])
        growth.append(sys.getallocatedblocks() - blocks)
    assert counts() == before
    assert min(growth) < 100
