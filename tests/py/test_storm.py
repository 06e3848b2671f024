# SPDX-License-Identifier: BSD-3-Clause
"""Workers killed at random while they work: every task is accounted for, nobody hangs, nothing is left over.

$SHOAL_STORM_KILLS is the number of kills over each kind of doorbell (60 by default; a full run takes 1,000). The seed
is printed, and $SHOAL_STORM_SEED repeats it.
"""

import collections
import os
import random
import textwrap

import pytest

KILLS = int(os.environ.get("SHOAL_STORM_KILLS", "60"))
SEED = int(os.environ.get("SHOAL_STORM_SEED", random.SystemRandom().randrange(1 << 32)))
DOORBELLS = ["uring", "uring-eventfd", "semaphore"]

pytestmark = [pytest.mark.timeout_s(120 + 2 * KILLS), pytest.mark.parametrize("doorbell", DOORBELLS)]

COMMON = """
import collections, os, random, signal, sys, threading, time
import shoal

kills, seed = int(sys.argv[1]), int(sys.argv[2])
dice = random.Random(seed)
sent = 0

def strike(pool):
    "Kill one of the workers, any of them, whatever it is doing."
    global sent
    pid = dice.choice([worker.pid for worker in pool._pool] or [None])
    if pid is None:
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    sent += 1

class Killer(threading.Thread):
    def __init__(self, pool):
        super().__init__(daemon=True)
        self.pool, self.stop = pool, threading.Event()

    def run(self):
        while sent < kills and not self.stop.wait(dice.random() * 0.01):
            strike(self.pool)

def left_over(names):
    "Everything that should not be there any more."
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        found = children.read().split()
    return found + sorted(shared_names() - names)

def shared_names():
    "Of pools: other programs come and go, our examples among them."
    return {name for name in os.listdir("/dev/shm") if "shoal" in name and "example" not in name}

names = shared_names()
"""


