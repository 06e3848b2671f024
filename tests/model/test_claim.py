# SPDX-License-Identifier: BSD-3-Clause
"""claim.pml: each item ends once and runs at most once, whoever dies where."""

import pytest

from checker import fails, holds, seeded_bugs

NEEDS = {"BUG_COMPACT_MOVES_HEAD_FIRST": ("CRASHES=0", "TASKS=3", "ENTRIES=2")}


def test_a_death_at_any_step_with_tasks_taken_back():
    holds("claim", "CRASHES=1", "REVOKES=1")


def test_a_death_at_any_step_while_the_index_ring_is_compacted():
    holds("claim", "CRASHES=1", "REVOKES=0", "ENTRIES=2")


def test_a_death_at_any_step_among_three_workers():
    holds("claim", "WORKERS=3", "CRASHES=1", "REVOKES=0")


@pytest.mark.parametrize("bug", seeded_bugs("claim"))
def test_the_checker_finds(bug):
    fails("claim", bug, *NEEDS.get(bug, ("CRASHES=1",)))
