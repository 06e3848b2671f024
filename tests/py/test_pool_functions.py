# SPDX-License-Identifier: BSD-3-Clause
"""Functions that go by their name, call by call: what arrives is what a pickle of the call gives."""

import copyreg
import pickle
import random
import sys
import types

import pytest

import shoal
from tasks import TIMEOUT

pytestmark = pytest.mark.leakcheck


@pytest.fixture
def pool():
    with shoal.Pool(1) as made:
        yield made


def kind_of(value, *args):
    return value.__name__, args


def all_of(*args):
    return args


def double(number):
    return 2 * number


def seen_audits(number):
    return sorted(set(_audited)), number


_audited: list[tuple[str, str]] = []


def listen():
    sys.addaudithook(lambda event, args: _audited.append(args) if event == "pickle.find_class" else None)


def made_module(name, source):
    module = types.ModuleType(name)
    module.__spec__ = None
    exec(source, vars(module))
    sys.modules[name] = module
    return module


def forget_module(name):
    sys.modules.pop(name, None)
    return name in sys.modules


def test_what_its_name_does_not_lead_to_any_more_goes_by_value(pool, monkeypatch):
    old = double
    monkeypatch.setattr(sys.modules[__name__], "double", lambda number: number)
    assert pool.apply(old, (4,)) == 8
    assert pool.apply(double, (4,)) == 4


def test_a_module_that_is_registered_goes_by_value():
    module = made_module("shoal_test_registered", "def answer(number): return number + len(EXTRA)\nEXTRA = 'abc'")
    try:
        with shoal.Pool(1) as pool:
            assert pool.apply(module.answer, (1,)) == 4
            module.EXTRA = "abcd"
            assert pool.apply(module.answer, (1,)) == 4  # the worker's module
            shoal.register_pickle_by_value(module)
            try:
                assert pool.apply(module.answer, (1,)) == 5
            finally:
                shoal.unregister_pickle_by_value(module)
            assert pool.apply(module.answer, (1,)) == 4
    finally:
        del sys.modules["shoal_test_registered"]


def test_the_worker_looks_the_name_up_anew_each_time():
    module = made_module("shoal_test_renewed", "def answer(number): return number")
    try:
        with shoal.Pool(1) as pool:
            assert pool.apply(module.answer, (3,)) == 3
            pool.apply(exec, ("import shoal_test_renewed as m\ndef answer(n): return -n\nm.answer = answer",))
            assert pool.apply(module.answer, (3,)) == -3
    finally:
        del sys.modules["shoal_test_renewed"]


def test_a_module_that_the_worker_does_not_have_is_imported(pool):
    import colorsys

    assert pool.apply(forget_module, ("colorsys",)) is False
    assert pool.apply(colorsys.rgb_to_hsv, (0, 0, 1)) == colorsys.rgb_to_hsv(0, 0, 1)


def test_a_name_that_only_getattr_of_the_module_knows_is_found():
    source = "def answer(number): return number + 1\ndef __getattr__(name): return HIDDEN[name]"
    module = made_module("shoal_test_lazy", source)
    module.HIDDEN = {"answer": module.answer}
    try:
        with shoal.Pool(1) as pool:
            pool.apply(exec, ("import shoal_test_lazy as m\ndel m.answer",))
            assert pool.apply(module.answer, (1,)) == 2
    finally:
        del sys.modules["shoal_test_lazy"]


def test_a_name_that_leads_nowhere_in_the_worker_is_the_calls_own_error(pool):
    pool.apply(exec, (f"import sys\ndel sys.modules[{__name__!r}].double",))
    with pytest.raises(Exception, match="Can't get attribute 'double'"):
        pool.apply(double, (1,))
    assert pool.apply(len, ("abc",)) == 3


def test_audit_hooks_of_the_worker_are_told():
    with shoal.Pool(1, initializer=listen) as pool:
        heard, number = pool.apply(seen_audits, (1,))
    assert (__name__, "seen_audits") in heard
    assert number == 1


def test_registered_extensions_are_still_used():
    copyreg.add_extension(__name__, "double", 0x70)
    try:
        with shoal.Pool(1) as pool:
            assert pool.apply(double, (4,)) == 8
    finally:
        copyreg.remove_extension(__name__, "double", 0x70)


def test_arguments_that_the_function_has_too_are_one_object_there(pool):
    text, data, pair = "".join(random.choices("abc", k=20)), bytes([1, 2, 3]), (1, 2)
    assert pool.apply(lambda given: given is text, (text,))
    assert pool.apply(lambda given: given is data, (data,))
    assert pool.apply(lambda given: given is pair, (pair,))


@pytest.mark.parametrize(
    "args", [(), (1,), (1.5, None), ("a", b"b"), (True, -(1 << 40)), (1, 2, 3, 4), (1, 2, 3, 4, 5), (1 << 70,), ([1],)]
)
def test_arguments_of_all_kinds_arrive(pool, args):
    assert pool.apply(kind_of, (double, *args)) == ("double", args)
    assert pool.apply(all_of, args) == args
    assert pool.apply(lambda *given: given, args) == args


def test_what_does_not_pickle_in_the_function_is_told_as_the_functions():
    generator = (number for number in range(3))
    with shoal.Pool(1) as pool, pytest.raises(TypeError, match="generator"):
        pool.apply(lambda number: generator, (1,))
    with shoal.ProcessPoolExecutor(1) as executor:
        error = executor.submit(lambda number: generator, 1).exception(TIMEOUT)
    assert "generator" in str(error)


def test_streams_that_are_damaged_give_an_error_and_nothing_else(pool):
    engine = pool._engine
    whole = engine.dumps(double)
    assert engine.loads(whole) is double
    generator = random.Random(1)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data))] = generator.choice([0, 1, 2, 0x2E, 0x51, 0x4D, 0x8C, 0x93, 0xFF])
        del data[generator.randint(1, len(data)) :]
        try:
            engine.loads(bytes(data))
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, ImportError, AttributeError, UnicodeError):
            pass
        except (KeyError, IndexError, OverflowError, MemoryError):
            pass
