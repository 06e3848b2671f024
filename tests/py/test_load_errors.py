# SPDX-License-Identifier: BSD-3-Clause
"""An exception while loading says what was being made and where in the pickle, and stays what it was."""

import contextlib
import gc
import io
import pickle
import sys
import weakref

import pytest

import shoal

HAS_NOTES = sys.version_info >= (3, 11)


class Refuses:
    def __setstate__(self, state):
        raise ValueError("bad state")


class Unmade:
    def __new__(cls, *args):
        if args:
            raise OSError(5, "no")
        return super().__new__(cls)

    def __reduce__(self):
        return Unmade, (1,)


class Number:
    def __reduce__(self):
        return int, ("x",)


def refuses():
    made = Refuses()
    made.x = 1
    return made


def notes(error):
    return getattr(error, "__notes__", [])


def failure(data, kind):
    with pytest.raises(kind) as info:
        shoal.loads(data)
    with pytest.raises(kind) as theirs:
        pickle.loads(data)
    assert (type(info.value), info.value.args) == (type(theirs.value), theirs.value.args)
    return info.value


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (refuses, ValueError, "test_load_errors.Refuses"),
        (Unmade, OSError, "test_load_errors.Unmade"),
        (Number, ValueError, "int"),
    ],
)
@pytest.mark.parametrize("protocol", range(6))
def test_what_was_being_made_and_where(make, kind, name, protocol):
    data = pickle.dumps(["first", make(), "x" * 100], protocol)
    error = failure(data, kind)
    if HAS_NOTES:
        (note,) = notes(error)
        at = int(note.removeprefix(f"while making {name} (byte ").removesuffix(" of the pickle)"))
        assert data.index(b"first") < at < data.index(b"x" * 100)


@pytest.mark.parametrize(
    ("data", "kind", "at"),
    [
        (pickle.dumps(["a" * 50])[:-9], pickle.UnpicklingError, 11),
        (b"cos\nnosuch\n.", AttributeError, 11),
        (b"a.", pickle.UnpicklingError, 1),
    ],
)
def test_damage_is_told_with_its_place(data, kind, at):
    with pytest.raises(kind) as info:
        shoal.loads(data)
    assert notes(info.value) == ([f"at byte {at} of the pickle"] if HAS_NOTES else [])


def test_the_end_of_a_file_is_an_eoferror_without_a_note():
    with pytest.raises(EOFError) as info:
        shoal.load(io.BytesIO(b""))
    assert not notes(info.value)


def test_in_a_file_the_object_is_told_without_a_place():
    with pytest.raises(ValueError, match="bad state") as info:
        shoal.load(io.BytesIO(pickle.dumps([refuses()])))
    assert notes(info.value) == (["while making test_load_errors.Refuses"] if HAS_NOTES else [])


class Interrupted:
    def __setstate__(self, state):
        raise KeyboardInterrupt


def test_what_is_no_exception_has_no_note():
    made = Interrupted()
    made.x = 1
    with pytest.raises(KeyboardInterrupt) as info:
        shoal.loads(pickle.dumps(made))
    assert not notes(info.value)


def test_an_unpickler_goes_on_after_a_failure():
    file = io.BytesIO(pickle.dumps([refuses()], 2) + pickle.dumps([1], 2))
    unpickler = shoal.Unpickler(file)
    with pytest.raises(ValueError, match="bad state"):
        unpickler.load()
    file.seek(len(pickle.dumps([refuses()], 2)))
    assert shoal.Unpickler(file).load() == [1]


class Fails:
    def __call__(self):
        raise ValueError("no")


class Finder(shoal.Unpickler):
    def find_class(self, module, name):
        return self.found


def test_nothing_is_kept_of_what_failed():
    unpickler = Finder(io.BytesIO(b"cx\ny\n(tR."))
    unpickler.found = Fails()
    gone = weakref.ref(unpickler.found)
    with contextlib.suppress(ValueError):
        unpickler.load()
    del unpickler.found
    gc.collect()
    assert gone() is None


def nothing(_):
    return None


@pytest.mark.leakcheck
def test_a_pools_caller_sees_it_too(pool):
    with pytest.raises(shoal.ArgumentDecodingError) as info:
        pool.apply(nothing, (refuses(),))
    text = str(info.value)
    assert "ValueError: bad state" in text
    assert not HAS_NOTES or "while making test_load_errors.Refuses (byte" in text


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("name", ["nothing", "OrderedDict.nothing", "OrderedDict.fromkeys.nothing", "f.<locals>.g"])
def test_a_name_that_is_not_there_is_told_with_its_module_as_pickle_does(name, protocol):
    lines = b"ccollections\n" + name.encode() + b"\n."
    text = b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    stream = lines if protocol < 4 else text
    with pytest.raises(AttributeError) as theirs:
        pickle.loads(stream)
    with pytest.raises(AttributeError) as ours:
        shoal.loads(stream)
    # "Can't pickle local attribute", says pickle before 3.13 while it loads
    assert str(ours.value) == str(theirs.value).replace("Can't pickle local", "Can't get local")
