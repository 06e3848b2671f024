# SPDX-License-Identifier: BSD-3-Clause
"""What all Python tests share: a watchdog, a check for what is left over, and snippets in a fresh interpreter.

- Every test has a watchdog: after 120 s, or what `@pytest.mark.timeout_s(…)` or $SHOAL_TEST_TIMEOUT says, the stacks
  of all threads are printed and the run ends, so that a hang is a failure with a place.
- `leakcheck` (a fixture, or `pytestmark = pytest.mark.leakcheck` for a module) compares descriptors, child processes,
  shared mappings and names in /dev/shm before and after.
- `fresh_python(source, …)` runs a script of its own: `__main__` functions, interpreter exit, Ctrl-C, environments.
- `doorbell`, for a module or test that is to run over every kind of it.
- `pool` and `executor` are ours with two workers; `gate` holds their tasks up (tasks.py).
"""

import contextlib
import dataclasses
import faulthandler
import functools
import gc
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from tasks import Gate

DEFAULT_TIMEOUT_S = 120.0


def timeout_of(item):
    marker = item.get_closest_marker("timeout_s")
    seconds = float(marker.args[0]) if marker else DEFAULT_TIMEOUT_S
    return max(seconds, float(os.environ.get("SHOAL_TEST_TIMEOUT", 0)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    # The real standard error: pytest replaces descriptor 2 while a test runs, and what it captured dies with it.
    faulthandler.dump_traceback_later(timeout_of(item), exit=True, file=item.config.stash[real_stderr])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


real_stderr = pytest.StashKey()


def pytest_configure(config):
    # A shell that runs us in the background has SIGINT ignored, which every process that we start would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[real_stderr] = os.fdopen(os.dup(2), "w")


@pytest.fixture(autouse=True)
def leakcheck_if_marked(request):
    if request.node.get_closest_marker("leakcheck"):
        request.getfixturevalue("leakcheck")


# ---- nothing may be left over ----


@dataclasses.dataclass
class Footprint:
    """What this process holds that outlives a forgotten object. Sets, so that a difference can be named."""

    descriptors: dict  # number -> what it leads to
    children: dict  # pid -> name and state
    mappings: dict  # name -> how often
    names: set

    @classmethod
    def take(cls):
        return cls(open_descriptors(), child_processes(), shared_mappings(), names_in_dev_shm())

    def added_since(self, before):
        added = []
        added += [f"descriptor {fd} -> {to}" for fd, to in self.descriptors.items() if before.descriptors.get(fd) != to]
        added += [f"process {pid} {what}" for pid, what in self.children.items() if pid not in before.children]
        for what, count in self.mappings.items():
            if count > before.mappings.get(what, 0):
                added.append(f"mapping {what}: {count}, was {before.mappings.get(what, 0)}")
        return added + [f"/dev/shm/{name}" for name in self.names - before.names]


def open_descriptors():
    descriptors = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listdir itself had open
            descriptors[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    return descriptors


def child_processes():
    children = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            children[child.pid] = f"{child.name()} ({child.status()})"
    return children


def shared_mappings():
    """Mappings of memory files (memfd, /dev/shm), by name and how often; addresses may change."""
    counts = {}
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        match = re.search(r" (/memfd:\S*|/dev/shm/\S*)", line)
        if match:
            counts[match[1]] = counts.get(match[1], 0) + 1
    return counts


def names_in_dev_shm():
    return {name for name in os.listdir("/dev/shm") if "shoal" in name}


@pytest.fixture
def leakcheck():
    """Fail if the test leaves anything. What a process makes once, at first use, and keeps is made before the count."""
    warm_up()
    gc.collect()
    before = Footprint.take()
    yield
    # Processes end and threads close descriptors a moment after the call that asked for it returned: look until nothing
    # is left, and give up only after a time in which anything alive would have finished.
    deadline = time.monotonic() + 60
    while True:
        gc.collect()
        added = Footprint.take().added_since(before)
        if not added or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert not added, "left over: " + "; ".join(added)


@functools.cache
def warm_up():
    """Let what a process makes once and keeps exist: its shared region, its descriptors, numpy's threads."""
    import shoal

    with shoal.Pool(1) as pool:
        pool.apply(int)
        with contextlib.suppress(ImportError):  # numpy is optional
            import numpy

            pool.apply(numpy.asarray, (shoal.empty(10_000),))
    # The modules loaded so far are no garbage. Looking at them in both collections of every test was most of its time.
    gc.collect()
    gc.freeze()


# ---- a fresh interpreter ----


@pytest.fixture
def fresh_python(tmp_path):
    """fresh_python(source, *args, env={…}, check=True, timeout=60) -> subprocess.CompletedProcess, output as text."""

    def run(source, *args, env=None, check=True, timeout=60, **options):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(source))
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", str(script), *map(str, args)],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=max(timeout, float(os.environ.get("SHOAL_TEST_TIMEOUT", 0))),
            check=False,
            **options,
        )
        if check and done.returncode != 0:
            pytest.fail(f"the script ended with status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run


# ---- a pool, an executor, and a gate for their tasks ----


@pytest.fixture(params=["uring", "uring-eventfd", "semaphore"])
def doorbell(request, monkeypatch):
    """Pools that the test makes, here or in a fresh interpreter, use this kind; one that cannot be had is skipped."""
    import shoal

    monkeypatch.setenv("SHOAL_DOORBELL", request.param)
    try:
        shoal.Pool(1).terminate()
    except OSError as error:
        pytest.skip(f"no doorbell of kind {request.param} here: {error}")


@pytest.fixture
def pool():
    import shoal

    with shoal.Pool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def no_main():
    """As in a notebook, there is no main module that a spawned worker could import: here it would be pytest.

    What multiprocessing starts at first use and keeps runs already, so that `leakcheck` does not count it.
    """
    import shoal

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__spec__", None)
        patch.delattr(sys.modules["__main__"], "__file__")
        with shoal.Pool(1, context="forkserver") as pool:
            pool.apply(int)
        yield


@pytest.fixture
def executor():
    import shoal

    with shoal.ProcessPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.close()
