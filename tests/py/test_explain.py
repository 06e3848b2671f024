# SPDX-License-Identifier: BSD-3-Clause
"""explain: what a pickle is made of, and why; from objects through our own dumps, and from others' pickles."""

import array
import collections
import functools
import gc
import io
import json
import pickle
import random
import re
import subprocess
import sys
import textwrap
import types
import weakref

import pytest

import shoal
import shoal._rebuild
from shoal._explain_shapes import SHAPES
from shoal.explain import explain_stream

numpy = pytest.importorskip("numpy")
cloudpickle = pytest.importorskip("cloudpickle")

BIG = list(range(20_000))
NO_RECONSTRUCTORS = set()  # of shoal._rebuild: what no stream names
TABLE = numpy.zeros((1000, 10))


class Client:
    """Importable here."""

    def __init__(self, data):
        self.data = data


def closure(client, number=3):
    def train():
        return client, number

    return train


def from_main(source, name="it"):
    """What a script defines, made here."""
    namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(textwrap.dedent(source), namespace)
    return namespace[name]


def part(whole, why):
    """The only part that is there for this reason."""
    (found,) = [each for each in whole.walk() if each.why == why]
    return found


def whys(whole):
    return {child.why for child in whole}


def line(whole, why):
    return part(whole, why).line()


def in_itself():
    inner = {}
    outer = (inner, [inner])
    inner["outer"] = outer
    return outer


# ---- sizes ----

SAMPLES = {
    "atoms": [None, True, -5, 10**50, 1.5, "text", b"bytes", bytearray(b"array"), "é" * 500, 2**31, 300],
    "containers": [[1], (1, 2, 3, 4), (), {1: [2]}, {"a": {"b": ()}}, {1, 2}, frozenset([3]), [], {}],
    "shared": [BIG, BIG, {"x": BIG}],
    "instance": Client({"a": Client(3)}),
    "function": closure(Client([1, 2])),
    "functions that share": [closure(BIG), closure(BIG)],
    "table": [TABLE, TABLE.T, numpy.float64(3), numpy.arange(3, dtype=">i2"), array.array("d", [1.5])],
    "partial": functools.partial(closure(1), BIG, key=BIG),
    "class": from_main("class it:\n    x = 5\n    def f(self, y=[1]): return self.x\n    p = property(f)"),
    "enum": from_main("import enum\nclass it(enum.Enum):\n    A = 1\n    B = 'b'"),
    "module": types.ModuleType("dynamic"),
    "ordered": collections.OrderedDict(a=1, b=collections.deque([1, 2])),
    "exception": ValueError("text", 3),
    "tuple in itself": in_itself(),
    "by name": [len, json.dumps, collections, Client, Client.__init__, type(None)],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    "dumps", [shoal.dumps, cloudpickle.dumps, pickle.dumps], ids=["shoal", "cloudpickle", "pickle"]
)
def test_the_parts_add_up_to_the_pickle(name, protocol, dumps):
    try:
        data = dumps(SAMPLES[name], protocol)
    except (pickle.PicklingError, AttributeError, TypeError):
        pytest.skip("cannot be pickled by this one")
    (whole,) = explain_stream(data)
    assert whole.size == len(data)
    for each in whole.walk():
        assert each.size == each.own + each.folded_size + sum(child.size for child in each)
        assert [child.size for child in each] == sorted((child.size for child in each), reverse=True)
        assert str(each) and repr(each)


def test_several_pickles_in_one_stream():
    wholes = explain_stream(shoal.dumps([1]) + pickle.dumps("text", 0) + cloudpickle.dumps(closure(2)))
    assert [whole.kind for whole in wholes] == ["list", "str", "function"]


def test_out_of_band_buffers_are_told_with_their_sizes():
    whole = shoal.explain([TABLE], out_of_band=True)
    data = part(whole, "data")
    assert (data.kind, data.size - data.own) == ("buffer", 0)
    assert data.size > 80_000 > whole.size - data.size
    assert "out of band of 80,000" in str(whole)
    (without,) = explain_stream(pickle.dumps(TABLE, 5, buffer_callback=lambda buffer: None))
    assert part(without, "data").line() == "data: buffer out of band"


def test_a_shared_object_is_told_once():
    whole = shoal.explain({"first": BIG, "second": [BIG]})
    first, second = part(whole, "item ['first']"), part(whole, "item ['second']").children[0]
    assert first.size > 40_000 > 20 > second.size
    assert (second.by, second.same_as) == ("shared", first)
    assert second.line() == "item 0: list, shared: told at item ['first']"


def test_the_first_of_many_small_values_are_listed_and_the_others_counted():
    whole = shoal.explain(BIG)
    assert len(whole) == 100
    assert whole.folded == len(BIG) - 100
    assert whole.detail == "of 20,000"


