# SPDX-License-Identifier: BSD-3-Clause
"""Dataclasses by value: their fields and parameters arrive with all that was said of them."""

import dataclasses
import io
import pickle
import subprocess
import sys

import pytest

import shoal
from carry import carry
from shoal import _rebuild

SLOTS = dataclasses.Field.__slots__

EVERY_KIND = """
import dataclasses, typing
class Other: pass
@dataclasses.dataclass(order=True)
class it:
    a: int
    b: 'str' = dataclasses.field(default='x', repr=False, hash=True, metadata={'unit': 'm'})
    c: typing.List[int] = dataclasses.field(default_factory=list, compare=False, hash=False)
    d: dataclasses.InitVar[int] = 4
    e: typing.ClassVar[int] = 5
    f: Other = dataclasses.field(default_factory=lambda: Other(), init=False)
    _: dataclasses.KW_ONLY
    g: tuple = (1, 2)
    h: bytes = None
def facts(cls):
    values = [[getattr(f, name) for name in dataclasses.Field.__slots__] for f in cls.__dataclass_fields__.values()]
    return [[v if type(v).__module__ == 'builtins' and not callable(v) else repr(v)[:20] for v in vs] for vs in values]
it.facts = repr(facts(it))
it.tell = staticmethod(lambda: repr(facts(it)))
"""
USE_EVERY_KIND = """
import dataclasses
fields = it.__dataclass_fields__
assert it.tell() == it.facts
assert fields['a'].default is dataclasses.MISSING and fields['a'].default_factory is dataclasses.MISSING
assert fields['a'].metadata is fields['c'].metadata is dataclasses._EMPTY_METADATA
assert dict(fields['b'].metadata) == {'unit': 'm'} and fields['c'].default_factory is list
assert fields['e']._field_type is dataclasses._FIELD_CLASSVAR
assert fields['d']._field_type is dataclasses._FIELD_INITVAR
assert type(fields['f'].default_factory()) is fields['f'].type
params = it.__dataclass_params__
assert params.order is params.init is params.eq is True and params.frozen is params.unsafe_hash is False
@dataclasses.dataclass
class Below(it):
    k: int = 9
assert Below(1, h=b'').b == 'x' and Below(1, h=b'').c == [] and Below(1, h=b'').k == 9
"""
LEADS_TO_ITSELF = """
import dataclasses
@dataclasses.dataclass
class it:
    a: object = dataclasses.field(default_factory=lambda: it, metadata={})
    b: object = None
metadata = {}
field = dataclasses.field(metadata=metadata)
metadata['itself'] = field
it.own = field
it.__dataclass_fields__['b'].type = it
"""
USE_WHAT_LEADS_TO_ITSELF = """
assert it().a is it and it.__dataclass_fields__['b'].type is it
assert it.own.metadata['itself'] is it.own
"""
STRANGE = """
import dataclasses
@dataclasses.dataclass
class it:
    a: int = 1
field = it.__dataclass_fields__['a']
field.repr = 'maybe'
field.kw_only = 2
field.default_factory = list
it.half = dataclasses.field()
del it.half.hash
it.both = dataclasses.field()
it.both.default = it.both.default_factory = 5
"""
USE_STRANGE = """
field = it.__dataclass_fields__['a']
assert (field.repr, field.kw_only, field.default, field.default_factory) == ('maybe', 2, 1, list)
assert not hasattr(it.half, 'hash') and it.half.init is True
assert it.both.default == it.both.default_factory == 5 and it.both.name is None
"""


@pytest.mark.parametrize(
    ("define", "use", "first"),
    [
        (EVERY_KIND, USE_EVERY_KIND, 2),  # InitVar has slots
        (LEADS_TO_ITSELF, USE_WHAT_LEADS_TO_ITSELF, 0),
        (STRANGE, USE_STRANGE, 2),
    ],
    ids=["every kind", "leads to itself", "changed by hand"],
)
def test_fields_arrive_as_they_are(fresh_python, tmp_path, define, use, first):
    carry(fresh_python, tmp_path, define, use, first_protocol=first)


