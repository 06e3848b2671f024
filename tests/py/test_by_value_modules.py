# SPDX-License-Identifier: BSD-3-Clause
"""Modules by value: made by hand, or registered to travel with all that they have."""

import pickle
import sys
import types

import pytest

import shoal

PACKAGE = {
    "carried/__init__.py": "from . import sub\nvalue = 1\ndef f(): return value, sub.g()\ndef get(): return patched",
    "carried/sub.py": "secret = 'x'\ndef g(): return secret\nclass C:\n    def h(self): return secret\n",
    "carried/deep/__init__.py": "",
    "carried/deep/er.py": "def d(): return 'deep'\n",
}


@pytest.fixture
def carried(tmp_path):
    for name, text in PACKAGE.items():
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "home"


@pytest.fixture
def over_there(fresh_python, tmp_path, carried):
    """Runs a script that can import the package and dumps `it`; loads it where it cannot be imported."""

    def run(define, check):
        file = tmp_path / "pickle"
        start = f"import sys\nsys.path.insert(0, {str(carried)!r})\nimport pickle, shoal, types\n"
        fresh_python(start + define + "\nopen(sys.argv[1], 'wb').write(shoal.dumps(it))", file)
        fresh_python("import pickle, sys\nit = pickle.load(open(sys.argv[1], 'rb'))\n" + check, file)

    return run


def make_module(source="", name="made_by_hand"):
    module = types.ModuleType(name, "doc")
    exec(source, vars(module))
    return module


SETTER = "x = 1\ndef get(): return x\ndef put(v):\n    global x\n    x = v\ndef whole(): return globals()\n"


def test_a_module_and_its_functions_share_one_namespace_whichever_comes_first(over_there):
    for order in ("m, m.put, m.get", "m.put, m.get, m", "m.get, [m], m.put"):
        over_there(
            f"m = types.ModuleType('m')\nexec({SETTER!r}, vars(m))\nit = sorted([{order}], key=str) and ({order})",
            "import types\n"
            "flat = [y for x in it for y in (x if isinstance(x, list) else [x])]\n"
            "m, = (x for x in flat if isinstance(x, types.ModuleType))\n"
            "put, get = (next(x for x in flat if getattr(x, '__name__', 0) == n) for n in ('put', 'get'))\n"
            "put(7)\n"
            "assert m.x == get() == m.get() == 7 and put.__globals__ is vars(m) and m.put is put\n"
            "m.x = 8\n"
            "assert get() == 8 and 'm' not in sys.modules",
        )


def test_two_loads_are_two_modules_and_one_load_is_one():
    module = make_module(SETTER)
    stream = shoal.dumps([module, module, module.get])
    first, second = pickle.loads(stream), pickle.loads(stream)
    assert first[0] is first[1]
    assert first[0] is not second[0]
    first[0].put(2)
    assert (first[2](), second[2](), module.get()) == (2, 1, 1)
    assert "made_by_hand" not in sys.modules


def test_a_module_keeps_its_attributes_in_their_order():
    module = make_module("b = 1\na = 2\n_c = [3]\n__path__ = []\n")
    copy = pickle.loads(shoal.dumps(module))
    names = [name for name in vars(module) if name != "__builtins__"]
    assert [name for name in vars(copy) if name != "__builtins__"] == names
    assert (copy.__name__, copy.__doc__, copy.b, copy._c, copy.__path__) == ("made_by_hand", "doc", 1, [3], [])
    assert copy.__builtins__ == __builtins__ or copy.__builtins__ == vars(__builtins__)


def test_a_module_that_refers_to_itself():
    module = make_module("def me(): return self")
    module.self = module
    copy = pickle.loads(shoal.dumps(module))
    assert copy.self is copy
    assert copy.me() is copy