# ---- functions ----


def test_a_closure_variable_and_who_has_it():
    whole = shoal.explain(closure(Client(BIG)))
    assert (whole.kind, whole.name, whole.by) == ("function", "closure.<locals>.train", "value")
    assert whole.reason == "defined in a function of test_explain"
    client = part(whole, "closure variable 'client'")
    assert client.line() == "closure variable 'client': test_explain.Client object"
    assert client is whole.children[0]
    assert line(whole, "attribute 'data'") == "attribute 'data': list of 20,000"
    assert line(whole, "closure variable 'number'") == "closure variable 'number': int 3"


def test_which_global_drags_in_the_data():
    whole = shoal.explain(from_main("import json\ntable = [0] * 5000\nn = 3\ndef it(): return table, n, json.dumps"))
    assert whole.reason == "defined in __main__"
    assert whole.children[0].line() == "global 'table': list of 5,000"
    assert line(whole, "global 'n'") == "global 'n': int 3"
    assert line(whole, "global 'json'") == "global 'json': module json by reference"


def test_defaults_annotations_and_attributes():
    whole = shoal.explain(
        from_main("def it(a, b=1, c=[1, 2], *, d={'k': 3}) -> str: return a\nit.extra = (4,)\nit.__doc__ = 'x' * 200")
    )
    assert line(whole, "default of 'c'") == "default of 'c': list of 2"
    assert line(whole, "default of 'd'") == "default of 'd': dict of 1"
    assert part(whole, "annotation of 'return'").name == "str"
    assert line(whole, "attribute 'extra'") == "attribute 'extra': tuple of 1"
    assert part(whole, "attribute '__doc__'").size > 200


def test_a_wrapped_function():
    @functools.wraps(from_main("data = [1] * 500\ndef it(): return data"))
    def outer():
        pass

    whole = shoal.explain(outer)
    assert part(whole, "wrapped function").kind == "function"
    assert part(whole, "global 'data'") in part(whole, "wrapped function").children


def test_where_a_function_was_defined():
    whole = shoal.explain(closure(1))
    assert whole.detail == f"(test_explain.py:{closure.__code__.co_firstlineno + 1})"


def test_functions_of_one_namespace_each_tell_their_own_globals():
    source = "a = [1] * 500\nb = [2] * 500\ndef f(): return a\ndef g(): return b\nit = [f, g]"
    first, second = sorted(shoal.explain(from_main(source)), key=lambda child: child.offset)
    assert part(first, "global 'a'").size > 1000
    assert part(second, "global 'b'").size > 1000


def test_a_recursive_closure_ends():
    def make():
        def f(n):
            return f(n - 1)

        return f

    whole = shoal.explain(make())
    mention = part(whole, "closure variable 'f'")
    assert mention.same_as is whole


# ---- why by value, why by reference ----


def test_reasons_for_functions(monkeypatch):
    assert shoal.explain(from_main("def it(): pass")).reason == "defined in __main__"
    local = from_main("def it():\n    def inner(): pass\n    return inner")()
    assert shoal.explain(local).reason == "defined in __main__, in a function"
    gone = types.FunctionType(closure.__code__, {"__name__": "no_such_module"})
    assert shoal.explain(gone).reason == "there is no module no_such_module"
    other = types.FunctionType(closure.__code__, globals())
    assert shoal.explain(other).reason == "test_explain.closure is another object now"
    monkeypatch.delattr(sys.modules[__name__], "closure")
    assert shoal.explain(other).reason == "test_explain has no closure"


def test_a_registered_module():
    shoal.register_pickle_by_value(sys.modules[__name__])
    try:
        assert shoal.explain(closure).reason == "module test_explain is registered by value"
        assert part(shoal.explain(Client(1)), "its class").reason == "module test_explain is registered by value"
    finally:
        shoal.unregister_pickle_by_value(sys.modules[__name__])
    assert (
        shoal.explain(closure).line()
        == "function test_explain.closure by reference (importable as test_explain.closure)"
    )


def test_what_a_function_gives_is_no_object_of_its_name():
    assert shoal.explain(re.compile("a")).line() == "result of re._compile()"


def test_references_say_what_they_lead_to():
    kinds = {child.name: child.kind for child in shoal.explain([len, json.dumps, Client, collections.OrderedDict])}
    assert kinds == {
        "len": "function",
        "json.dumps": "function",
        "test_explain.Client": "class",
        "collections.OrderedDict": "class",
    }


# ---- classes, objects, modules ----


