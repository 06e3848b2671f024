# SPDX-License-Identifier: BSD-3-Clause
"""rounds.py METHOD free|costly|parent ARRIVALS PLACE...: let a worker, started in this way, die at each place, at the
first so many arrivals there, and print what is not as it should be. test_kill_points.py says what that is, kinds.py
what they work at: "KIND at PLACE", or what goes with the place."""

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
from kinds import ROUNDS, heard_all, one_round, said

ROUNDS_MAX = 150


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


def attempt(method, wanted, when, may_lose):
    stop_helpers()
    kind, _, place = wanted.rpartition(" at ")
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
            special = ROUNDS.get(kind or place.split(":")[0])
            lost += special(pool) if special else one_round(pool, place.startswith("bury"), many)
            if log.stat().st_size >= when:
                break
        else:
            print("never reached:", wanted, when, file=sys.__stdout__)
        os.environ["SHOAL_KILL_AT"] = ""
        lost += one_round(pool)
    log.unlink()
    if says and not heard_all(text.getvalue()):
        print("what was said at", place, when, "is not what was heard")
    os.environ.pop("SHOAL_TEST_SAYS", None)
    if lost > may_lose:
        print("lost", lost, "at", wanted, when)


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
