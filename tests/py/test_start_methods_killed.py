# SPDX-License-Identifier: BSD-3-Clause
"""Workers that are killed by others before they have come up: they are started again."""

import os
import signal
import time

import pytest

import shoal
from shoal import _spawn, _worker
from tasks import works


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.01)


class Killer:
    """Kills so many workers, of any start method, as soon as they are started; then makes a file."""

    def __init__(self, count, number, over):
        self.count, self.number, self.over = count, number, over

    def instead_of(self, start):
        def start_and_kill(starting, engine, index):
            started = start(starting, engine, index)
            if self.count > 0:
                self.count -= 1
                os.kill(started[0] if isinstance(started, tuple) else started, self.number)
            else:
                self.over.touch()
            return started

        return start_and_kill


@pytest.fixture
def kill_starts(monkeypatch, tmp_path):
    def kill_starts(count, number=signal.SIGKILL):
        killer = Killer(count, number, tmp_path / "over")
        for kind in (_worker.ForkStart, _spawn.SpawnStart):
            monkeypatch.setattr(kind, "__call__", killer.instead_of(kind.__call__))
        return killer

    return kill_starts


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_that_are_killed_while_they_start_are_started_again(no_main, doorbell, kill_starts, method):
    left = kill_starts(8)  # more than the deaths by its own doing that break a pool of one
    with shoal.Pool(1, await_file, (left.over,), context=method) as pool:
        assert works(pool)
        assert left.count == 0


def test_a_worker_that_is_told_to_end_while_it_starts_is_started_again(no_main, kill_starts):
    kill_starts(8, signal.SIGTERM)
    with shoal.Pool(1, context="spawn") as pool:
        assert works(pool)
