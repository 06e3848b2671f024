# SPDX-License-Identifier: BSD-3-Clause
"""numpy arrays of objects: written from where the items lie, and what comes back is what pickle would give."""

import gc
import pickle
import sys

import pytest

import shoal
from leaking import leaks
from shoal import _rebuild

np = pytest.importorskip("numpy")

LOADERS = [pickle.loads, shoal.loads]


def objects(*items):
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def of_each_kind():
    shared, long = "".join(["sha", "red"]), "long" * 1000
    simple = [shared, shared, "", "ä", "€" * 100, "\ud800", 1, -(2**70), 1.5, None, True, b"bytes"]
    return objects(*simple, long, long, (1, 2), [3], {4: 5}, {6}, shared, b"long" * 1000)


ARRAYS = {
    "each-kind": of_each_kind,
    "never-filled": lambda: np.empty(5, object),
    "partly-filled": lambda: np.array([np.empty(3, object), np.array(["x", None, "y"], object)]),
    "scalar": lambda: np.array("text", object),
    "one": lambda: objects("one"),
    "two-dimensions": lambda: np.array([["a", "b", "c"], ["d", "e", "f"]], object),
    "transposed": lambda: np.array([["a", "b", "c"], ["d", "e", "f"]], object).T,
    "every-second": lambda: np.array(list("abcdefg"), object)[::2],
    "many": lambda: np.array([f"item {number}" for number in range(70_000)], object),
    "many-lists": lambda: objects(*([number] for number in range(3_000))),
    "many-and-one-list": lambda: objects(*(f"item {number}" for number in range(3_000)), []),
}


@pytest.fixture(scope="module")
def pool():
    with shoal.Pool(1) as pool:
        yield pool


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_as_pickle_gives_it(name, protocol, load):
    array = ARRAYS[name]()
    copy, expected = load(shoal.dumps(array, protocol)), pickle.loads(pickle.dumps(array, protocol))
    assert copy.dtype == expected.dtype and copy.shape == expected.shape and copy.strides == expected.strides
    assert repr(copy.tolist()) == repr(expected.tolist())


@pytest.mark.parametrize("load", LOADERS)
def test_objects_that_were_one_are_one(load):
    text, numbers, other = "".join(["te", "xt"]), (1, 2), [1]
    copy, *outside = load(shoal.dumps([objects(text, text, numbers, numbers, other, other), text, numbers, other]))
    for at in range(0, 6, 2):
        assert copy[at] is copy[at + 1] is outside[at // 2]


def test_within_a_pool_too(pool):
    text, other = "".join(["te", "xt"]), [1]
    copy, *outside = pool.apply(list, ([objects(text, text, other, other, "lone"), text, other],))
    assert copy[0] is copy[1] is outside[0] and copy[2] is copy[3] is outside[1] and copy[4] == "lone"


@pytest.mark.parametrize("name", ARRAYS)
def test_it_is_the_same_after_a_pool(pool, name):
    array = ARRAYS[name]()
    copy, expected = pool.apply(list, ([array],))[0], pickle.loads(pickle.dumps(array))
    assert copy.dtype == expected.dtype and copy.shape == expected.shape and copy.strides == expected.strides
    assert repr(copy.tolist()) == repr(expected.tolist()) and copy.flags.writeable


def test_large_arrays_in_a_pool_keep_what_is_one(pool):
    text, other = "".join(["te", "xt"]), [1]
    array = objects(*(f"item {number}" for number in range(5_000)), text, other)
    array[0], array[1_500], array[2_500], array[4_000] = text, other, array, None
    copy, *outside, again = pool.apply(list, ([array, text, other, array],))
    assert copy is again is copy[2_500] and copy[0] is copy[5_000] is outside[0]
    assert copy[1_500] is copy[5_001] is outside[1] and copy[4_000] is None and copy[4_999] == "item 4999"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (np.empty(3, object), 0),
        ([None], 0, ("x",)),
        (np.empty(3, object), 2, ("x", "y")),
        (np.empty(3, object), -1, ("x",)),
        (np.empty(3, object), 2**70, ("x",)),
        (np.empty(3, object), 0, ["x"]),
        (np.zeros(3), 0, ("x",)),
        (np.array(["here", None], object), 0, ("x",)),
        (np.empty((4, 4), object)[:, 1], 0, ("x",)),
        (np.broadcast_to(np.empty(1, object), 3), 0, ("x",)),
    ],
)
def test_items_are_put_only_where_there_is_room_for_objects(arguments):
    with pytest.raises((TypeError, ValueError)):
        _rebuild._put_items(*arguments)