def test_a_class_and_its_attributes():
    whole = shoal.explain(
        from_main(
            """
            class Base: big = [1] * 500
            class it(Base):
                x: int = 5
                def method(self, y=Base): return y
                p = property(lambda self: 1)
                s = staticmethod(lambda: 2)
            """
        )
    )
    assert (whole.kind, whole.name, whole.by, whole.reason) == ("class", "it", "value", "defined in __main__")
    base = part(whole, "base class")
    assert (base.kind, base.name, base.by) == ("class", "Base", "value")
    assert part(base, "attribute 'big'").line() == "attribute 'big': list of 500"
    assert part(whole, "attribute 'method'").kind == "function"
    assert part(part(whole, "attribute 'p'"), "getter").kind == "function"
    assert part(part(whole, "attribute 's'"), "function").kind == "function"
    assert line(whole, "attribute 'x'") == "attribute 'x': int 5"


def test_an_instance_brings_its_class():
    cls = from_main("class it:\n    data = [1] * 500\n    def __init__(self): self.x = 1")
    whole = shoal.explain(cls())
    assert whole.line() == "it object"
    assert part(whole, "its class").by == "value"
    assert part(whole, "attribute 'x'").name == "1"


def test_every_reconstructor_of_ours_has_a_shape():
    named = {name for name in shoal._rebuild.__all__ if not name.startswith(("_describe_", "_list_"))}
    unknown = {f"shoal._rebuild.{name}" for name in named - NO_RECONSTRUCTORS} - set(SHAPES)
    assert not unknown, "say in pool/shoal/_explain_shapes.py what these make, or here that no stream names them"


def test_a_metaclass_is_told():
    whole = shoal.explain(from_main("class Meta(type): pass\nclass it(metaclass=Meta): pass"))
    assert part(whole, "metaclass").name == "Meta"


def test_an_enum_and_its_members():
    whole = shoal.explain(from_main("import enum\nclass it(enum.Enum):\n    A = 'a' * 300\n    B = 2"))
    assert (whole.kind, whole.name) == ("class", "it")
    assert max(each.size for each in whole.walk() if each.kind == "str") > 300


def test_a_dynamic_module():
    module = types.ModuleType("dynamic")
    exec("data = [1] * 500\ndef f(): return data", module.__dict__)
    whole = shoal.explain(module)
    assert (whole.kind, whole.name, whole.by) == ("module", "dynamic", "value")
    assert whole.reason == "it cannot be imported"
    assert line(whole, "attribute 'data'") == "attribute 'data': list of 500"
    assert part(whole, "attribute 'f'").kind == "function"


def test_arguments_of_a_call():
    whole = shoal.explain(functools.partial(closure, BIG, number=[5, 6]))
    assert line(whole, "argument 'number'") == "argument 'number': list of 2"
    assert line(whole, "argument") == "argument: list of 20,000"
    assert part(whole, "function").name == "test_explain.closure"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_tell_type_and_shape(protocol):
    whole = shoal.explain(TABLE, protocol)
    assert "numpy.ndarray float64 (1000, 10)" in whole.line()
    assert part(whole, "data").size > 80_000


# ---- others' pickles ----


def test_cloudpickles_functions_are_recognised():
    source = "data = [1] * 500\ndef it(a, b=[5, 6]): return data, a"
    (whole,) = explain_stream(cloudpickle.dumps(from_main(source)))
    assert (whole.kind, whole.name, whole.by) == ("function", "it", "value")
    assert line(whole, "global 'data'") == "global 'data': list of 500"
    assert line(whole, "default of 'b'") == "default of 'b': list of 2"
    (whole,) = explain_stream(cloudpickle.dumps(closure(BIG)))
    assert line(whole, "closure variable 'client'") == "closure variable 'client': list of 20,000"


def test_cloudpickles_classes_are_recognised():
    (whole,) = explain_stream(cloudpickle.dumps(from_main("class it:\n    x = [1] * 500\n    def f(self): return 1")))
    assert (whole.kind, whole.name, whole.by) == ("class", "it", "value")
    assert line(whole, "attribute 'x'") == "attribute 'x': list of 500"
    assert part(whole, "attribute 'f'").kind == "function"


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_in_every_protocol(protocol):
    (whole,) = explain_stream(pickle.dumps({"client": Client([1, 2]), "text": "x" * 300}, protocol))
    assert line(whole, "item ['client']") == "item ['client']: test_explain.Client object"
    assert line(whole, "attribute 'data'") == "attribute 'data': list of 2"
    assert part(whole, "item ['text']").size > 300


def test_nothing_is_imported_or_called():
    stream = b"cno_such_module_at_all\nf\n(S'rm'\ntR."
    (whole,) = explain_stream(stream)
    assert whole.line() == "no_such_module_at_all.f object"
    assert "no_such_module_at_all" not in sys.modules


def test_persistent_ids_and_extension_codes():
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("table", 7) if obj is BIG else None

    file = io.BytesIO()
    Pickler(file, 5).dump([BIG])
    (whole,) = explain_stream(file.getvalue())
    assert whole.children[0].kind == "persistent"
    (whole,) = explain_stream(b"\x80\x02\x82\x05.")
    assert whole.name == "extension code 5"


