# SPDX-License-Identifier: BSD-3-Clause
"""Rounds of work of several kinds for rounds.py, by the beginning of the place at which somebody dies. Each checks that
every task has one outcome, and returns how much was lost."""

import asyncio
import collections
import gc
import itertools
import json
import os
import tempfile
import time

import numpy

import shoal
from work import TASKS, call, die, item, keep_all, line, make, ran, stay, total

CALLS = range(30)
ITEMS = range(30, TASKS)
PAYLOADS = [numpy.full(300_000, n, numpy.uint8) if n % 5 == 0 else bytes([n]) * 10 * n for n in CALLS]
TIMES = ("submitted", "written", "claimed", "started", "ended", "handed_in", "read")
# What the trace has of the task in which a worker died there.
CUT_OFF = {"trace: begin noted": ["begun"], "trace: end written": ["begun"], "trace: end noted": ["ended"]}


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


def check_outcomes(outcomes):
    """Of CALLS and ITEMS: the value that is due, or None; and how often each ran."""
    for n, outcome in enumerate(outcomes):
        assert ran[n] <= 1, f"task {n} ran {ran[n]} times"
        assert outcome is None or ran[n] == 1, f"task {n} has a value and did not run"
        if outcome is not None:
            wanted = PAYLOADS[n] if n in CALLS else b"y" * (200_000 if n % 7 == 0 else n)
            assert outcome[0] == n and bytes(outcome[1]) == bytes(wanted)


def one_round(pool, dies=False, many=()):
    """All kinds of calls; how much of it was lost, besides the task that kills its worker on purpose."""
    ran[:] = bytes(TASKS)
    calls = [pool.apply_async(call, (n, PAYLOADS[n])) for n in CALLS]
    items = pool.imap(item, ITEMS, chunksize=4)
    keeping = [pool.apply_async(keep_all, (many,)) for _ in range(2) if many]
    death = [pool.apply_async(die)] if dies else []
    outcomes = outcomes_of([result.get for result in calls] + [items.next for _ in ITEMS])
    assert outcomes_of([result.get for result in death]) == [None] * len(death)
    lost = outcomes_of([result.get for result in keeping]).count(None)
    check_outcomes(outcomes)
    said.update(line(n) for n in CALLS if outcomes[n] is not None)
    pool._engine.verify()
    return outcomes.count(None) + lost


def share_round(pool):
    """Handles made here and in workers, opened and dropped, and an argument that repeats."""
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


def resized_round(pool):
    """More workers and fewer while tasks run: in the end there are as many as were asked for."""
    lost = 0
    for size in (4, 1, 3, 2):
        pool.resize(size)
        lost += one_round(pool)
    deadline = time.monotonic() + 60
    while len(pool._engine.pids()) != 2 or 0 in pool._engine.pids():
        assert time.monotonic() < deadline, f"workers: {pool._engine.pids()}"
        pool._engine.drain()
        time.sleep(0.001)
    return lost


def traced_round(pool):
    """Each task has one life in the trace, in order, and all of it if it has a value."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "trace.json")
        trace = pool.trace(path)
        with trace:
            lost = one_round(pool)
        with open(path) as file:
            events = [event for event in json.load(file)["traceEvents"] if event["ph"] != "M"]
    assert trace.dropped == 0
    lives = {kind: [event["args"]["task"] for event in events if event["cat"] == kind] for kind in ("send", "receive")}
    batches = len(ITEMS[::4])
    assert sorted(lives["send"]) == sorted(lives["receive"]) == list(range(len(CALLS) + batches))
    ended, cut_off = collections.Counter(), []
    for event in events:
        if event["cat"] != "task":
            continue
        if event["args"]["outcome"] == "lost":
            cut_off.append("begun" if event["args"]["ended"] is None else "ended")
        times = [event["args"][name] for name in TIMES if event["args"][name] is not None]
        assert all(before <= after for before, after in itertools.pairwise(times)), event
        if event["args"]["outcome"] == "done":
            assert len(times) == len(TIMES), event
            ended[event["args"]["task"]] += 1
    assert max(ended.values()) == 1
    assert len(ended) >= len(CALLS) + batches - lost
    assert lost == 0 or cut_off == CUT_OFF.get(os.environ["SHOAL_KILL_AT"], cut_off)
    return lost


def awaited_round(pool):
    """An event loop awaits many at once, and then one after the other, so that it sleeps before each."""

    async def outcome_of(future):
        try:
            return await asyncio.wait_for(future, 60)
        except shoal.WorkerLost:
            return None

    async def all_of_them():
        futures = [pool.asubmit(call, n, PAYLOADS[n]) for n in CALLS]
        outcomes = [await outcome_of(future) for future in futures]
        return outcomes + [await outcome_of(pool.asubmit(item, n)) for n in ITEMS]

    ran[:] = bytes(TASKS)
    outcomes = asyncio.run(all_of_them())
    check_outcomes(outcomes)
    pool._engine.verify()
    return outcomes.count(None)


ROUNDS = {"share": share_round, "sweep": share_round, "retire": share_round, "carry": share_round}
ROUNDS |= {"limits": limited_round, "resize": resized_round, "trace": traced_round, "inbox": awaited_round}
