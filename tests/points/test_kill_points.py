# SPDX-License-Identifier: BSD-3-Clause
"""A worker dies at each named place of each protocol (<shoal/killpoint.h>), over each kind of doorbell.

Needs the build that `./run test points` makes. Each place is tried in a pool of its own, at its first arrival and at a
later one, under work of all kinds: single calls, batches, arguments and results in rings and in blocks, blocks that a
task keeps; shared handles, limits, a pool that is resized, or traced, or awaited by an event loop. Then: every task has
ended, with its value or with WorkerLost; user code ran at most once, and exactly once for a value; a death before the
start of a task costs nothing; memory, descriptors and processes are as before.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("SHOAL_BUILD", HERE.parents[1] / "build")) / "points"
DOORBELLS = ["uring", "uring-eventfd", "semaphore"]
# Places that a worker passes before any user code runs, or when none does: nothing may be lost there.
FREE_PLACES = [
    "hello: to be said",
    "claim: swapped",
    "claim: described",
    "claim: passed on",
    "rest: announced",
    "rest: over",
    "watch: begun",
    "task: read",
    "batch: function read",
    "release: to be said",
    "bye: to be said",
    "bye: said",
    "resize at claim: described",
    "inbox at claim: described",
]
# A death there may cost the item that was running.
COSTLY_PLACES = [
    "start: swapped",
    "pop: order read",
    "task: called",
    "said: written",
    "said: published",
    "run: written",
    "note: noted",
    "run: to be published",
    "lease: asked for",
    "lease: granted",
    "result: written",
    "kept: to be published",
    "watch: to be ended",
    "watch: ended",
    "returning: to be said",
    "commit: written",
    "commit: published",
    "ring: word changed",
    "share: packed",
    "share: arrived",
    "share: unpacked",
    "sweep: asked",
    "sweep: to be answered",
    "trace: ring mapped",
    "trace: pack begun",
    "trace: name told",
    "trace: begin written",
    "trace: begin noted",
    "trace: elements told",
    "trace: end written",
    "trace: end noted",
    "trace: end apart",
    "trace: pack committed",
    "trace at commit: published",
    "inbox at ring: word changed",
    "inbox at commit: published",
    "resize at commit: published",
    "resize: told to end",
]
# Places in the parent at which it kills a worker: the one it reads from, or another than the one it buries.
PARENT_PLACES = [
    "grant: allocated",
    "drain: record taken",
    "bury: drained",
    "bury: marks cleared",
    "bury: slots recovered",
    "limits: asked",
    "limits: to be killed",
    "retire: live cleared",
    "carry: packed",
    "resize: extended",
    "resize: target set",
    "resize: order given",
    "resize: started",
    "resize: shortened",
    "trace: begun",
    "trace: pack taken",
    "trace: noted read",
    "trace: stopped",
    "inbox: announced",
    "inbox: armed",
    "inbox: notice cleared",
    "inbox: collected",
]
ATTENDING_PLACES = ["inbox: announced", "inbox: armed"]  # an event loop does not sleep on a semaphore

# With workers that were started anew, which share the protocols but not how they got to them: one place of each kind,
# over each kind of doorbell once. SHOAL_POINTS=all tries everything with everything, for some minutes; SHOAL_POINTS=few
# is for interpreters that are tried besides.
ALL = os.environ.get("SHOAL_POINTS") == "all"
FEW = os.environ.get("SHOAL_POINTS") == "few"
STARTED = [("spawn", "uring-eventfd"), ("forkserver", "uring"), ("forkserver", "semaphore")]
FORKED = DOORBELLS[:1] if FEW else DOORBELLS
if ALL:
    STARTED = [(method, doorbell) for method in ("spawn", "forkserver") for doorbell in DOORBELLS]


def start(script, *arguments, **settings):
    with tempfile.NamedTemporaryFile() as ran:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", str(HERE / script), *arguments],
            env={**os.environ, **settings, "PYTHONPATH": str(BUILD / "python"), "SHOAL_TEST_RAN": ran.name},
            capture_output=True,
            text=True,
            timeout=max(600 if ALL else 120, float(os.environ.get("SHOAL_TEST_TIMEOUT", 0))),
            check=False,
        )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def run(doorbell, kind, places, method="fork", arrivals=2):
    places = [place for place in places if doorbell != "semaphore" or place not in ATTENDING_PLACES]
    assert start("rounds.py", method, kind, str(arrivals), *places, SHOAL_DOORBELL=doorbell) == "done\n"


@pytest.mark.parametrize("doorbell", FORKED)
@pytest.mark.parametrize("half", [0, 1])
def test_a_death_before_user_code_runs_costs_nothing(doorbell, half):
    run(doorbell, "free", FREE_PLACES[half::2])


@pytest.mark.parametrize("doorbell", FORKED)
@pytest.mark.parametrize("half", [0, 1])
def test_a_death_in_a_task_or_its_answer_costs_that_item_at_most(doorbell, half):
    run(doorbell, "costly", COSTLY_PLACES[half::2])


@pytest.mark.parametrize("doorbell", FORKED)
@pytest.mark.parametrize("half", [0, 1])
def test_a_death_at_what_the_parent_does_costs_one_item_at_most(doorbell, half):
    run(doorbell, "parent", PARENT_PLACES[half::2])


@pytest.mark.parametrize(("method", "doorbell"), STARTED[:2] if FEW else STARTED)
@pytest.mark.parametrize(
    ("kind", "places", "some"),
    [("free", FREE_PLACES, FREE_PLACES[:2]), ("costly", COSTLY_PLACES, ["sweep: asked", "trace: end written"])]
    + [("parent", PARENT_PLACES, ["carry: packed", "resize: started"])],
    ids=["free", "costly", "parent"],
)
def test_workers_that_were_not_forked_die_alike(method, doorbell, kind, places, some):
    run(doorbell, kind, places if ALL else some, method, 2 if ALL else 1)


def test_ctrl_c_just_when_another_thread_has_found_the_memory_leaves_no_block():
    assert start("interrupted.py", SHOAL_ARENA_LIMIT="8M") == "arrivals 1\nsame\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_whose_workers_are_all_killed_while_they_start_gives_up(method):
    assert start("in_vain.py", method) == "True True\n"