def test_a_module_of_a_class_of_its_own(over_there):
    over_there(
        "class M(types.ModuleType):\n"
        "    def __init__(self, name, more): super().__init__(name); self.more = more\n"
        "    @property\n"
        "    def twice(self): return self.more * 2\n"
        "it = M('m', 4)\n"
        "exec('def f(): return more', vars(it))",
        "assert type(it).__name__ == 'M' and it.twice == 8 and it.f() == 4 and it.__name__ == 'm'",
    )


def test_a_module_that_calls_itself_by_another_name_goes_by_its_own(over_there):
    over_there("import _io\nit = _io, (lambda: _io)", "import _io\nassert it[0] is it[1]() is _io")


def test_a_module_without_a_name_is_refused():
    module = make_module()
    for spoil in (lambda: vars(module).pop("__name__"), lambda: setattr(module, "__name__", module)):
        spoil()
        with pytest.raises(pickle.PicklingError, match="nameless module"):
            shoal.dumps(module)


def test_what_a_module_cannot_send_is_named():
    module = make_module("import threading\nlock = threading.Lock()")
    with pytest.raises(TypeError, match="attribute 'lock' of module 'made_by_hand'"):
        shoal.dumps(module)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_in_every_protocol(protocol):
    copy, get = pickle.loads(shoal.dumps((module := make_module(SETTER), module.get), protocol))
    copy.put(3)
    assert get() == 3


def test_functions_and_classes_of_a_registered_package_and_what_is_below_it(over_there):
    over_there(
        "import carried, carried.sub, carried.deep.er\n"
        "shoal.register_pickle_by_value(carried)\n"
        "it = carried.f, carried.sub.C(), carried.deep.er.d",
        "assert it[0]() == (1, 'x') and it[1].h() == 'x' and it[2]() == 'deep' and 'carried' not in sys.modules",
    )


def test_a_function_that_names_a_registered_module_has_all_of_its_attributes(over_there):
    over_there(
        "import carried, carried.sub\n"
        "shoal.register_pickle_by_value(carried)\n"
        "def it(name): return getattr(carried, name), carried.sub.C().h(), carried.f()",
        "assert it('value') == (1, 'x', (1, 'x'))",
    )


def test_a_patched_registered_module_is_sent_as_it_is_now(over_there):
    over_there(
        "import carried\n"
        "shoal.register_pickle_by_value(carried)\n"
        "carried.patched, carried.value, carried.sub.g = 5, 2, lambda: 'patched'\n"
        "def it(): return carried.get(), carried.f()",
        "assert it() == (5, (2, 'patched'))",
    )


def test_a_registered_submodule_leaves_its_package_alone(over_there):
    over_there(
        "import carried, carried.sub\nshoal.register_pickle_by_value(carried.sub)\nit = carried.sub.g, carried.sub",
        "assert it[0]() == 'x' and it[1].g is it[0] and it[0].__globals__ is vars(it[1])",
    )


def test_after_unregistering_it_is_named_again(carried, monkeypatch):
    monkeypatch.syspath_prepend(str(carried))
    import carried as package

    try:
        by_name = shoal.dumps(package.f)
        shoal.register_pickle_by_value(package)
        try:
            assert pickle.loads(shoal.dumps(package.f)) is not package.f
            assert pickle.loads(shoal.dumps(package)) is not package
            assert pickle.loads(shoal.dumps(package.sub)) is not package.sub
        finally:
            shoal.unregister_pickle_by_value(package)
        assert shoal.dumps(package.f) == by_name
        assert pickle.loads(shoal.dumps(package.sub)) is package.sub
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "carried"]:
            del sys.modules[name]


def test_reconstructors_of_modules_check_what_a_stream_tells_them():
    from shoal import _rebuild

    for wrong in ((), ("m",), ("m", None), (1, {}), ("m", {}, int), ("m", {}, types.ModuleType, 1)):
        with pytest.raises(TypeError, match="_module"):
            _rebuild._module(*wrong)
    with pytest.raises(TypeError, match="_import"):
        _rebuild._import(1)
    with pytest.raises(ModuleNotFoundError):
        _rebuild._import("shoal.no_such_module")
