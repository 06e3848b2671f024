# SPDX-License-Identifier: BSD-3-Clause
"""Functions, classes and modules that cannot be imported where they are loaded: defined in one script, used in another.

The loading script uses plain `pickle.loads` and has never imported Shoal itself.
"""

import gc
import pickle
import sys
import textwrap
import types
import weakref

import pytest

import shoal
from by_value_cases import CASES, NEEDS_PROTOCOL_2

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("name", CASES)
def test_defined_in_one_script_it_works_in_another(fresh_python, tmp_path, name):
    define, check = map(textwrap.dedent, CASES[name])
    file = tmp_path / "pickle"
    first = 2 if name in NEEDS_PROTOCOL_2 else 0
    dump = f"""
import pickle, shoal, sys
pickle.dump([shoal.dumps(it, p) for p in range({first}, 6)], open(sys.argv[1], 'wb'))
"""
    fresh_python(define + dump, file)
    body = textwrap.indent(check, "    ")
    fresh_python(
        "import pickle, sys\n"
        "for stream in pickle.load(open(sys.argv[1], 'rb')):\n"
        "    it = pickle.loads(stream)\n" + body + "\n"
        "    it = pickle.loads(stream)\n" + body,
        file,
    )


@pytest.mark.parametrize(
    ("open_file", "message"),
    [
        (lambda path: closed(open(path)), "Cannot pickle closed files"),
        (lambda path: open(path, "a"), "not opened for reading: a"),
        (lambda path: sys.__stdin__, "standard input"),
    ],
)
def test_files_that_cannot_be_read_say_why(open_file, message, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("text")
    monkeypatch.setattr(sys, "stdin", sys.__stdin__)
    file = open_file(path)
    with pytest.raises(shoal.PicklingError, match=message):
        shoal.dumps(file)
    if file is not sys.stdin:
        file.close()


def closed(file):
    file.close()
    return file


def test_a_name_that_runs_code_when_it_is_looked_up_may_remove_its_module():
    class Name(str):
        __slots__ = ()

        def __hash__(self):
            sys.modules.pop("shortlived", None)
            gc.collect()
            return super().__hash__()

        __eq__ = str.__eq__

    module = sys.modules["shortlived"] = types.ModuleType("shortlived")
    exec("def function(): return 5", vars(module))
    copy = types.FunctionType(module.function.__code__, {})
    copy.__module__, copy.__qualname__ = "shortlived", Name("function")
    del module
    assert pickle.loads(shoal.dumps(copy))() == 5
    assert "shortlived" not in sys.modules


def test_a_class_can_be_sent_in_fast_mode():
    import io

    file = io.BytesIO()
    pickler = shoal.Pickler(file)
    pickler.fast = True
    cls = make_class()
    pickler.dump([cls, cls()])
    loaded = pickle.loads(file.getvalue())
    assert loaded[0] is cls
    assert type(loaded[1]) is cls


def make_counter():
    count = 0

    def increase():
        nonlocal count
        count += 1
        return count

    return increase


def make_class():
    class Local:
        value = 1

    return Local


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_loaded_closure_has_a_life_of_its_own(protocol):
    increase = make_counter()
    increase()
    copy = pickle.loads(shoal.dumps(increase, protocol))
    assert copy() == 2
    assert copy() == 3
    assert increase() == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_can_be_imported_goes_by_reference(protocol):
    for obj in (make_class, pickle.Pickler, len, textwrap.dedent, types.SimpleNamespace):
        assert shoal.dumps(obj, protocol) == pickle.dumps(obj, protocol)


def test_a_function_that_was_replaced_under_its_name_goes_by_value(monkeypatch):
    original = make_counter
    monkeypatch.setattr(sys.modules[__name__], "make_counter", None)
    copy = pickle.loads(shoal.dumps(original))
    assert copy is not original
    assert copy()() == 1


def test_a_class_that_comes_home_is_the_same_class():
    cls = make_class()
    assert pickle.loads(shoal.dumps(cls)) is cls
    assert type(pickle.loads(shoal.dumps(cls()))) is cls


def test_two_definitions_are_two_classes():
    first, second = make_class(), make_class()
    assert pickle.loads(shoal.dumps([first, second])) == [first, second]


def test_loading_an_unchanged_class_leaves_the_living_one_alone():
    cls = make_class()
    stream = shoal.dumps(cls)
    cls.value = 2
    assert pickle.loads(stream) is cls
    assert cls.value == 2


def test_a_class_changed_at_its_source_is_changed_where_it_was_sent(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    fresh_python(
        "import pickle, shoal, sys\n"
        "class C: value = 1\n"
        "streams = [shoal.dumps(C())]\n"
        "C.value = 2\n"
        "streams.append(shoal.dumps(C))\n"
        "pickle.dump(streams, open(sys.argv[1], 'wb'))",
        file,
    )
    fresh_python(
        "import pickle, sys\n"
        "first, second = pickle.load(open(sys.argv[1], 'rb'))\n"
        "instance = pickle.loads(first)\n"
        "assert instance.value == 1\n"
        "cls = pickle.loads(second)\n"
        "assert cls is type(instance) and instance.value == 2\n"
        "pickle.loads(first)\n"
        "assert instance.value == 2",
        file,
    )


def test_a_class_is_not_kept_alive_by_having_been_sent():
    cls = make_class()
    pickle.loads(shoal.dumps(cls))
    seen = weakref.ref(cls)
    del cls
    gc.collect()
    assert seen() is None


def test_the_same_function_gives_the_same_bytes_in_every_process(fresh_python):
    script = (
        "import shoal, sys\n"
        "a = 1\nb = 'text'\n"
        "def f(x, y=3): return [a, b, x in (1, 2), lambda z: z + y]\n"
        "sys.stdout.write(shoal.dumps(f).hex())"
    )
    seen = {fresh_python(script, env={"PYTHONHASHSEED": str(seed)}).stdout for seed in (0, 1, 2)}
    assert len(seen) == 1


def test_code_of_another_python_is_refused_with_both_versions():
    stream = shoal.dumps(lambda: 1)
    mine = bytes(sys.version_info[:2])
    assert stream.count(mine) == 1
    with pytest.raises(shoal.UnpicklingError, match=r"Python 3\.99.*Python 3\.\d+ cannot run it"):
        pickle.loads(stream.replace(mine, bytes((3, 99))))


def test_damaged_code_is_refused():
    stream = shoal.dumps(lambda: "a constant")
    assert stream.count(b"a constant") == 1
    with pytest.raises(shoal.UnpicklingError, match="damaged"):
        pickle.loads(stream.replace(b"a constant", b"a Constant"))


def test_reconstructors_check_what_a_stream_tells_them():
    from shoal import _rebuild

    code = _rebuild._code(_code_bytes(make_counter()))
    assert code.co_name == "increase"
    with pytest.raises(ValueError, match="closure"):
        _rebuild._function(_code_bytes(make_counter()), {})
    with pytest.raises(TypeError, match="cells"):
        _rebuild._function(_code_bytes(make_counter()), {}, (1,))
    with pytest.raises(TypeError):
        _rebuild._function(_code_bytes(make_counter()), None)
    with pytest.raises(TypeError):
        _rebuild._fill_cell(1, 2)


def _code_bytes(function):
    """How the code travels: the one bytes object in the pickle of a code object."""
    (found,) = (arg for op, arg, _ in _opcodes(shoal.dumps(function.__code__)) if isinstance(arg, bytes))
    return found


def _opcodes(stream):
    import pickletools

    return pickletools.genops(stream)
