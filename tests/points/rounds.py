# SPDX-License-Identifier: BSD-3-Clause
"""rounds.py METHOD free|costly|parent ARRIVALS PLACE...: let a worker, started in this way, die at each place, at the
first so many arrivals there, and print what is not as it should be. test_kill_points.py says what that is."""

import collections
import contextlib
import gc
import io
import multiprocessing
import os
import pathlib
import sys
import tempfile
from multiprocessing import forkserver, resource_tracker

import numpy

import shoal
from work import TASKS, call, die, item, keep_all, line, make, ran, stay, total

CALLS = range(30)
ITEMS = range(30, TASKS)
ROUNDS_MAX = 150
PAYLOADS = [numpy.full(300_000, n, numpy.uint8) if n % 5 == 0 else bytes([n]) * 10 * n for n in CALLS]


def outcomes_of(gets):
    """For each get(): its value, or None for what was lost."""
    outcomes = []
    for get in gets:
        try:
            outcomes.append(get(60))
        except shoal.WorkerLost:
            outcomes.append(None)
    return outcomes


said = collections.Counter()  # by calls that have a value


def heard_all(text):
    """Every line whole, those of calls that have a value once for each; of those that were lost, at most once."""
    lines = collections.Counter(text.splitlines())
    return (
        set(lines) <= {line(n) for n in CALLS}
        and sum((said - lines).values()) == 0
        and sum((lines - said).values()) <= 1
    )


def one_round(pool, dies, many=()):
    """Give the pool all kinds of work; how much of it was lost, besides the task that kills its worker on purpose."""
    ran[:] = bytes(TASKS)
    calls = [pool.apply_async(call, (n, PAYLOADS[n])) for n in CALLS]
    items = pool.imap(item, ITEMS, chunksize=4)
    keeping = [pool.apply_async(keep_all, (many,)) for _ in range(2) if many]
    death = [pool.apply_async(die)] if dies else []
    outcomes = outcomes_of([result.get for result in calls] + [items.next for _ in ITEMS])
    assert outcomes_of([result.get for result in death]) == [None] * len(death)
    lost = outcomes_of([result.get for result in keeping]).count(None)
    for n, outcome in enumerate(outcomes):
        assert ran[n] <= 1, f"task {n} ran {ran[n]} times"
        assert outcome is None or ran[n] == 1, f"task {n} has a value and did not run"
        if outcome is not None:
            wanted = PAYLOADS[n] if n in CALLS else b"y" * (200_000 if n % 7 == 0 else n)
            assert outcome[0] == n and bytes(outcome[1]) == bytes(wanted)
            if n in CALLS:
                said[line(n)] += 1
    pool._engine.verify()
    return outcomes.count(None) + lost


def share_round(pool):
    """Handles made here and in workers, opened and dropped, and an argument that repeats; how much was lost."""
    ran[:] = bytes(TASKS)
    handle = shoal.share({"numbers": numpy.arange(50_000)})
    calls = [pool.apply_async(total, (handle, n)) for n in CALLS]
    made = [pool.apply_async(make, (n,)) for n in range(3)]
    repeated = {"numbers": numpy.arange(60_000)}
    items = pool.starmap_async(total, [(repeated, n) for n in ITEMS], 4)
    outcomes = outcomes_of([result.get for result in calls])
    handles = outcomes_of([result.get for result in made])
    for n, outcome in enumerate(outcomes):
        assert ran[n] <= 1 and outcome in (None, (n, sum(range(50_000))))
    for n, handle in enumerate(handles):
        assert handle is None or (handle.get()["numbers"] == n).all()
    lost = outcomes_of([items.get]).count(None)
    assert all(ran[n] <= 1 for n in ITEMS)
    del handle, handles, calls, made, items
    gc.collect()
    assert pool.map(abs, ITEMS, 1) == list(ITEMS)
    pool._engine.verify()
    return outcomes.count(None) + lost


def limited_round(pool):
    """Tasks whose time is up end once, with the timeout: also where the worker died over it."""
    for grace in (0.01, 0):
        outcomes = []
        strict = pool.options(grace=grace, timeout=0.01)
        calls = [strict.apply_async(stay, (), None, outcomes.append, outcomes.append)]
        calls += [pool.apply_async(abs, (n,), timeout=60) for n in CALLS]
        assert outcomes_of([call.get for call in calls[1:]]) == list(CALLS)
        calls[0].wait(60)
        assert [type(outcome) for outcome in outcomes] == [shoal.TaskTimeout], outcomes
    pool._engine.verify()
    return 0


ROUNDS = {"share": share_round, "sweep": share_round, "retire": share_round, "carry": share_round}
ROUNDS["limits"] = limited_round


def used():
    gc.collect()
    pool = shoal.Pool(1)
    try:
        return pool._engine.stats()["arena_used"], len(os.listdir("/proc/self/fd"))
    finally:
        pool.terminate()


def stop_helpers():
    """Those of multiprocessing. A forkserver has the environment of its start, with the place asked for then."""
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()


def attempt(method, place, when, may_lose):
    stop_helpers()
    handle, name = tempfile.mkstemp()
    os.close(handle)
    log = pathlib.Path(name)
    os.environ.update(SHOAL_KILL_AT=place, SHOAL_KILL_WHEN=str(when), SHOAL_KILL_LOG=name)
    many = []
    if place.startswith("kept"):  # more blocks than a record has room for
        many = [shoal.share(numpy.zeros(64, numpy.uint8), readonly=True) for _ in range(2500)]
    lost = 0
    says = place.startswith("said")
    if says:
        os.environ["SHOAL_TEST_SAYS"] = "1"
        said.clear()
    heard = contextlib.redirect_stdout(io.StringIO())
    most = 15 if place.startswith("bye") else None
    with heard as text, shoal.Pool(2, maxtasksperchild=most, context=method, forward=["stdout"]) as pool:
        for _ in range(ROUNDS_MAX):
            special = ROUNDS.get(place.split(":")[0])
            lost += special(pool) if special else one_round(pool, place.startswith("bury"), many)
            if log.stat().st_size >= when:
                break
        else:
            print("never reached:", place, when, file=sys.__stdout__)
        os.environ["SHOAL_KILL_AT"] = ""
        lost += one_round(pool, dies=False)
    log.unlink()
    if says and not heard_all(text.getvalue()):
        print("what was said at", place, when, "is not what was heard")
    os.environ.pop("SHOAL_TEST_SAYS", None)
    if lost > may_lose:
        print("lost", lost, "at", place, when)


def main(method, kind, arrivals, *places):
    multiprocessing.set_forkserver_preload(["work"])
    os.environ.update(SHOAL_KILL_SPARE=str(os.getpid()), SHOAL_KILL_AT="")
    used()
    before = used()
    for place in places:
        for when in range(1, int(arrivals) + 1):
            attempt(method, place, when, may_lose=0 if kind == "free" else 1)
    stop_helpers()
    after = used()
    if before != after:
        print("left over:", before, after)
    print(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text(), end="")
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
