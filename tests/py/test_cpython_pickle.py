# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own pickle tests (test.pickletester, test.test_pickle), run against our pickler and unpickler.

Each class below is one of CPython's with our parts put in: ours to ours, ours to the standard unpicklers (C and
Python), the standard picklers to ours. They come from the interpreter that runs this, so they differ from version to
version; where it has no `test` package, everything here is skipped.

EXCLUDED is the one table of what does not apply, each line with its reason. An excluded test is still run and must
fail: when it begins to pass, its line has to go.
"""

import collections
import functools
import gc
import io
import pickle
import pickletools
import sys
import unittest

import pytest

try:
    from test import pickletester, test_pickle, test_pickletools
except ImportError as error:
    pytest.skip(f"this interpreter has no test.pickletester ({error})", allow_module_level=True)

import shoal
import shoal.cloudpickle

WITH_OUR_PICKLER = (
    "ShoalPicklerTests ShoalToCUnpickler ShoalToPythonUnpickler ShoalInMemoryTests ShoalToStandardInMemory "
    "ShoalPicklingErrorTests ShoalOptimizedTests".split()
)

# test: (in which classes, why it cannot pass)
EXCLUDED = {
    "test_local_lookup_error": (WITH_OUR_PICKLER, "local functions and classes are not an error: they go by value"),
    "test_unpickleable_newobj_class": (WITH_OUR_PICKLER, "its class is a local one: see above"),
    "test_unpickleable_newobj_ex_class": (WITH_OUR_PICKLER, "its class is a local one: see above"),
    "test_c_methods": (WITH_OUR_PICKLER, "ends with staticmethod objects being refused: ours can be pickled"),
    "test_py_methods": (WITH_OUR_PICKLER, "ends with staticmethod and classmethod objects being refused: see above"),
}


class ShoalUnpicklerTests(test_pickle.CUnpicklerTests):
    unpickler = shoal.Unpickler


class ShoalPicklerTests(test_pickle.CPicklerTests):
    pickler = shoal.Pickler
    unpickler = shoal.Unpickler


class ShoalToCUnpickler(test_pickle.CPicklerTests):
    pickler = shoal.Pickler
    unpickler = pickle.Unpickler


class ShoalToPythonUnpickler(test_pickle.CPicklerTests):
    pickler = shoal.Pickler
    unpickler = pickle._Unpickler


class CPicklerToShoal(test_pickle.CPicklerTests):
    pickler = pickle.Pickler
    unpickler = shoal.Unpickler


class PythonPicklerToShoal(test_pickle.CPicklerTests):
    pickler = pickle._Pickler
    unpickler = shoal.Unpickler


class InMemory:
    """Which functions: said by the classes below."""

    dump_function = staticmethod(shoal.dumps)
    load_function = staticmethod(shoal.loads)
    bad_stack_errors = (pickle.UnpicklingError,)
    truncated_errors = (pickle.UnpicklingError, EOFError)

    def dumps(self, arg, protocol=None, **kwargs):
        return self.dump_function(arg, protocol, **kwargs)

    def loads(self, buf, **kwds):
        return self.load_function(buf, **kwds)


class ShoalInMemoryTests(InMemory, test_pickle.InMemoryPickleTests):
    pass


class StandardToShoalInMemory(InMemory, test_pickle.InMemoryPickleTests):
    dump_function = staticmethod(pickle.dumps)


class ShoalToStandardInMemory(InMemory, test_pickle.InMemoryPickleTests):
    load_function = staticmethod(pickle.loads)


class ShoalOptimizedTests(test_pickletools.OptimizedPickleTests):
    """pickletools reads every stream to its end, and what it leaves of it still loads."""

    def dumps(self, arg, protocol=None, **kwargs):
        return pickletools.optimize(shoal.dumps(arg, protocol, **kwargs))

    def loads(self, buf, **kwargs):
        return shoal.loads(buf, **kwargs)


if hasattr(test_pickle, "CPicklingErrorTests"):  # 3.13 on

    class ShoalPicklingErrorTests(test_pickle.CPicklingErrorTests):
        pickler = shoal.Pickler


class ShoalModuleTests(pickletester.AbstractPickleModuleTests, unittest.TestCase):
    dump = staticmethod(shoal.dump)
    dumps = staticmethod(shoal.dumps)
    load = staticmethod(shoal.load)
    loads = staticmethod(shoal.loads)
    Pickler = shoal.Pickler
    Unpickler = shoal.Unpickler


class ShoalPersistentTests(test_pickle.CPersPicklerTests):
    pickler = shoal.Pickler
    unpickler = shoal.Unpickler


class ShoalPersistentToC(test_pickle.CPersPicklerTests):
    pickler = shoal.Pickler
    unpickler = pickle.Unpickler


class CPersistentToShoal(test_pickle.CPersPicklerTests):
    pickler = pickle.Pickler
    unpickler = shoal.Unpickler


class ShoalIdentityPersistentTests(test_pickle.CIdPersPicklerTests):
    pickler = shoal.Pickler
    unpickler = shoal.Unpickler


class ShoalObjectTests(test_pickle.CPicklerUnpicklerObjectTests):
    pickler_class = shoal.Pickler
    unpickler_class = shoal.Unpickler


class ShoalDispatchTableTests(test_pickle.CDispatchTableTests):
    pickler_class = shoal.Pickler


class ShoalChainDispatchTableTests(test_pickle.CChainDispatchTableTests):
    pickler_class = shoal.Pickler


class ShoalHookTests(test_pickle.CPicklerHookTests):
    class CustomShoalPickler(shoal.Pickler, pickletester.AbstractCustomPicklerClass):
        pass

    pickler_class = CustomShoalPickler


class ShoalCloudpickleHookTests(test_pickle.CPicklerHookTests):
    class CustomPickler(pickletester.AbstractCustomPicklerClass, shoal.cloudpickle.Pickler):
        pass

    pickler_class = CustomPickler


class ShoalTypesTests(unittest.TestCase):
    """As CPython's HeapTypesTests and SizeofTests, which name its own types and sizes."""

    def setUp(self):
        self.pickler = shoal.Pickler(io.BytesIO())
        self.unpickler = shoal.Unpickler(io.BytesIO(pickle.dumps(list(map(str, range(1000))))))
        self.types = [shoal.Pickler, shoal.Unpickler, type(self.pickler.memo), type(self.unpickler.memo)]

    def test_have_gc(self):
        for each in self.types:
            self.assertTrue(gc.is_tracked(each))

    def test_immutable(self):
        for each in self.types:
            with self.assertRaisesRegex(TypeError, "immutable"):
                each.foo = "bar"

    def test_memo_types_are_not_made_by_users(self):
        for each in self.types[2:]:
            with self.assertRaises(TypeError):
                each()

    def test_sizes_grow_with_the_memo(self):
        before = sys.getsizeof(self.pickler), sys.getsizeof(self.unpickler)
        self.pickler.dump(list(map(str, range(1000))))
        self.unpickler.load()
        self.assertGreater(sys.getsizeof(self.pickler) - before[0], 1000 * 16)
        self.assertGreater(sys.getsizeof(self.unpickler) - before[1], 1000 * 8)
        self.assertGreaterEqual(before[0], object.__sizeof__(self.pickler))

    def test_a_large_buffer_is_not_kept(self):
        self.pickler = shoal.Pickler(io.BytesIO(), 2)
        before = sys.getsizeof(self.pickler)
        self.pickler.dump([float(i) for i in range(100_000)])
        self.assertLess(sys.getsizeof(self.pickler) - before, 400_000)