def test_items_that_were_put_are_given_back():
    item, array = object(), np.empty(3, object)
    before = sys.getrefcount(item)
    _rebuild._put_items(array, 1, (item, item))
    assert array[0] is None and array[1] is array[2] is item
    with pytest.raises(ValueError, match="no free places"):
        _rebuild._put_items(array, 0, (item, item))
    del array
    assert sys.getrefcount(item) == before


def test_putting_items_keeps_no_memory():
    def put():
        array = np.empty(3, object)
        _rebuild._put_items(array, 0, ([1], "text"))
        with pytest.raises(TypeError):
            _rebuild._put_items(array, -1, ([2],))

    assert not leaks(put)


@pytest.mark.parametrize("load", LOADERS)
def test_an_array_may_contain_itself(load):
    array = objects("before", None, "after")
    array[1] = array
    copy = load(shoal.dumps(array))
    assert copy[1] is copy and copy[2] == "after"


@pytest.mark.parametrize("load", LOADERS)
def test_two_views_of_one_array_are_two_arrays(load):
    array = objects("a", "b")
    first, second, again = load(shoal.dumps([array, array[:], array]))
    assert first is again and first is not second and not np.shares_memory(first, second)


class Changing:
    """Changes the array that it is in while it is pickled."""

    def __init__(self, change):
        self.change = change

    def __reduce__(self):
        self.change()
        return str, ("changed",)


@pytest.mark.parametrize("load", LOADERS)
def test_items_that_are_replaced_meanwhile_were_saved_as_they_were(load):
    def replace():
        array[:] = "new"

    array = objects("first", Changing(replace), *(f"item {number}" for number in range(3_000)))
    expected = ["first", "changed", *array[2:]]
    assert load(shoal.dumps(array)).tolist() == expected


def test_memory_that_is_given_back_meanwhile_is_not_read():
    def shrink():
        array.resize(1, refcheck=False)

    array = objects("first", Changing(shrink), *(f"item {number}" for number in range(3_000)))
    assert shoal.loads(shoal.dumps(array)).tolist() == ["first", "changed", *(f"item {n}" for n in range(3_000))]


def test_a_file_that_changes_the_array_is_noticed():
    class File:
        def write(self, data):
            array.resize(1, refcheck=False)

    array = objects(*("long" * 100_000 + str(number) for number in range(3)))
    with pytest.raises(RuntimeError, match="changed size"):
        shoal.dump(array, File())


def test_what_cannot_be_pickled_is_said_with_its_place():
    array = objects("fine", lambda: None, (item for item in ()))
    with pytest.raises(TypeError, match=r"\[2\].*generator|generator.*\[2\]"):
        shoal.dumps({"table": array})


def test_dumping_leaves_the_items_alone():
    array = objects(*(f"item {number}" for number in range(2_000)), [1])
    shoal.dumps(array)
    gc.collect()
    before = [sys.getrefcount(item) for item in array]
    for _ in range(10):
        shoal.dumps(array)
    gc.collect()
    assert [sys.getrefcount(item) for item in array] == before


def test_it_loads_where_shoal_is_not(fresh_python):
    stream = shoal.dumps(np.array([["a", 1], ["b", None]], object))
    fresh_python(
        f"""
        import sys
        sys.modules["shoal"] = None
        import pickle
        assert pickle.loads({stream!r}).tolist() == [["a", 1], ["b", None]]
        """
    )
