# SPDX-License-Identifier: BSD-3-Clause
"""watch.pml: a task that is stopped, killed or cancelled just when it ends has one outcome, and no other is hit."""

import pytest

from checker import fails, holds, seeded_bugs


def test_times_that_are_up_at_any_step():
    holds("watch", "CRASHES=0", "ASKS=3")


def test_a_death_at_any_step():
    holds("watch", "CRASHES=1", "ASKS=2")


def test_a_caller_who_cancels_what_runs():
    holds("watch", "CRASHES=1", "ASKS=1", "CANCELS=1")


@pytest.mark.parametrize("bug", seeded_bugs("watch"))
def test_the_checker_finds(bug):
    fails("watch", bug, "CRASHES=1", "ASKS=2")
