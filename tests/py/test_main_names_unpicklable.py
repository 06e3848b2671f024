# SPDX-License-Identifier: BSD-3-Clause
"""Globals of `__main__` that cannot be pickled, in forked workers: locks, generators, and the pool itself.

Each test is a script, as in test_main_names.py.
"""

import pytest

pytestmark = pytest.mark.leakcheck


def test_globals_that_cannot_be_pickled_are_the_workers_own(fresh_python):
    fresh_python("""
        import shoal, threading
        lock = threading.Lock()
        endless = iter(int, 1)
        def guarded(x):
            with lock:
                return x + next(endless)
        with shoal.Pool(2) as pool:
            assert pool.map(guarded, range(4)) == [0, 1, 2, 3]
        lock = threading.Lock()         # and one that was made later is not
        pool = shoal.Pool(1)
        lock = threading.Lock()
        try:
            pool.apply(guarded, (1,))
        except TypeError as error:
            assert "lock" in str(error), error
        else:
            raise AssertionError
        pool.terminate()
    """)


def test_what_is_not_set_yet_and_cannot_be_sent_does_not_count(fresh_python):
    fresh_python("""
        import shoal, threading
        pool = None
        class Runner:
            lock = threading.Lock()
            def step(self, x): return x + 1
            def run(self): return pool.map(self.step, range(3)) + later.map(self.step, range(2))
        pool = shoal.Pool(2)
        later = shoal.Pool(1)
        assert Runner().run() == [1, 2, 3, 1, 2]
        pool.terminate()
        later.terminate()
    """)


def test_the_pool_that_a_class_uses_may_lose_workers_and_be_replaced(fresh_python):
    fresh_python("""
        import shoal, os, concurrent.futures
        class Runner:
            def step(self, x): return x + offset
            def run(self): return pool.map(self.step, range(3))
        offset = 1
        def check():
            for _ in range(3):
                assert Runner().run() == [offset, offset + 1, offset + 2]
        pool = shoal.Pool(2)
        check()
        for _ in range(4):              # both are new then, and have the pool as a global
            try: pool.apply(os._exit, (1,))
            except shoal.WorkerLost: pass
        check()
        offset = 10                     # now the class goes by value, without the pool
        check()
        pool.terminate()
        pool = shoal.Pool(2, maxtasksperchild=1)
        check()
        offset = 20
        check()
        pool.terminate()
        pool = concurrent.futures.ThreadPoolExecutor(1)
        class Runner:
            def step(self, x): return x + offset
            def run(self): return list(pool.map(self.step, range(3)))
        pool = shoal.ProcessPoolExecutor(2)
        check()
        offset = 30
        check()
        pool.shutdown()
    """)


def test_functions_by_value_find_what_cannot_be_sent_in_the_worker(fresh_python):
    fresh_python("""
        import shoal, threading
        lock, scale, unset = threading.Lock(), 1, None
        guarded = {"lock": threading.RLock(), "count": 5}
        def helper(x):
            with lock, guarded["lock"]:
                return x * scale + guarded["count"]
        class Worker:
            def run(self, x):
                return helper(x)
        pool = shoal.Pool(2)
        def check():
            assert pool.map(helper, range(3)) == [5, scale + 5, 2 * scale + 5]
            assert pool.apply(Worker().run, (2,)) == 2 * scale + 5
            assert pool.apply(lambda: (helper(1), lock.locked(), unset)) == (scale + 5, False, None)
        check()
        scale = 7                       # so all of them go by value
        check()
        unset = threading.Lock()
        check()
        for _ in range(4):              # workers that were forked later have it
            try: pool.apply(__import__("os")._exit, (1,))
            except shoal.WorkerLost: pass
        assert pool.map(helper, range(3)) == [5, 12, 19]
        def delete():
            global lock
            del lock
        one = shoal.Pool(1)
        scale = 8
        one.apply(delete)
        try: one.apply(helper, (1,))
        except shoal.ArgumentDecodingError as error: assert "'lock' is not defined: a task has deleted it" in str(error)
        else: raise AssertionError
        lock = threading.Lock()         # another one than the workers have
        for each in (pool, one):
            try: each.apply(helper, (1,))
            except TypeError as error: assert "lock" in str(error)
            else: raise AssertionError
        try: pool.apply(lambda: pool.apply(abs, (1,)))
        except NotImplementedError as error: assert "pool objects cannot be passed" in str(error)
        else: raise AssertionError
        pool.terminate(); one.terminate()
    """)
