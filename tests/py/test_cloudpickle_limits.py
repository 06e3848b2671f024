# SPDX-License-Identifier: BSD-3-Clause
"""shoal.cloudpickle and the registry at the edges: memory, sizes, threads, forks."""

import contextlib
import gc
import io
import os
import pickle
import sys
import threading
import types
import weakref

import pytest

import shoal
import shoal.cloudpickle as cloudpickle


@contextlib.contextmanager
def no_collector():
    """What dies here dies by its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Hooked(cloudpickle.Pickler):
    def __init__(self, file):
        super().__init__(file)
        self.dispatch_table = self.dispatch_table.new_child({})

    def reducer_override(self, obj):
        return super().reducer_override(obj)

    def persistent_id(self, obj):
        return None


def by_pickler(kind):
    def dump(obj):
        kind(file := io.BytesIO()).dump(obj)
        return file.getvalue()

    return dump


DUMPERS = {
    "shoal.dumps": shoal.dumps,
    "dumps": cloudpickle.dumps,
    "Pickler": by_pickler(cloudpickle.Pickler),
    "a subclass": by_pickler(Hooked),
}


def make_instance():
    class Local:
        def method(self):
            return self

    return Local()


def make_closure():
    held = make_instance()
    return lambda: held


@pytest.mark.parametrize("name", DUMPERS)
@pytest.mark.parametrize("make", [make_instance, make_closure])
def test_what_was_dumped_is_freed_when_its_owner_lets_go(name, make):
    dump = DUMPERS[name]
    dump(make())  # what is made once
    obj = make()
    alive = weakref.ref(obj)
    with no_collector():
        dump(obj)
        del obj
        assert alive() is None


def test_a_pickler_is_freed_with_all_that_it_holds():
    with no_collector():
        pickler = Hooked(io.BytesIO())
        obj = make_instance()
        pickler.dump(obj)
        alive, held = weakref.ref(pickler), weakref.ref(obj)
        del obj
        assert held() is not None  # the memo holds it, so that its address is not used again
        del pickler
        assert alive() is None
        assert held() is None


def test_a_failed_dump_leaves_nothing_behind():
    with no_collector():
        obj = [make_closure(), threading.Lock()]
        alive = weakref.ref(obj[0])
        for dump in DUMPERS.values():
            with pytest.raises(TypeError):
                dump(obj)
        del obj
        assert alive() is None


@pytest.mark.parametrize("protocol", range(6))
def test_a_class_that_failed_has_no_part_in_the_next_dump(protocol):
    def define(value):
        class Local:
            attribute = value

            def method(self):
                return Local

        Local.both = [Local, value]
        return Local

    for _ in range(20):
        with pytest.raises((TypeError, pickle.PicklingError)):
            shoal.dumps(define(threading.Lock()), protocol)
        assert pickle.loads(shoal.dumps(define(1), protocol)).attribute == 1


def test_loading_closures_over_large_data_does_not_keep_it(fresh_python):
    """A hundred closures over a megabyte each, one after the other."""
    fresh_python(
        """
        import pickle, psutil, shoal.cloudpickle as cloudpickle
        def make(i):
            data = bytes([i]) * 1_000_000
            return lambda: len(data)
        streams = (cloudpickle.dumps(make(i)) for i in range(100))
        assert pickle.loads(next(streams))() == 1_000_000
        before = psutil.Process().memory_info().rss
        for stream in streams:
            assert pickle.loads(stream)() == 1_000_000
        assert psutil.Process().memory_info().rss - before < 50_000_000
        """
    )


def test_a_function_may_use_more_globals_than_fit_into_an_argument():
    count = 65_794  # EXTENDED_ARG twice
    source = "def function():\n" + "".join(f"    value_{i}\n" for i in range(count)) + f"    return value_{count - 1}\n"
    namespace = {f"value_{i}": i for i in range(count)}
    exec(compile(source, "<test>", "exec"), namespace)
    loaded = pickle.loads(cloudpickle.dumps(namespace["function"]))
    assert loaded() == count - 1
    assert loaded.__globals__["value_5"] == 5


def test_a_large_memory_view_travels():
    data = bytearray(60_000_000)
    data[-1] = 7
    loaded = pickle.loads(cloudpickle.dumps(memoryview(data)))
    assert len(loaded) == len(data) and loaded[-1] == 7


# ---- the registry of modules by value ----


@pytest.fixture
def package(monkeypatch):
    """A package and a module in it, neither of which can be imported elsewhere."""
    made = {}
    for name in ("by_value_package", "by_value_package.inner", "by_value_package_not"):
        made[name] = module = types.ModuleType(name)
        exec("def function():\n    return 5\nclass Class:\n    x = 6\n", module.__dict__)
        monkeypatch.setitem(sys.modules, name, module)
    made["by_value_package"].inner = made["by_value_package.inner"]
    yield made
    for name in shoal.list_registry_pickle_by_value() & made.keys():
        shoal.unregister_pickle_by_value(made[name])


def travels_by_value(obj):
    return b"shoal._rebuild" in shoal.dumps(obj)


def test_a_package_stands_for_what_is_below_it_and_nothing_else(package):
    shoal.register_pickle_by_value(package["by_value_package"])
    for kind in ("function", "Class"):
        assert travels_by_value(getattr(package["by_value_package"], kind))
        assert travels_by_value(getattr(package["by_value_package.inner"], kind))
        assert not travels_by_value(getattr(package["by_value_package_not"], kind))
    shoal.unregister_pickle_by_value(package["by_value_package"])
    assert not travels_by_value(package["by_value_package.inner"].function)


def test_registering_a_module_does_not_register_its_package(package):
    shoal.register_pickle_by_value(package["by_value_package.inner"])
    assert travels_by_value(package["by_value_package.inner"].Class)
    assert not travels_by_value(package["by_value_package"].Class)


def test_a_forked_child_has_the_registry(package):
    shoal.register_pickle_by_value(package["by_value_package"])
    with shoal.Pool(1) as pool:
        assert pool.apply(lambda: cloudpickle.list_registry_pickle_by_value()) == {"by_value_package"}
        assert pool.apply(package["by_value_package"].function) == 5
    shoal.unregister_pickle_by_value(package["by_value_package"])
    assert shoal.list_registry_pickle_by_value() == set()


def test_a_child_that_registers_does_not_change_its_parent(package):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        shoal.register_pickle_by_value(package["by_value_package"])
        os.write(writer, b"1" if travels_by_value(package["by_value_package"].function) else b"0")
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as answer:
        assert answer.read() == b"1"
    assert shoal.list_registry_pickle_by_value() == set()


def test_threads_may_register_while_others_dump(package):
    errors = []
    stop = threading.Event()

    def work(action):
        try:
            while not stop.is_set():
                action()
        except Exception as error:
            errors.append(error)

    def toggle():
        shoal.register_pickle_by_value(package["by_value_package"])
        shoal.list_registry_pickle_by_value()
        shoal.unregister_pickle_by_value(package["by_value_package"])

    def dump():
        loaded = pickle.loads(
            shoal.dumps([package["by_value_package"].function, package["by_value_package.inner"].Class])
        )
        assert loaded[0]() == 5 and loaded[1].x == 6

    threads = [threading.Thread(target=work, args=(action,)) for action in (toggle, dump, dump)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        dump()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
