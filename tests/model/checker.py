#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Check a model with spin: `checker.py wake WORKERS=3 CRASHES=2` prints what was searched, and the way to an error.

The models stand beside this file, one for each protocol; each says at its top which C functions it mirrors, what it
promises, and what its constants mean. The tests check small configurations, which take seconds; by hand, larger ones:

    checker.py claim CRASHES=2 ENTRIES=2 TASKS=3 REVOKES=0      53 million states
    checker.py wake WORKERS=3 TASKS=1                           56 million, three workers of which one dies
    checker.py wake LATE=1 LEAVES=1                             46 million, all at once with two workers
    checker.py wake CRASHES=1 TASKS=2 LOOKOUT=1                 19 million, and one may sleep as the lookout
    checker.py results CRASHES=2 LATE=1

A state takes 12 bytes (hash compaction). A model is searched to its end or the check fails.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent
MEMORY_MIB = 8000
DEPTH = 1_000_000


class Verdict(NamedTuple):
    errors: int
    states: int
    complete: bool
    report: str


def build(model, settings, directory, optimize="-O2"):
    """Make ./pan, the checker for this model, in the directory."""
    flags = [f"-D{setting}" for setting in settings]
    source = HERE / f"{model}.pml"
    made = subprocess.run(["spin", *flags, "-a", source], cwd=directory, capture_output=True, text=True, check=False)
    if made.returncode != 0 or "rror:" in made.stdout:
        raise SystemExit(f"spin does not take {source.name}:\n{made.stdout}{made.stderr}")
    limits = ["-DSAFETY", "-DNOFAIR", "-DHC4", f"-DMEMLIM={MEMORY_MIB}"]
    subprocess.run(["gcc", optimize, "-w", *limits, "-o", "pan", "pan.c"], cwd=directory, check=True)


def check(model, *settings, trail=False, optimize="-O2"):
    """Search all states; with `trail`, the report ends with the steps to the error."""
    with tempfile.TemporaryDirectory() as directory:
        build(model, settings, directory, optimize)
        ran = subprocess.run(
            ["./pan", "-w24", f"-m{DEPTH}"], cwd=directory, capture_output=True, text=True, check=False
        )
        report = ran.stdout + ran.stderr
        errors = int(re.search(r"errors: (\d+)", report)[1])
        if errors and trail:
            flags = [f"-D{setting}" for setting in settings]
            trail_file = next(pathlib.Path(directory).glob("*.trail"))
            steps = subprocess.run(
                ["spin", *flags, "-p", "-g", "-k", trail_file, HERE / f"{model}.pml"],
                cwd=directory,
                capture_output=True,
                text=True,
                check=False,
            )
            report += steps.stdout
    states = int(re.search(r"(\d+) states, stored", report)[1])
    complete = "Search not completed" not in report and "max search depth too small" not in report
    return Verdict(errors, states, complete, report)


def seeded_bugs(model):
    """The names of the bugs that the model can be given."""
    return sorted(set(re.findall(r"\bBUG_[A-Z_]*[A-Z]\b", (HERE / f"{model}.pml").read_text())))


def holds(model, *settings):
    verdict = check(model, *settings)
    assert verdict.errors == 0, verdict.report
    assert verdict.complete, verdict.report
    assert verdict.states > 1000, "the model does not move"


def fails(model, *settings):
    assert check(model, *settings, optimize="-O0").errors > 0, "the checker does not find the bug"


if __name__ == "__main__":
    print(check(*sys.argv[1:], trail=True).report)