def suites():
    return [
        value
        for value in globals().values()
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == __name__
    ]


def must_fail(method):
    """A function of its own: the mark that it gets must not stick to the method, which other suites run too."""

    @functools.wraps(method)
    def run(self):
        method(self)

    return unittest.expectedFailure(run)


for test, (names, _reason) in EXCLUDED.items():
    for suite in suites():
        if suite.__name__ in names and hasattr(suite, test):
            setattr(suite, test, must_fail(getattr(suite, test)))


@pytest.mark.parametrize("module", [test_pickle, pickletester])
def test_every_abstract_suite_of_this_version_is_run(module):
    abstract = {
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and name.startswith("Abstract") and name.endswith("Tests")
    }
    missing = [each.__name__ for each in abstract if not any(issubclass(suite, each) for suite in suites())]
    assert not missing


@pytest.mark.parametrize("dumps", [shoal.dumps, pickle.dumps])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_methods_come_back(dumps, protocol):
    """What the excluded test_c_methods and test_py_methods promise of methods of every kind."""
    methods = [str.upper, "abc".index, [1, 2].count, dict.fromkeys, (1, 2).__contains__, bytes.maketrans]
    for method in methods:
        for loads in (shoal.loads, pickle.loads):
            loaded = loads(dumps(method, protocol))
            assert type(loaded) is type(method)
            assert loaded.__qualname__ == method.__qualname__
    counter = collections.Counter("aab")
    for loads in (shoal.loads, pickle.loads):
        assert loads(dumps(counter.most_common, protocol))(1) == [("a", 2)]
        assert loads(dumps(collections.Counter.most_common, protocol)) is collections.Counter.most_common
        assert loads(dumps(collections.OrderedDict.fromkeys, protocol))("a") == {"a": None}
