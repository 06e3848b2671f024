# SPDX-License-Identifier: BSD-3-Clause
"""wake.pml: nobody sleeps while a task is queued, whoever dies where."""

import pytest

from checker import fails, holds, seeded_bugs

NEEDS = {
    "BUG_BURY_LEAVES_THE_LOOKOUT": ("CRASHES=1", "TASKS=1", "LOOKOUT=1"),
    "BUG_BURY_WAKES_NOBODY": ("CRASHES=1",),
    "BUG_LOOKOUT_DOES_NOT_LOOK": ("CRASHES=0", "LOOKOUT=1"),
    "BUG_REQUEUE_WAKES_NOBODY": ("CRASHES=1",),
    "BUG_LEAVES_SILENTLY": ("CRASHES=0", "LEAVES=1"),
}


def test_workers_that_come_and_leave():
    holds("wake", "CRASHES=0", "TASKS=2", "LEAVES=1")


def test_a_death_at_any_step():
    holds("wake", "CRASHES=1", "TASKS=1")


def test_three_workers():
    holds("wake", "WORKERS=3", "CRASHES=0", "TASKS=1")


def test_stores_that_come_late():
    holds("wake", "CRASHES=0", "TASKS=1", "LATE=1")


def test_a_lookout():
    holds("wake", "CRASHES=0", "TASKS=2", "LOOKOUT=1")


def test_a_lookout_that_dies():
    holds("wake", "CRASHES=1", "TASKS=1", "LOOKOUT=1")


@pytest.mark.parametrize("bug", seeded_bugs("wake"))
def test_the_checker_finds(bug):
    fails("wake", bug, *NEEDS.get(bug, ("CRASHES=0", "LATE=1")))
