# SPDX-License-Identifier: BSD-3-Clause
"""One definition, one stream: in any process, under any hash seed, and sent on by a process that has received it."""

import pytest

DEFINED = """
import dataclasses, enum, functools, typing
def function(x): return x in {'a', 'b', 'c'} and [y for y in (1, 2)]
def closure(factor): return lambda x: x * factor
class Small:
    members = frozenset({'p', 'q', 'r'})
    def method(self): return Small, super().__init__
@dataclasses.dataclass
class Data:
    x: int = 0
    y: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass
class Slotted:
    __slots__ = 'left', 'right'
    left: int
    right: list
class Colour(enum.Enum):
    RED = 1
    ALIAS = 1
class Named(typing.NamedTuple):
    a: int
    b: str = ''
@functools.wraps(function)
def wrapper(*args): return function(*args)
ALL = dict(function=function, closure=closure(2), small=Small, data=Data, colour=Colour, named=Named,
           wrapper=wrapper, instance=Data(), instances=[Data(), Data(3)], slotted=[Slotted(1, []), Slotted(2, [])])
"""
DUMP = "import pickle, shoal, sys\npickle.dump({k: shoal.dumps(v) for k, v in ALL.items()}, open(sys.argv[1], 'wb'))\n"
SEND_ON = """
import pickle, shoal, sys
streams = pickle.load(open(sys.argv[1], 'rb'))
again = {name: shoal.dumps(pickle.loads(stream)) for name, stream in streams.items()}
print([name for name in streams if again[name] != streams[name]])
"""


@pytest.fixture
def streams_of(fresh_python, tmp_path):
    def dump(seed):
        path = tmp_path / f"{seed}.pickle"
        fresh_python(DEFINED + DUMP, path, env={"PYTHONHASHSEED": str(seed)})
        return path

    return dump


def test_streams_are_the_same_under_every_hash_seed(streams_of):
    assert streams_of(1).read_bytes() == streams_of(2).read_bytes() == streams_of(3).read_bytes()


def test_streams_are_the_same_when_another_process_sends_on_what_it_received(streams_of, fresh_python):
    done = fresh_python(SEND_ON, streams_of(1), env={"PYTHONHASHSEED": "5"})
    assert done.stdout.strip() == "[]"