# ---- damage and size ----


@pytest.mark.parametrize(
    "stream", [b"", b"no pickle", b"\x80\x05", b"]a.", b"h\x05.", b"\x8e" + b"\xff" * 8, b"t.", b"\x85."]
)
def test_what_is_no_pickle_is_said_with_its_place(stream):
    with pytest.raises(shoal.UnpicklingError, match=r"not a pickle"):
        explain_stream(stream)


def test_damaged_pickles_never_do_more_than_raise():
    seeds = [shoal.dumps(SAMPLES[name], protocol) for name in ("function", "enum", "shared") for protocol in (2, 5)]
    choose = random.Random(5)
    for _ in range(600):
        data = bytearray(choose.choice(seeds)[:3000])
        for _ in range(choose.randrange(1, 6)):
            data[choose.randrange(len(data))] = choose.randrange(256)
        try:
            wholes = explain_stream(bytes(data))
        except shoal.UnpicklingError:
            continue
        for whole in wholes:
            assert str(whole) and whole.as_dict()


def test_depth_has_no_limit():
    depth = 50_000
    (whole,) = explain_stream(b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b".")
    assert whole.size == 2 * depth + 2
    assert len(str(whole).splitlines()) == 7
    whole.as_dict()


def test_nothing_is_kept_of_what_was_explained():
    client = Client(BIG)
    gone = weakref.ref(client)
    whole = shoal.explain(closure(client))
    del client
    gc.collect()
    assert gone() is None
    tree = weakref.ref(whole)
    del whole
    gc.collect()
    assert tree() is None


# ---- how it is shown ----


def test_the_text_is_a_tree_with_sizes_and_shares():
    whole = shoal.explain({"big": b"x" * 9000, "small": [1, 2]})
    assert str(whole).splitlines() == [
        "   9.0 KB  100%  dict of 2",
        "   9.0 KB  100%  ├─ item ['big']: bytes of 9,000",
        "     16 B   <1%  └─ item ['small']: list of 2",
    ]


def test_the_text_is_cut_and_says_how_much_is_left():
    whole = shoal.explain([[bytes([n]) * 1000] for n in range(50)])
    lines = whole.text(depth=1, parts=3).splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("└─ … and 47 more")
    assert lines[-1].split()[0] == "47.4"
    assert len(whole.text(min_bytes=2000).splitlines()) == 1


def test_as_dict_is_the_tree_for_json():
    whole = shoal.explain(closure(BIG))
    plain = json.loads(json.dumps(whole.as_dict()))
    assert (plain["kind"], plain["by"], plain["size"]) == ("function", "value", whole.size)
    assert plain["children"][0]["why"] == "closure variable 'client'"
    assert "children" not in whole.as_dict(depth=0)
    assert len(whole.as_dict(min_bytes=1000)["children"]) == 1


# ---- python -m shoal explain ----


def command(*arguments, data=None, directory=None):
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "explain", *arguments], input=data, capture_output=True, cwd=directory
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_the_command_takes_a_file_or_standard_input(tmp_path):
    data = cloudpickle.dumps(closure(BIG)) + pickle.dumps([1])
    (tmp_path / "it.pickle").write_bytes(data)
    for arguments, given in ((["it.pickle"], None), (["-"], data)):
        status, out, err = command(*arguments, data=given, directory=tmp_path)
        assert (status, err) == (0, "")
        assert "pickle 1 of 2" in out and "closure variable 'client': list of 20,000" in out


@pytest.mark.parametrize("expression", ["own.train", "own:train", "package.module.train", "[own.train, 1][0]"])
def test_the_command_takes_an_expression(tmp_path, expression):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    for path in ("own.py", "package/module.py"):
        (tmp_path / path).write_text("data = [1] * 500\ntrain = lambda: data\n")
    status, out, err = command(expression, directory=tmp_path)
    assert (status, err) == (0, "")
    assert "global 'data': list of 500" in out


def test_the_command_gives_json(tmp_path):
    status, out, _ = command("--json", "--depth", "1", "[[1], (x for x in 'ab').__class__]")
    (whole,) = json.loads(out)
    assert status == 0
    assert whole["kind"] == "list" and "children" not in whole["children"][0]


def test_the_command_says_what_is_wrong(tmp_path):
    status, out, err = command("no_such_thing_here")
    assert (status, out) == (1, "")
    assert "No module named 'no_such_thing_here'" in err
    (tmp_path / "file").write_text("hello")
    status, _, err = command("file", directory=tmp_path)
    assert status == 1 and "not a pickle" in err
    status, _, err = command("__import__('threading').Lock()")
    assert status == 1 and "cannot pickle '_thread.lock' object" in err
