# SPDX-License-Identifier: BSD-3-Clause
"""Results that nobody has fetched count towards the budget, those the user keeps do not; who submits waits or hears."""

import pytest

pytestmark = pytest.mark.leakcheck

# What a task returns: 50 kB, which travel in the ring, and 200 kB, which need a block.
KINDS = """
import numpy, operator, shoal, sys, threading

def as_bytes(number, size):
    return bytes([number % 251]) * size
def as_str(number, size):
    return chr(200 + number % 50) * (size // 2)
def as_list(number, size):
    return [str(number)] + [number + 1000] * (size // 3)
def as_array(number, size):
    return numpy.full(size, number % 251, "u1")

kind, size = globals()[sys.argv[1]], int(sys.argv[2])
def right(kept):
    same = numpy.array_equal if kind is as_array else operator.eq
    return all(same(value, kind(number, size)) for number, value in enumerate(kept))
def submit_until_refused():
    while len(results) < 5000:
        result = pool.apply_async(kind, (len(results), size))
        if result.ready() and not result.successful():
            return result
        results.append(result)
        if len(results) % 10 == 0:
            result.wait()
def unread(engine):
    return engine.stats()["unread"]
"""
every_size = pytest.mark.parametrize("size", [50_000, 200_000])


@pytest.fixture
def run(fresh_python):
    def run_it(code, kind="as_bytes", size=50_000, budget="8M"):
        return fresh_python(KINDS + code, kind, size, env={"SHOAL_ARENA_LIMIT": budget}).stdout.split("\n")[:-1]

    return run_it


@pytest.mark.parametrize(
    ("kind", "size"), [("as_bytes", 50_000), ("as_bytes", 200_000), ("as_str", 50_000), ("as_list", 50_000)]
)
def test_twice_the_budget_can_be_kept(run, kind, size):
    lines = run(
        """
count = (16 << 20) // size
with shoal.Pool(2) as pool:
    print(right([pool.apply(kind, (n, size)) for n in range(count)]))
    print(right(list(pool.imap(lambda n: kind(n, size), range(count)))))
    print(right(pool.map(lambda n: kind(n, size), range(count))))
    kept = []
    for first in range(0, count, 20):
        later = [pool.apply_async(kind, (n, size)) for n in range(first, min(first + 20, count))]
        kept += [result.get() for result in later]
    print(right(kept))
    print(unread(pool._engine))
""",
        kind,
        size,
    )
    assert lines == ["True"] * 4 + ["0"]


@every_size
def test_who_alone_could_fetch_and_submits_on_is_told(run, size):
    lines = run(
        """
results = []
with shoal.Pool(2) as pool:
    refused = submit_until_refused()
    print(4 << 20 < unread(pool._engine) < 12 << 20)
    try:
        refused.get()
    except MemoryError as error:
        print(error)
    print(right([result.get() for result in results]))
    print(unread(pool._engine), len(pool.apply(kind, (1, size))) == size)
""",
        size=size,
    )
    assert "nobody has fetched" in lines[1] and "SHOAL_ARENA_LIMIT" in lines[1]
    assert [lines[0], *lines[2:]] == ["True", "True", "0 True"]


def test_an_executor_says_so_in_the_future(run):
    lines = run("""
with shoal.ProcessPoolExecutor(2) as executor:
    futures = []
    for number in range(1000):
        futures.append(executor.submit(kind, number, size))
        if number % 10 == 0:
            futures[-1].exception()
    refused = [future for future in futures if isinstance(future.exception(), MemoryError)]
    print(0 < len(refused) < 900)
    print(right([future.result() for future in futures if future not in refused]))
    print(executor.submit(abs, -1).result())
""")
    assert lines == ["True", "True", "1"]


@every_size
def test_a_submitter_waits_for_the_thread_that_fetches(run, size):
    lines = run(
        """
import queue
results, kept, most = queue.SimpleQueue(), [], 0
def fetch():
    global most
    while (result := results.get()) is not None:
        most = max(most, unread(pool._engine))
        kept.append(result.get())
with shoal.Pool(2) as pool:
    thread = threading.Thread(target=fetch)
    thread.start()
    for number in range((24 << 20) // size):
        results.put(pool.apply_async(kind, (number, size)))
    results.put(None)
    thread.join()
    print(right(kept), most < 16 << 20, unread(pool._engine))
""",
        size=size,
    )
    assert lines == ["True True 0"]


def test_callbacks_that_fetch_make_room(run):
    lines = run("""
kept = []
with shoal.ProcessPoolExecutor(2) as executor:
    for number in range(1000):
        executor.submit(kind, number, size).add_done_callback(lambda future: kept.append(future.result()))
print(len(kept), sorted({len(value) for value in kept}))
""")
    assert lines == ["1000 [50000]"]


def test_a_callback_that_submits_beyond_the_budget_is_told(run):
    lines = run("""
told = threading.Event()
results = []
def more(_):
    if submit_until_refused():
        told.set()
with shoal.Pool(2) as pool:
    first = pool.apply_async(abs, (-1,), callback=more)
    print(told.wait(60), first.get(), right([result.get() for result in results]))
""")
    assert lines == ["True 1 True"]


@pytest.mark.parametrize("kind", ["as_bytes", "as_array"])
def test_an_iterator_that_is_read_late_looks_ahead_within_the_budget(run, kind):
    lines = run(
        """
import itertools
with shoal.Pool(2) as pool:
    iterator = pool.imap(lambda n: kind(n, size), itertools.count())
    most = 0
    kept = []
    for number in range(250):
        kept.append(next(iterator))
        if number > 150:  # nobody knows how large results are before the first ones are there
            most = max(most, unread(pool._engine))
    print(right(kept), most < 16 << 20)
""",
        kind,
        200_000,
    )
    assert lines == ["True True"]


@pytest.mark.parametrize("kind", ["as_bytes", "as_array"])
def test_joining_an_iterator_that_holds_more_than_the_budget_ends(run, kind):
    lines = run(
        """
with shoal.Pool(2) as pool:
    iterator = pool.imap(lambda n: kind(n, size), range(500))
    pool.close()
    pool.join()
    kept, told = [], 0
    while True:
        try:
            kept.append(next(iterator))
        except StopIteration:
            break
        except MemoryError as error:
            told += 1
    print(len(kept) + told, told > 0, right(kept))
""",
        kind,
        200_000,
    )
    assert lines == ["500 True True"]


def test_results_that_nobody_wants_any_more_do_not_count(run):
    lines = run("""
with shoal.Pool(2) as pool:
    for number in range(1000):
        pool.apply_async(kind, (number, size))
    group = pool.map_async(lambda n: kind(n, size), range(1000))
    del group
    iterator = pool.imap_unordered(lambda n: kind(n, size), range(1000))
    print(len(next(iterator)))
    del iterator
    pool.close()
    pool.join()
    print(unread(pool._engine))
""")
    assert lines == ["50000", "0"]
