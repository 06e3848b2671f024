# SPDX-License-Identifier: BSD-3-Clause
# alone: looks at all of /dev/shm
"""The short examples print what they say. (flights.py has tests of its own.)"""

import os
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
PRINTED = {
    "pool.py": "[0, 3, 6, 9, 12]\n",
    "executor.py": "A School Of Fish\nZeroDivisionError('division by zero')\n",
    "arrays.py": "8 parts, 1.706666e+20\n",
    "pickler.py": "7\n",
}


@pytest.mark.parametrize("name", list(PRINTED))
def test_example_prints(name, tmp_path):
    if name == "arrays.py":
        pytest.importorskip("numpy")
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, PRINTED[name], "")


def test_every_python_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*PRINTED, "flights.py"}


@pytest.mark.parametrize("doorbell", ["", "uring", "semaphore"])
def test_two_unrelated_programs_meet_by_name_and_leave_none(doorbell):
    program = pathlib.Path(os.environ.get("SHOAL_BUILD", EXAMPLES.parent / "build"), "examples/two_processes")
    if not program.exists():
        pytest.skip("examples/two_processes is not built")
    before = set(os.listdir("/dev/shm"))
    done = subprocess.run(
        [program],
        env={**os.environ, "SHOAL_DOORBELL": doorbell},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("checksum agrees") == 3
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "shoal-example" in name}
