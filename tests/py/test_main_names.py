# SPDX-License-Identifier: BSD-3-Clause
"""Names of `__main__` in forked workers: by reference what they have since the fork, by value what was changed since.

Each test is a script, since nothing else has a `__main__` of its own. A script asserts, and ends well or not.
"""

import pytest

pytestmark = pytest.mark.leakcheck


def test_an_initializer_sets_a_global_that_tasks_read(fresh_python):
    fresh_python("""
        import shoal
        data = None
        def init(values):
            global data, more
            data = values
            more = sum(values)          # bound nowhere else
        def work(i):
            return data[i] + more
        def helper(i):
            return work(i)
        class Reader:
            def read(self, i):
                return data[i] + more
        if __name__ == "__main__":
            expected = [7, 8, 9]
            with shoal.Pool(2, init, ([1, 2, 3],)) as pool:
                assert pool.map(work, range(3)) == expected
                assert list(pool.imap(work, range(3))) == expected
                assert pool.apply(work, (1,)) == 8
                assert pool.map(helper, range(3)) == expected
                assert pool.map(Reader().read, range(3)) == expected
                assert pool.map(lambda i: data[i] + more, range(3)) == expected
            with shoal.ProcessPoolExecutor(2, initializer=init, initargs=([1, 2, 3],)) as executor:
                assert list(executor.map(work, range(3))) == expected
                assert executor.submit(lambda: data).result() == [1, 2, 3]
                assert executor.submit(work, 2).result() == 9
            assert data is None and "more" not in globals()
    """)