def storm(fresh_python, doorbell, source):
    print(f"SHOAL_STORM_SEED={SEED}")
    source = COMMON + textwrap.dedent(source)
    probe = fresh_python("import shoal; shoal.Pool(1).terminate()", env={"SHOAL_DOORBELL": doorbell}, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no doorbell of kind {doorbell} here: {probe.stderr.splitlines()[-1]}")
    done = fresh_python(source, KILLS, SEED, env={"SHOAL_DOORBELL": doorbell}, timeout=60 + 2 * KILLS)
    assert done.stderr == ""
    counts = collections.Counter(dict(line.split() for line in done.stdout.splitlines()))
    return {name: int(count) for name, count in counts.items()}


def test_storm_over_map_batches(fresh_python, doorbell):
    """Elements of an `imap` over batches: each has its own result or WorkerLost, once and in order."""
    counts = storm(
        fresh_python,
        doorbell,
        """
        def work(x):
            deadline = time.perf_counter() + (x % 7) * 1e-4
            while time.perf_counter() < deadline:
                pass
            return x * x

        wrong = lost = fine = rounds = 0
        with shoal.Pool(3) as pool:
            killer = Killer(pool)
            killer.start()
            while sent < kills:
                rounds += 1
                results = pool.imap(work, range(300), chunksize=dice.choice([1, 3, 20]))
                for x in range(300):
                    try:
                        if next(results) == x * x:
                            fine += 1
                        else:
                            wrong += 1
                    except shoal.WorkerLost as error:
                        lost += error.signal == signal.SIGKILL
                wrong += next(results, None) is not None
                pool._engine.verify()
            killer.stop.set()
            killer.join()
            pool.map(abs, range(100))
            wrong += pool.map(abs, range(-100, 0)) != list(range(100, 0, -1))
            pool._engine.verify()
        print("sent", sent)
        print("missing", rounds * 300 - fine - lost)
        print("wrong", wrong)
        print("lost_more_than_killed", int(lost > sent))
        print("left", len(left_over(names)))
        """,
    )
    assert counts == {"sent": counts["sent"], "missing": 0, "wrong": 0, "lost_more_than_killed": 0, "left": 0}
    assert counts["sent"] >= KILLS


def test_storm_over_single_calls(fresh_python, doorbell):
    """Single calls with arguments and results in the ring, in blocks, and in user arrays."""
    counts = storm(
        fresh_python,
        doorbell,
        """
        SIZES = [0, 100, 5_000, 100_000, 1_000_000]

        def echo(n, payload):
            return n, payload

        wrong = lost = fine = rounds = 0
        with shoal.Pool(3) as pool:
            killer = Killer(pool)
            killer.start()
            while sent < kills:
                rounds += 1
                payloads = [bytes([n % 251]) * dice.choice(SIZES) for n in range(40)]
                results = [pool.apply_async(echo, (n, payload)) for n, payload in enumerate(payloads)]
                for n, result in enumerate(results):
                    try:
                        if result.get() == (n, payloads[n]):
                            fine += 1
                        else:
                            wrong += 1
                    except shoal.WorkerLost:
                        lost += 1
                del results, result
                pool._engine.verify()
            killer.stop.set()
            killer.join()
            wrong += pool.apply(echo, (1, b"x")) != (1, b"x")
        print("sent", sent)
        print("missing", rounds * 40 - fine - lost)
        print("wrong", wrong)
        print("lost_more_than_killed", int(lost > sent))
        print("left", len(left_over(names)))
        """,
    )
    assert counts == {"sent": counts["sent"], "missing": 0, "wrong": 0, "lost_more_than_killed": 0, "left": 0}


def test_storm_leaves_all_memory_free(fresh_python, doorbell):
    """After the storm, with the pool closed, the arena holds what it held before."""
    counts = storm(
        fresh_python,
        doorbell,
        """
        with shoal.Pool(1) as pool:
            pool.apply(abs, (1,))
        def used():
            pool = shoal.Pool(1)
            try:
                return pool._engine.stats()["arena_used"]
            finally:
                pool.terminate()
        before = used()
        with shoal.Pool(3) as pool:
            killer = Killer(pool)
            killer.start()
            while sent < kills:
                for result in [pool.apply_async(bytes, (dice.choice([10, 100_000, 2_000_000]),)) for _ in range(20)]:
                    try:
                        result.get()
                    except shoal.WorkerLost:
                        pass
            killer.stop.set()
            killer.join()
            del result
        print("leaked_bytes", used() - before)
        """,
    )
    assert counts == {"leaked_bytes": 0}


def test_storm_while_workers_start(fresh_python, doorbell):
    """Workers are killed as soon as there are any: in their start, in their initializer, before their first task."""
    counts = storm(
        fresh_python,
        doorbell,
        """
        def initialize():
            time.sleep(0.001)

        wrong = broken = pools = 0
        while sent < kills:
            pools += 1
            with shoal.Pool(3, initializer=initialize) as pool:
                for _ in range(3):
                    strike(pool)
                try:
                    wrong += pool.map(abs, range(-10, 0)) != list(range(10, 0, -1))
                except shoal.WorkerLost:
                    pass
                except shoal.PoolBroken:
                    broken += 1
        print("wrong", wrong)
        print("broken", broken)
        print("left", len(left_over(names)))
        """,
    )
    assert counts == {"wrong": 0, "broken": 0, "left": 0}


def test_storm_over_an_executor(fresh_python, doorbell):
    """Futures, collected by as_completed: each ends once, in a result or in WorkerLost."""
    counts = storm(
        fresh_python,
        doorbell,
        """
        import concurrent.futures
        wrong = unfinished = 0
        with shoal.ProcessPoolExecutor(3) as executor:
            executor.submit(abs, 1).result()

            class Workers:
                @property
                def _pool(self):
                    return list(executor._processes.values())

            killer = Killer(Workers())
            killer.start()
            while sent < kills:
                futures = {executor.submit(pow, n, 2): n for n in range(100)}
                seen = 0
                for future in concurrent.futures.as_completed(futures):
                    seen += 1
                    error = future.exception()
                    if error is None:
                        wrong += future.result() != futures[future] ** 2
                    else:
                        wrong += not isinstance(error, shoal.WorkerLost)
                unfinished += 100 - seen
            killer.stop.set()
            killer.join()
        print("wrong", wrong)
        print("unfinished", unfinished)
        print("left", len(left_over(names)))
        """,
    )
    assert counts == {"wrong": 0, "unfinished": 0, "left": 0}
