# SPDX-License-Identifier: BSD-3-Clause
"""Functions by value: all that a function is comes along, in another process and in this one."""

import inspect
import pickle
import sys
import textwrap
import types

import pytest

import shoal
from by_value_function_cases import CASES, CASES_3_12, ELSEWHERE_ONLY

ALL = CASES if sys.version_info < (3, 12) else {**CASES, **CASES_3_12}


@pytest.mark.parametrize("name", ALL)
def test_in_a_process_that_has_not_defined_it(fresh_python, tmp_path, name):
    define, check = map(textwrap.dedent, ALL[name])
    file = tmp_path / "pickle"
    protocols = "(2, 5)"
    dump = (
        f"\nimport pickle, shoal, sys\npickle.dump([shoal.dumps(it, p) for p in {protocols}], open(sys.argv[1], 'wb'))"
    )
    fresh_python(define + dump, file)
    fresh_python(
        "import pickle, sys\nfor stream in pickle.load(open(sys.argv[1], 'rb')):\n    it = pickle.loads(stream)\n"
        + textwrap.indent(check, "    "),
        file,
    )


@pytest.mark.parametrize("name", [name for name in ALL if name not in ELSEWHERE_ONLY])
def test_in_the_process_that_has_defined_it(fresh_python, name):
    define, check = map(textwrap.dedent, ALL[name])
    fresh_python(f"{define}\nimport pickle, shoal\nit = pickle.loads(shoal.dumps(it))\n{check}")


def make_pair():
    count = 0

    def add():
        nonlocal count
        count += 1

    def get():
        return count

    return add, get


def test_one_pickler_keeps_cells_and_namespaces_together():
    import io

    add, get = make_pair()
    file = io.BytesIO()
    pickler = shoal.Pickler(file)
    pickler.dump(add)
    pickler.dump(get)
    file.seek(0)
    unpickler = shoal.Unpickler(file)
    add, get = unpickler.load(), unpickler.load()
    add()
    assert get() == 1
    assert add.__globals__ is get.__globals__


def test_two_loads_are_two_functions_with_two_namespaces():
    stream = shoal.dumps(make_pair()[0])
    first, second = pickle.loads(stream), pickle.loads(stream)
    assert first is not second
    assert first.__globals__ is not second.__globals__
    assert first.__closure__[0] is not second.__closure__[0]


def test_functions_without_a_module_are_found_where_they_live(monkeypatch):
    module = types.ModuleType("a_home")
    exec("def function(): return 1\nclass C:\n    def method(self): return 2", vars(module))
    monkeypatch.setitem(sys.modules, "a_home", module)
    for function in (module.function, module.C.method):
        function.__module__ = None
        assert pickle.loads(shoal.dumps(function)) is function
        assert shoal.dumps(function, 4) == pickle.dumps(function, 4)


def test_what_is_no_module_is_no_home_of_a_function_or_class(monkeypatch):
    def function():
        return 1

    class C:
        pass

    for obj in (function, C):
        obj.__module__, obj.__qualname__ = None, obj.__name__
        monkeypatch.setitem(sys.modules, "a_home", types.SimpleNamespace(**{obj.__name__: obj}))
        assert b"a_home" not in shoal.dumps(obj)
        assert pickle.loads(shoal.dumps(obj)) is not None


def test_modules_that_make_attributes_when_asked_are_asked(monkeypatch):
    lazy, home = types.ModuleType("a_lazy_module"), types.ModuleType("a_home")
    exec("def function(): return 1", vars(home))
    home.function.__module__ = None
    lazy.__getattr__ = lambda name: vars(home)[name]
    monkeypatch.setitem(sys.modules, "a_lazy_module", lazy)
    assert pickle.loads(shoal.dumps(home.function)) is home.function


def test_methods_that_are_found_by_their_names_are_written_as_pickle_does():
    for method in (shoal.Pickler.dump, textwrap.TextWrapper().wrap, [].append):
        assert shoal.dumps(method, 4) == pickle.dumps(method, 4)


def test_a_class_method_of_the_interpreter_as_its_class_holds_it():
    descriptor = vars(dict)["fromkeys"]
    assert pickle.loads(shoal.dumps(descriptor)) is descriptor


def test_what_a_function_does_not_use_is_not_in_its_pickle():
    space = {"__name__": "space", "used": 1, "unused": 2}
    exec("def function(): return used, 'name'", space)
    stream = shoal.dumps(space["function"])
    assert b"used" in stream
    assert b"unused" not in stream
    assert b"function" in stream


@pytest.mark.parametrize("kind", ["signature", "flags", "lines"])
def test_code_is_the_same_in_every_part(kind):
    def parts(code):
        if kind == "signature":
            yield code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_nlocals, code.co_varnames
            yield code.co_cellvars, code.co_freevars, code.co_names, code.co_name, getattr(code, "co_qualname", None)
        elif kind == "flags":
            yield code.co_flags, code.co_stacksize, code.co_code, getattr(code, "co_exceptiontable", None)
        else:
            yield code.co_filename, code.co_firstlineno, list(code.co_lines())
            yield list(code.co_positions()) if hasattr(code, "co_positions") else None
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from parts(constant)
            else:
                yield type(constant), constant

    for module in (textwrap, inspect, pickle, types):
        with open(module.__file__, encoding="utf-8") as source:
            code = compile(source.read(), module.__file__, "exec")
        assert list(parts(pickle.loads(shoal.dumps(code)))) == list(parts(code))


def test_bytes_that_are_no_code_are_refused():
    from shoal import _rebuild

    for wrong in (b"", b"\3", bytes(sys.version_info[:2]) + bytes(4), bytes(sys.version_info[:2]) + bytes(40)):
        with pytest.raises(shoal.UnpicklingError, match="code"):
            _rebuild._code(wrong)
    with pytest.raises(shoal.UnpicklingError, match="bytes"):
        _rebuild._code("text")


NAMES_SOURCE = """
import shoal, sys

def make(filename, names):
    namespace = {}
    exec(compile(f"def made({', '.join(names)}): return [{', '.join(names)}]", filename, "exec"), namespace)
    return namespace["made"]

# A name that came as a file's name first, and so many others that they push each other out of any table.
first = make("kept_as_file", ["other"])
functions = [first, make("<b>", ["kept_as_file"])]
for i in range(1500):
    names = [f"name_{i}", f"a{i}", f"a_long_name_of_more_than_forty_eight_characters_{i}", "é"]
    functions.append(make("<c>", names))
for stream in [shoal.dumps(function) for function in functions + functions[:100]]:
    code = shoal.loads(stream).__code__
    assert all(name is sys.intern(str(name)) for name in code.co_varnames)
    print(code.co_filename, *code.co_varnames)
"""


def test_names_of_code_are_the_interned_ones_whatever_came_before(fresh_python):
    lines = fresh_python(NAMES_SOURCE, env={"PYTHONIOENCODING": "utf-8"}).stdout.splitlines()
    assert lines[:2] == ["kept_as_file other", "<b> kept_as_file"]
    made = [f"<c> name_{i} a{i} a_long_name_of_more_than_forty_eight_characters_{i} é" for i in range(1500)]
    assert lines[2:1502] == made
    assert lines[1502:] == lines[:100]
