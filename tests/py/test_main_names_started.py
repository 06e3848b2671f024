# SPDX-License-Identifier: BSD-3-Clause
"""Names of `__main__` in workers that were started anew: what the initializer, the import and tasks make of them stays,
what the parent has changed is seen.

Each test is a script, since nothing else has a `__main__` of its own. A script asserts, and ends well or not. What
forked workers see: test_main_names.py.
"""

import os
import subprocess
import sys
import textwrap

import pytest

from tasks import TIMEOUT

pytestmark = [pytest.mark.leakcheck, pytest.mark.parametrize("method", ["spawn", "forkserver"])]


def test_an_initializer_sets_a_global_that_tasks_read(fresh_python, method):
    source = """
        import multiprocessing, shoal, sys
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
            def late(i):                # the import does not make it
                return work(i)
            expected = [7, 8, 9]
            with shoal.Pool(2, init, ([1, 2, 3],), context=sys.argv[1]) as pool:
                for task in (work, helper, Reader().read, lambda i: data[i] + more, late):
                    assert pool.map(task, range(3)) == expected
                    assert list(pool.imap(task, range(3))) == expected
                    assert pool.apply(task, (1,)) == 8
                init([10, 20, 30])      # the parent's own
                assert pool.map(work, range(3)) == expected
            context = multiprocessing.get_context(sys.argv[1])
            with shoal.ProcessPoolExecutor(2, context, init, ([1, 2, 3],)) as executor:
                assert list(executor.map(work, range(3))) == expected
                assert executor.submit(lambda: data).result() == [1, 2, 3]
                assert executor.submit(work, 2).result() == 9
            assert data == [10, 20, 30]
    """
    fresh_python(source, method)


def test_initializers_of_every_kind(fresh_python, method):
    source = """
        import functools, shoal, sys
        data = None
        def keep(value):
            global data
            data = value
        class Keeper:
            def __call__(self, value): keep(value)
            def method(self, value): keep(value)
        class Point:
            def __init__(self, x): self.x = x
        def make(value):
            global data
            data = Point(value)
        def check(point):
            import __main__
            return isinstance(data, Point) and type(point) is Point is __main__.Point and __main__.data is data
        if __name__ == "__main__":
            for initializer in (functools.partial(keep), Keeper(), Keeper().method, lambda value: keep(value)):
                with shoal.Pool(1, initializer, (5,), context=sys.argv[1]) as pool:
                    assert pool.apply(lambda: data) == 5, initializer
            with shoal.Pool(1, make, (5,), context=sys.argv[1]) as pool:
                assert pool.apply(check, (Point(1),))
                point = pool.apply(lambda: data)
                assert type(point) is Point and point.x == 5
    """
    fresh_python(source, method)


def test_what_the_import_or_tasks_make_stays_and_what_the_parent_changes_is_seen(fresh_python, method):
    source = """
        import shoal, sys, threading
        seen = {}
        model = None
        scale = 2
        lock = threading.Lock()
        table = list(range(3))
        def remember(x):
            seen[x] = None
            return sorted(seen)
        def predict(x):
            global model
            if model is None:
                model = 0
            model += 1
            return model
        def guarded(x):
            with lock:
                return x * scale
        def look(x):
            return table[x]
        if __name__ == "__main__":
            pool = shoal.Pool(1, context=sys.argv[1])
            assert pool.map(remember, [3, 1]) == [[3], [1, 3]]
            assert pool.map(predict, range(3)) == [1, 2, 3]
            predict(0)
            assert pool.apply(predict, (0,)) == 4
            for scale in (2, 3, 2, 5):
                assert pool.map(guarded, [1, 2]) == [scale, 2 * scale]
            table[1] = 7
            assert pool.map(look, range(3)) == [0, 7, 2]
            seen["parent"] = 1
            assert pool.map(lambda x: sorted(seen), [1, 2]) == [["parent"]] * 2
            del seen["parent"]
            assert pool.map(lambda x: sorted(seen), [1, 2]) == [[]] * 2
            pool.terminate()
    """
    fresh_python(source, method)


def test_definitions_that_are_changed_are_sent_anew(fresh_python, method):
    source = """
        import shoal, sys
        def work(x): return "old"
        def outer(x): return work(x)
        class Thing:
            kind = "old"
            def tell(self, x): return self.kind + " " + outer(x)
        if __name__ == "__main__":
            pool = shoal.Pool(1, context=sys.argv[1])
            assert pool.apply(outer, (0,)) == "old" and pool.apply(Thing().tell, (0,)) == "old old"
            def work(x): return "new"
            assert pool.apply(outer, (0,)) == "new" and pool.apply(Thing().tell, (0,)) == "old new"
            Thing.kind = "new"
            assert pool.apply(Thing().tell, (0,)) == "new new"
            thing = pool.apply(Thing)
            assert type(thing) is Thing
            pool.terminate()
    """
    fresh_python(source, method)


def test_pools_of_tasks_have_what_the_initializer_made(fresh_python, method):
    source = """
        import shoal, sys
        data = None
        def init(value):
            global data
            data = value
        def read(x):
            return data, x
        def nest(method):
            with shoal.Pool(1, context="fork") as inner:
                first = inner.apply(read, (1,))
            with shoal.Pool(1, init, (6,), context=method) as inner:
                return first, inner.apply(read, (2,)), read(3)
        if __name__ == "__main__":
            with shoal.Pool(1, init, (5,), context=sys.argv[1]) as pool:
                assert pool.apply(nest, sys.argv[1:]) == ((5, 1), (6, 2), (5, 3))
    """
    fresh_python(source, method)


SCRIPT = """
    import shoal, sys
    data = None
    def init(value):
        global data
        data = value
    def read(x):
        return data, x
    if __name__ == "__main__":
        with shoal.Pool(1, init, (5,), context=METHOD) as pool:
            print(pool.apply(read, (1,)), pool.apply(lambda: data))
"""


def test_over_every_kind_of_doorbell(fresh_python, method, doorbell):
    assert fresh_python(SCRIPT.replace("METHOD", repr(method))).stdout == "(5, 1) 5\n"


@pytest.mark.parametrize("how", ["-", "-c", "-m", "directory"])
def test_however_the_program_was_started(tmp_path, method, how):
    source = textwrap.dedent(SCRIPT).replace("METHOD", repr(method))
    (tmp_path / "module.py").write_text(source)
    (tmp_path / "__main__.py").write_text(source)
    arguments = {"-": ["-"], "-c": ["-c", source], "-m": ["-m", "module"], "directory": [str(tmp_path)]}[how]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        input=source if how == "-" else "",
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", "(5, 1) 5\n")
