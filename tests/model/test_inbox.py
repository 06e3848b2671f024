# SPDX-License-Identifier: BSD-3-Clause
"""inbox.pml: no event loop sleeps while a result of its own is there, whoever waits beside it and whoever dies."""

import pytest

from checker import fails, holds, seeded_bugs

NEEDS = {
    "BUG_ARRIVES_SILENTLY": ("CALLS=1", "THREAD=1", "PATIENT=1"),
    "BUG_BURIED_WITH_A_RING": ("CALLS=2", "CRASHES=1"),
    "BUG_BURIED_SILENTLY": ("CALLS=1", "THREAD=1", "PATIENT=1", "CRASHES=1"),
    "BUG_LEAVES_SILENTLY": ("CALLS=1", "THREAD=1"),
    "BUG_RESTS_SILENTLY": ("CALLS=1", "LOOPS=2"),
    "BUG_RETRACTS_WHAT_ANOTHER_ANNOUNCED": ("CALLS=1", "THREAD=1", "PATIENT=1"),
}


def test_two_workers():
    holds("inbox", "CALLS=2", "WORKERS=2")


def test_a_thread_that_waits_comes_and_leaves():
    holds("inbox", "CALLS=1", "THREAD=1")


def test_a_thread_that_waits_for_longer():
    holds("inbox", "CALLS=2", "THREAD=1", "PATIENT=1")


def test_a_death_at_any_step():
    holds("inbox", "CALLS=2", "CRASHES=1")


def test_a_death_at_any_step_while_a_thread_waits():
    holds("inbox", "CALLS=1", "THREAD=1", "CRASHES=1")


def test_two_loops():
    holds("inbox", "CALLS=1", "LOOPS=2")


@pytest.mark.parametrize("bug", seeded_bugs("inbox"))
def test_the_checker_finds(bug):
    fails("inbox", bug, *NEEDS.get(bug, ("CALLS=2",)))
