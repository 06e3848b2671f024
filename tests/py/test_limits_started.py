# SPDX-License-Identifier: BSD-3-Clause
"""Timeouts and cancelling in workers that were started anew."""

import time

import pytest

import shoal
from limit_tasks import LONG, SHORT, catches_everything, sound, started, timeout_of


def stuck_in_it(error):
    return error.killed and "catches_everything" in error.where


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_were_started_anew_can_be_stopped(method):
    with shoal.Pool(1, context=method, grace=SHORT) as pool:
        assert not timeout_of(pool.options(grace=LONG), time.sleep, LONG).killed
        error = timeout_of(pool.options(grace=1), catches_everything, until=stuck_in_it)
        assert stuck_in_it(error)
        assert started(pool, catches_everything).cancel()
        sound(pool)
