# SPDX-License-Identifier: BSD-3-Clause
"""Random object graphs of which some objects stay outside: persistent ids, asked and answered as by pickle.

Which objects stay outside is decided by what they are, so that both picklers are given the same answers. They ask about
the same objects in the same order, temporary ones included, and write the same bytes; what is loaded has the same
shape, with the very objects in their places.
"""

import io
import pickle

import hypothesis
import pytest
from hypothesis import strategies as st

import shoal
from graphs import graphs, shape

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
EXAMPLES = hypothesis.settings(
    phases=[hypothesis.Phase.generate],
    max_examples=60,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    derandomize=True,
    database=None,
)
MANY = 500
REFUSALS = (TypeError, ValueError, AttributeError, KeyError, RecursionError, pickle.PicklingError)


def make_classes(module, outside, as_text):
    """A Pickler and an Unpickler of this module that keep objects of the types `outside` outside of the stream."""

    class Pickler(module.Pickler):
        def __init__(self, *args, kept, asked):
            super().__init__(*args)
            self.kept, self.asked = kept, asked

        def persistent_id(self, obj):
            self.asked.append(obj)
            if len(self.asked) > MANY:
                raise ValueError("without a memo it may be exponential")
            if type(obj).__name__ not in outside:
                return None
            self.kept.append(obj)
            return f"number {len(self.kept) - 1}" if as_text else ("number", len(self.kept) - 1)

    class Unpickler(module.Unpickler):
        def __init__(self, *args, kept):
            super().__init__(*args)
            self.kept = kept

        def persistent_load(self, pid):
            return self.kept[int(pid.split()[1]) if isinstance(pid, str) else pid[1]]

    return Pickler, Unpickler


def dump(pickler_type, obj, protocol, fast=False):
    """(bytes or the type of the refusal, what was kept outside, what was asked about)."""
    file, kept, asked = io.BytesIO(), [], []
    pickler = pickler_type(file, protocol, kept=kept, asked=asked)
    pickler.fast = fast
    try:
        pickler.dump(obj)
    except REFUSALS as error:
        return type(error), kept, asked
    return file.getvalue(), kept, asked


def assert_asked_alike(ours, theirs):
    """The very same objects, and what was made for the occasion equal."""
    assert [type(obj).__name__ for obj in ours] == [type(obj).__name__ for obj in theirs]
    for our, their in zip(ours, theirs, strict=True):
        if our is not their and not isinstance(their, pickle.PickleBuffer):
            assert shape(our) == shape(their)


NAMES = ["Plain", "Slots", "list", "dict", "tuple", "str", "int", "Data", "Frozen", "Named", "set", "bytes", "NoneType"]
NAMES += ["type", "function", "ndarray", "partial", "builtin_function_or_method"]
OUTSIDE = st.sets(st.sampled_from(NAMES), max_size=4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@EXAMPLES
@hypothesis.given(graph=graphs(), outside=OUTSIDE)
def test_persistent_ids_of_any_graph_are_as_with_pickle(protocol, graph, outside):
    pickler, unpickler = make_classes(pickle, outside, as_text=protocol == 0)
    our_pickler, our_unpickler = make_classes(shoal, outside, as_text=protocol == 0)
    stream, kept, asked = dump(pickler, graph, protocol)
    ours, our_kept, our_asked = dump(our_pickler, graph, protocol)
    if stream is RecursionError or ours is RecursionError:
        return
    assert_asked_alike(our_asked, asked)
    assert ours == stream
    if isinstance(stream, type):
        return
    try:
        expected = unpickler(io.BytesIO(stream), kept=kept).load()
    except Exception as error:
        with pytest.raises(type(error)):
            our_unpickler(io.BytesIO(stream), kept=kept).load()
        return
    wanted = shape(expected)
    assert shape(our_unpickler(io.BytesIO(stream), kept=kept).load()) == wanted
    assert shape(unpickler(io.BytesIO(ours), kept=our_kept).load()) == wanted
    assert shape(our_unpickler(io.BytesIO(ours), kept=our_kept).load()) == wanted


@pytest.mark.parametrize("protocol", PROTOCOLS)
@EXAMPLES
@hypothesis.given(graph=graphs(), outside=OUTSIDE)
def test_without_a_memo_they_are_as_with_pickle_too(protocol, graph, outside):
    pickler, our_pickler = (make_classes(module, outside, as_text=protocol == 0)[0] for module in (pickle, shoal))
    stream, _, asked = dump(pickler, graph, protocol, fast=True)
    ours, _, our_asked = dump(our_pickler, graph, protocol, fast=True)
    if isinstance(stream, type) and frozenset in map(type, asked):
        return  # C pickle counts them as nested in each other, and the fiftieth as a cycle (or has a KeyError)
    assert isinstance(ours, type) == isinstance(stream, type)
    if isinstance(stream, bytes):  # of a cycle each goes round as often as it likes
        assert_asked_alike(our_asked, asked)
        assert ours == stream


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_stays_outside_comes_back_as_itself(protocol):
    class Outside:
        pass

    pickler, unpickler = make_classes(shoal, {"Outside"}, as_text=protocol == 0)
    one, other = Outside(), Outside()
    stream, kept, _ = dump(pickler, [one, {"other": other}, (one,)], protocol)
    first, second, third = unpickler(io.BytesIO(stream), kept=kept).load()
    assert first is one
    assert second["other"] is other
    assert third[0] is one
