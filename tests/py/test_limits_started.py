# SPDX-License-Identifier: BSD-3-Clause
"""Timeouts and cancelling in workers that were started anew."""

import time

import pytest

import shoal
from limit_tasks import LONG, SHORT, catches_everything, sound, started


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_were_started_anew_can_be_stopped(method):
    with shoal.Pool(1, context=method, grace=SHORT) as pool:
        with pytest.raises(shoal.TaskTimeout, match="limit_tasks|sleep|not known") as caught:
            pool.options(grace=LONG).apply(time.sleep, (LONG,), timeout=SHORT)
        assert not caught.value.killed
        with pytest.raises(shoal.TaskTimeout) as caught:
            pool.options(grace=1).apply(catches_everything, timeout=SHORT)
        assert caught.value.killed and "catches_everything" in caught.value.where
        assert started(pool, catches_everything).cancel()
        sound(pool)
