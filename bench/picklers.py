# SPDX-License-Identifier: BSD-3-Clause
"""The picklers that the rows compare, and how they are driven: both sides in the same way.

`dumps(value, 5)` and `loads(stream)`; each side loads the stream that it wrote itself.
"""

import dataclasses
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager

import frame

PROTOCOL = 5


@dataclasses.dataclass(frozen=True)
class Codec:
    dumps: Callable
    loads: Callable


# Functions, so that each side imports its own pickler only.


def shoal_codec() -> Codec:
    import shoal

    return Codec(shoal.dumps, shoal.loads)


def pickle_codec() -> Codec:
    return Codec(pickle.dumps, pickle.loads)


def cloudpickle_codec() -> Codec:
    try:
        import cloudpickle
    except ImportError:
        raise frame.SkipRow("needs cloudpickle") from None
    return Codec(cloudpickle.dumps, cloudpickle.loads)


PEERS = {"pickle": pickle_codec, "cloudpickle": cloudpickle_codec}


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is pickled. `is_right` compares a copy with the value."""

    make: Callable[[], object]
    is_right: Callable[[object, object], bool]


def check(codec: Codec, subject: Subject, value) -> bytes:
    stream = codec.dumps(value, PROTOCOL)
    if not subject.is_right(codec.loads(stream), value):
        raise AssertionError("what comes back differs from what was written")
    return stream


def dumps_calls(make_codec, subject: Subject) -> AbstractContextManager[frame.Rounds]:
    codec, value = make_codec(), subject.make()
    check(codec, subject, value)
    return frame.ready(frame.each(codec.dumps, value, PROTOCOL))


def loads_calls(make_codec, subject: Subject) -> AbstractContextManager[frame.Rounds]:
    """What was loaded is freed before the next call: that is part of the time."""
    codec, value = make_codec(), subject.make()
    return frame.ready(frame.each(codec.loads, check(codec, subject, value)))


# The same for values of which each is pickled, and each stream is loaded, only once: whatever a pickler remembers of
# one does not help it with the next.


def first_dumps_calls(make_codec, subject: Subject) -> AbstractContextManager[frame.Rounds]:
    codec = make_codec()
    check(codec, subject, subject.make())
    return frame.ready(frame.each_new(subject.make, codec.dumps, PROTOCOL))


def first_loads_calls(make_codec, subject: Subject) -> AbstractContextManager[frame.Rounds]:
    codec = make_codec()
    check(codec, subject, subject.make())
    return frame.ready(frame.each_new(lambda: codec.dumps(subject.make(), PROTOCOL), codec.loads))