def make_class(name="Local"):
    namespace = {"__name__": "__main__"}
    exec(f"import dataclasses\n@dataclasses.dataclass\nclass {name}:\n    a: int\n    b: str = ''", namespace)
    return namespace[name]


def test_a_field_alone_needs_no_shoal_to_be_loaded():
    @dataclasses.dataclass
    class Plain:
        a: int = 1

    field = dataclasses.fields(Plain)[0]
    stream = shoal.dumps(field)
    assert b"shoal" not in stream
    copy = pickle.loads(stream)
    assert [getattr(copy, name) for name in SLOTS if name != "metadata"] == [
        getattr(field, name) for name in SLOTS if name != "metadata"
    ]


def test_a_field_with_a_reducer_of_its_own_is_asked(monkeypatch):
    monkeypatch.setattr(dataclasses.Field, "__reduce__", lambda self: (str, ("asked",)), raising=False)
    assert b"asked" in shoal.dumps(make_class())
    monkeypatch.undo()
    assert b"asked" not in shoal.dumps(make_class())


def test_a_kind_of_field_of_its_own_stays_what_it_is():
    class Field(dataclasses.Field):
        __slots__ = ("more",)

    cls, own = make_class(), Field.__new__(Field)
    for name in SLOTS:
        setattr(own, name, getattr(cls.__dataclass_fields__["a"], name))
    own.more = 5
    cls.own = own
    stream = shoal.dumps((cls, own))
    assert shoal.loads(stream)[1].more == 5 and type(shoal.loads(stream)[1]) is Field


def test_a_persistent_id_is_asked_about_fields_and_what_is_in_them():
    asked = []

    class Pickler(shoal.Pickler):
        def persistent_id(self, obj):
            asked.append(obj)

    cls = make_class()
    Pickler(io.BytesIO()).dump(cls)
    field = dataclasses.fields(cls)[0]
    assert any(obj is field for obj in asked) and any(obj is field.type for obj in asked)


@pytest.mark.parametrize(
    "arguments",
    [(), (1,), (-1, "a"), (1 << 10, "a"), (3 << 3, "a"), (3 << 5, "a"), (1, 2), ("1", "a"), (1, "a", 1, 1, 1)],
)
def test_damaged_fields_are_refused(arguments):
    with pytest.raises(shoal.UnpicklingError):
        _rebuild._field(*arguments)


@pytest.mark.parametrize("bits", [-1, 1 << 10, "1", None])
def test_damaged_parameters_are_refused(bits):
    with pytest.raises(shoal.UnpicklingError):
        _rebuild._dataclass_params(bits)


def test_fields_are_those_of_the_module_that_is_imported_now():
    source = (
        "import sys, shoal\n"
        "define = 'import dataclasses\\n@dataclasses.dataclass\\nclass C:\\n    a: int'\n"
        "first = {'__name__': '__main__'}; exec(define, first)\n"
        "one = shoal.dumps(first['C'])\n"
        "shoal.loads(one)\n"
        "del sys.modules['dataclasses']\n"
        "second = {'__name__': '__main__'}; exec(define.replace('C', 'D'), second)\n"
        "two = shoal.dumps(second['D'])\n"
        "from shoal import _rebuild\n"
        "assert type(_rebuild._field(0, 'x')) is sys.modules['dataclasses'].Field\n"
        "assert second['D'].__dataclass_fields__['a'].default is sys.modules['dataclasses'].MISSING\n"
        "assert shoal.loads(two) is second['D']\n"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


@pytest.mark.parametrize("protocol", range(6))
def test_fields_that_hold_what_the_module_would_not_put_there(protocol):
    @dataclasses.dataclass
    class Odd:
        x: int = dataclasses.field(default=1, repr=1, hash="perhaps")

    Odd.kept = dataclasses.InitVar[int], Odd.__dataclass_params__
    Odd.kept[1].order = "odd"
    made = pickle.loads(shoal.dumps((Odd, Odd.kept, dataclasses.fields(Odd)), protocol))
    assert made[0] is Odd
    assert made[1][0].type is int and made[1][1].order == "odd"
    assert (made[2][0].repr, made[2][0].hash, made[2][0].default) == (1, "perhaps", 1)
