# SPDX-License-Identifier: BSD-3-Clause
"""results.pml: neither side sleeps over what the other has said, whoever dies where."""

import pytest

from checker import fails, holds, seeded_bugs


def test_a_death_at_any_step():
    holds("results", "CRASHES=1", "RESULTS=1", "LATE=1")


def test_a_ring_that_is_full_again_and_again():
    holds("results", "CRASHES=0", "RESULTS=2")


@pytest.mark.parametrize("bug", seeded_bugs("results"))
def test_the_checker_finds(bug):
    fails("results", bug, "CRASHES=1", "LATE=1")
