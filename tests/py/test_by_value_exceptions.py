# SPDX-License-Identifier: BSD-3-Clause
"""Exceptions arrive with their chain, and without running an `__init__` that wants other arguments."""

import gc
import pickle
import sys
import traceback

import pytest

import shoal
from carry import carry
from exception_cases import CASES, NEEDS_PROTOCOL_2


@pytest.mark.parametrize("name", CASES)
def test_defined_in_one_script_it_works_in_another_and_at_home(fresh_python, tmp_path, name):
    carry(fresh_python, tmp_path, *CASES[name], first_protocol=2 if name in NEEDS_PROTOCOL_2 else 0)


class Plain(Exception):
    """Nothing of its own."""


class Picky(Exception):
    made = 0

    def __init__(self, kind, *, key):
        type(self).made += 1
        super().__init__(f"no {kind} {key}")
        self.key = key


def with_attribute(error):
    error.attribute = [1]
    return error


COMPLETE = [
    ValueError("x", 1),
    KeyError(),
    Plain("x"),
    with_attribute(Plain(1, 2)),
    OSError(2, "no", "file"),
    OSError(2, "no", "file", None, "other"),
    UnicodeDecodeError("utf-8", b"abc", 0, 1, "reason"),
    SystemExit(3),
    StopIteration(4),
    SyntaxError("m", ("f", 1, 2, "text")),
    ImportError("m", name="n", path="p"),
    BlockingIOError(11, "x", 5),
    MemoryError(),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("error", COMPLETE, ids=repr)
def test_what_pickle_can_do_stays_pickles_own(error, protocol):
    try:
        raise error
    except BaseException:  # it has a traceback now, and nothing else to lose
        assert shoal.dumps(error, protocol) == pickle.dumps(error, protocol)


class Repeats(Exception):
    def __init__(self, a, b=None):
        super().__init__(a, b)
        self.both = [a, b]


class Restores(Exception):
    def __init__(self, a):
        super().__init__(a)
        self.a = a

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.restored = True


def with_changed(error, **fields):
    for name, value in fields.items():
        setattr(error, name, value)
    return error


FIELDS = (
    *("value", "code", "msg", "name", "path", "errno", "strerror", "filename", "filename2", "characters_written"),
    *("lineno", "offset", "text", "end_lineno", "end_offset", "encoding", "object", "start", "end", "reason"),
)


def what_it_knows(error):
    fields = {name: getattr(error, name) for name in FIELDS if getattr(error, name, None) is not None}
    return type(error), error.args, error.__dict__, fields


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("error", [Repeats(1), Repeats(1, "b"), Restores(2)], ids=repr)
def test_an_init_that_repeats_its_arguments_gives_what_it_gives_with_pickle(error, protocol):
    expected = what_it_knows(pickle.loads(pickle.dumps(error, protocol)))
    assert what_it_knows(pickle.loads(shoal.dumps(error, protocol))) == expected


CHANGED = [
    with_changed(StopIteration(1), value=2),
    with_changed(SystemExit(1, 2), code=2),
    with_changed(SystemExit(1), code=None),
    with_changed(ImportError("m", name="n"), msg="other"),
    with_changed(OSError(2, "no"), filename2="b"),
    with_changed(OSError(2, "no", "file"), errno=3),
    with_changed(OSError("alone"), strerror="why"),
    with_changed(BlockingIOError(11, "x", 5), characters_written=6),
    with_changed(SyntaxError("m", ("f", 1, 2, "text")), end_lineno=4),
    with_changed(SyntaxError("m", ["f", 1, 2, "text"]), lineno=9),
    with_changed(SyntaxError(), filename="f"),
    with_changed(UnicodeDecodeError("utf-8", b"abc", 0, 1, "why"), start=1, reason="other"),
    with_changed(UnicodeTranslateError("abc", 0, 1, "why"), end=2),
    with_changed(NameError("x"), name="x"),
    with_changed(AttributeError("x", 2), name="x"),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("error", CHANGED, ids=repr)
def test_fields_that_were_changed_arrive_as_they_are(error, protocol):
    assert what_it_knows(pickle.loads(shoal.dumps(error, protocol))) == what_it_knows(error)


def test_no_python_runs_for_exceptions_that_know_no_others():
    called = []
    subjects = [*COMPLETE, *CHANGED, Repeats(1), Restores(2)]
    shoal.dumps(subjects)
    gc.disable()
    sys.setprofile(lambda frame, event, argument: called.append(frame.f_code) if event == "call" else None)
    try:
        shoal.dumps(subjects)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert called == []


@pytest.mark.parametrize("protocol", range(6))
def test_exceptions_that_can_be_imported_need_no_shoal(protocol):
    error = Picky("file", key=3)
    error.__cause__, error.__context__ = KeyError("k"), Plain("x")
    before = Picky.made
    stream = shoal.dumps(error, protocol)
    assert b"shoal" not in stream
    copy = pickle.loads(stream)
    assert (type(copy), copy.args, copy.key) == (Picky, ("no file 3",), 3)
    assert copy.__cause__.args == ("k",)
    assert type(copy.__context__) is Plain
    assert Picky.made == before


def test_a_chain_of_any_length():
    first = error = ValueError(0)
    for number in range(1, 100_000):
        error.__context__ = ValueError(number)
        error = error.__context__
    loaded = pickle.loads(shoal.dumps(first))
    length = 0
    while loaded is not None:
        assert loaded.args == (length,)
        length += 1
        loaded = loaded.__context__
    assert length == 100_000


def raise_chained():
    try:
        {}["key"]
    except KeyError as error:
        raise Picky("file", key=3) from error


def test_a_workers_exception_brings_its_chain_and_its_traceback(pool):
    with pytest.raises(Picky, match="no file 3") as caught:
        pool.apply(raise_chained)
    remote = caught.value.__cause__
    assert "raise_chained" in str(remote)
    assert remote.__cause__.args == ("key",)
    text = "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
    assert text.count("KeyError: 'key'") == 2  # as itself, and in the worker's text


def test_the_class_of_an_exception_can_die():
    import weakref

    class Local(Exception):
        def __init__(self):
            super().__init__(1, 2)

    seen = weakref.ref(Local)
    shoal.dumps(Local())
    del Local
    gc.collect()
    assert seen() is None