@pytest.mark.parametrize("workers", [1, 3])
def test_what_the_parent_sets_for_itself_does_not_hide_what_the_initializer_set(fresh_python, workers):
    fresh_python(
        """
        import shoal, sys
        data, factor = None, 1
        def init(values):
            global data
            data = values
        def work(i):
            return data[i] * factor
        pool = shoal.Pool(int(sys.argv[1]), init, ([1, 2, 3],))
        init([10, 20, 30])
        assert work(1) == 20 and pool.apply(work, (1,)) == 2
        factor = 100                    # this the parent alone assigns: tasks see it, and the worker's data
        assert work(1) == 2000 and pool.apply(work, (1,)) == 200
        pool.terminate()
        """,
        workers,
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_lazy_objects_among_the_globals_are_not_woken(fresh_python, method):
    source = """
        import shoal, sys
        class Lazy:
            @property
            def __class__(self):
                raise LookupError("not ready yet")
            def __reduce__(self):
                raise LookupError("not ready yet")
        lazy = Lazy()
        data = None
        def init(value):
            global data
            data = value
            return lazy
        def work(x):
            return data, x, lazy and 1
        if __name__ == "__main__":
            with shoal.Pool(1, init, (5,), context=sys.argv[1]) as pool:
                assert pool.apply(work, (1,)) == (5, 1, 1)
    """
    fresh_python(source, method)


def test_what_tasks_keep_in_globals_is_there_for_the_next(fresh_python):
    fresh_python("""
        import functools, os, shoal
        model = None
        seen = {}
        def predict(x):
            global model
            if model is None:
                model = [os.getpid(), 0]
            model[1] += 1
            return tuple(model)
        def remember(x):
            seen[x] = None
            return sorted(seen)
        @functools.lru_cache(maxsize=None)
        def cached(x):
            seen[x] = None
            return len(seen)
        def ask_twice(x):
            return cached(x), cached(x), cached.cache_info().hits
        pool = shoal.Pool(1)
        assert [count for _, count in pool.map(predict, range(5), 1)] == [1, 2, 3, 4, 5]
        predict(0)                      # the parent's own model changes nothing
        assert pool.apply(predict, (0,))[1] == 6
        assert [pool.apply(remember, (x,)) for x in (3, 1)] == [[3], [1, 3]]
        assert pool.apply(ask_twice, (7,)) == (3, 3, 1)
        assert pool.apply(cached, (7,)) == 3
        assert pool.apply(ask_twice, (7,)) == (3, 3, 4)
        pool.terminate()
    """)


def test_globals_that_the_parent_rebinds_or_changes_are_seen(fresh_python):
    fresh_python("""
        import shoal
        scale = 2
        settings = {"plus": 1, "deep": {"list": [1, 2]}}
        names = ["a"]
        def helper(x):
            return x * scale
        def work(x):
            return helper(x) + settings["plus"] + len(names) + settings["deep"]["list"][1]
        class Worker:
            def run(self, x):
                return work(x)
        pool = shoal.Pool(2)
        def check():
            for task in (work, Worker().run):
                assert pool.map(task, range(5)) == list(map(task, range(5)))
                assert pool.apply(task, (3,)) == task(3)
        check()
        scale = 3
        check()
        settings["plus"] = 10
        check()
        names.append("b")
        check()
        settings["deep"]["list"][1] = 77
        check()
        scale, settings, names = 2, {"plus": 1, "deep": {"list": [1, 2]}}, ["a"]  # as it was
        check()
        pool.terminate()
    """)


def test_definitions_that_are_changed_are_sent_anew(fresh_python):
    fresh_python("""
        import shoal
        def work(x): return "old"
        def outer(x): return work(x)
        def defaults(x, y=1): return y
        class Thing:
            kind = "old"
            def tell(self, x=None): return "old " + self.kind
        first = Thing
        pool = shoal.Pool(2)
        check = lambda task, expected: [assert_equal(pool.apply(task, (0,)), expected) for _ in range(3)]
        def assert_equal(a, b): assert a == b, (a, b)
        check(work, "old"); check(outer, "old"); check(Thing().tell, "old old"); check(defaults, 1)
        def work(x): return "new"
        check(work, "new"); check(outer, "new")
        old = work
        def other(x): return "swapped"
        work.__code__ = other.__code__
        check(work, "swapped"); check(outer, "swapped")
        defaults.__defaults__ = (2,)
        check(defaults, 2)
        Thing.kind = "new"
        check(Thing().tell, "old new")
        Thing.tell = lambda self, x: "new " + self.kind
        check(Thing().tell, "new new")
        class Thing(first):
            kind = "newest"
        check(Thing().tell, "new newest")
        check(first().tell, "new new")
        def later(x): return outer(x)
        check(later, "swapped")
        pool.terminate()
    """)


def test_a_class_with_attributes_that_cannot_be_pickled(fresh_python):
    fresh_python("""
        import shoal, threading
        class Guarded:
            lock = threading.Lock()
            made = []
            class Inner:
                lock = threading.RLock()
                def __init__(self, value): self.value = value
            def __init__(self, value): self.value = value
            def run(self, x):
                with self.lock:
                    return Guarded(self.value + x)
            @classmethod
            def make(cls, x): return cls(x)
            @staticmethod
            def plain(x): return Guarded.Inner(x)
            def __eq__(self, other): return type(self) is type(other) and self.value == other.value
        class Derived(Guarded):
            pass
        with shoal.Pool(2) as pool:
            assert pool.apply(Guarded(1).run, (2,)) == Guarded(3)
            assert pool.map(Guarded.make, [1, 2]) == [Guarded(1), Guarded(2)]
            assert pool.map(Derived.make, [1, 2]) == [Derived(1), Derived(2)]
            inner = pool.apply(Guarded.plain, (5,))
            assert type(inner) is Guarded.Inner and inner.value == 5
            assert pool.apply(type, (Guarded(1),)) is Guarded
            assert pool.apply(lambda thing: thing.run(1).value, (Guarded(1),)) == 2
            assert pool.apply(Guarded.__init__.__get__(Guarded(0)), (3,)) is None
            assert [each.value for each in pool.map(Guarded, range(3))] == [0, 1, 2]
    """)


def test_workers_that_are_forked_later_agree_with_the_first(fresh_python):
    fresh_python("""
        import os, shoal
        value = 1
        def read(x):
            return value
        def redefined(x):
            return "old"
        pool = shoal.Pool(2, maxtasksperchild=1)
        for value in (1, 2, 3, 1):
            assert pool.map(read, range(8), 1) == [value] * 8, value
        old = redefined
        def redefined(x):
            return "new"
        for _ in range(4):
            assert pool.map(redefined, range(4), 1) == ["new"] * 4
            assert pool.map(old, range(4), 1) == ["old"] * 4
        pool.terminate()
    """)


def test_what_the_parent_deletes_the_workers_still_have(fresh_python):
    fresh_python("""
        import shoal
        table = list(range(1000))
        def look(i):
            return table[i]
        pool = shoal.Pool(2)
        del table
        assert pool.map(look, range(5)) == [0, 1, 2, 3, 4]
        pool.terminate()
    """)


def test_large_globals_are_not_kept_alive_by_a_pool(fresh_python):
    fresh_python("""
        import shoal, weakref
        class Large: pass
        large = Large()
        def look(i):
            return type(large).__name__
        pool = shoal.Pool(1)
        gone = weakref.ref(large)
        large = None
        assert gone() is None
        assert pool.apply(look, (1,)) == "NoneType"
        pool.terminate()
    """)


def test_functions_and_classes_come_back_as_themselves(fresh_python):
    fresh_python("""
        import shoal
        def work(x): return work
        def several(x): return {"f": work, "c": Thing, "i": Thing(), "e": Failed("x")}
        class Thing: pass
        class Failed(Exception): pass
        def fail(x): raise Failed(x)
        with shoal.Pool(1) as pool:
            assert pool.apply(work, (1,)) is work
            found = pool.apply(several, (1,))
            assert found["f"] is work and found["c"] is Thing and type(found["i"]) is Thing
            try:
                pool.apply(fail, ("why",))
            except Failed as error:
                assert error.args == ("why",)
            Thing.later = 1
            assert pool.apply(several, (1,))["c"] is Thing and Thing.later == 1
    """)


def test_a_pool_in_a_task_has_what_the_task_made_of_main(fresh_python):
    fresh_python("""
        import shoal
        data = 0
        def read(x):
            return data + x
        def nest(x):
            global data
            data = x
            with shoal.Pool(2) as inner:
                first = inner.map(read, range(3))
                data = 100
                return first, inner.map(read, range(3))
        with shoal.Pool(1) as pool:
            assert pool.apply(nest, (5,)) == ([5, 6, 7], [100, 101, 102])
            assert pool.apply(read, (1,)) == 101
        assert data == 0
    """)


def test_decorated_functions_and_what_they_wrap(fresh_python):
    fresh_python("""
        import functools, shoal, threading
        unit = "m"
        lock = threading.Lock()
        def loud(function):
            @functools.wraps(function)
            def call(*args):
                with lock:
                    return function(*args) + "!"
            return call
        @loud
        def tell(x):
            return str(x) + unit
        pool = shoal.Pool(1)
        assert pool.apply(tell, (1,)) == "1m!"
        bound = functools.partial(tell, 2)
        assert pool.apply(bound) == "2m!"
        pool.terminate()
    """)


def test_initializers_of_every_kind(fresh_python):
    fresh_python("""
        import functools, shoal
        data = None
        def keep(value):
            global data
            data = value
        class Keeper:
            def __call__(self, value): keep(value)
            def method(self, value): keep(value)
            @staticmethod
            def plain(value): keep(value)
        kinds = [keep, functools.partial(keep), Keeper(), Keeper().method, Keeper.plain, lambda value: keep(value)]
        for initializer in kinds:
            with shoal.Pool(1, initializer, (5,)) as pool:
                data = None
                assert pool.apply(lambda: data) == 5, initializer
                def later():
                    return data
                assert pool.apply(later) == 5, initializer
            with shoal.ProcessPoolExecutor(1, initializer=initializer, initargs=(6,)) as executor:
                assert executor.submit(lambda: data).result() == 6, initializer
    """)


def test_a_registration_with_a_generic_function_is_seen(fresh_python):
    fresh_python("""
        import functools, shoal
        @functools.singledispatch
        def kind(x): return "any"
        @kind.register
        def _(x: int): return "int"
        pool = shoal.Pool(1)
        assert pool.map(kind, [1, "a"]) == ["int", "any"]
        kind.register(str, lambda x: "str")
        assert pool.map(kind, [1, "a"]) == ["int", "str"]
        pool.terminate()
    """)


def test_two_pools_of_different_ages_each_have_their_own_view(fresh_python):
    fresh_python("""
        import shoal
        state = "first"
        def read(x): return state
        a = shoal.Pool(1)
        state = "second"
        b = shoal.Pool(1)
        assert a.apply(read, (0,)) == b.apply(read, (0,)) == "second"
        state = "third"
        assert a.apply(read, (0,)) == b.apply(read, (0,)) == "third"
        a.terminate(); b.terminate()
    """)
