# SPDX-License-Identifier: BSD-3-Clause
"""What the lint tests share: the files of the project, by kind, and how to run a tool over them.

Lint is run by pytest so that each rule is one test: named, counted and skipped like any other.
"""

import os
import pathlib
import re
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SHOAL_BUILD", TOP / "build"))
SOURCE_DIRECTORIES = ("include", "lib", "pool", "tests", "bench", "examples")


def files(*patterns, under=SOURCE_DIRECTORIES):
    found = set()
    for directory in under:
        for pattern in patterns:
            found.update(path for path in (TOP / directory).rglob(pattern) if "__pycache__" not in path.parts)
    return sorted(found)


def c_files(*under):
    return files("*.c", "*.h", under=under or SOURCE_DIRECTORIES)


def python_files(*under):
    return files("*.py", under=under or SOURCE_DIRECTORIES)


def name_of(path):
    return str(path.relative_to(TOP))


def includes(path):
    """(line number, spelling) of each #include; the spelling keeps its quotes or angle brackets."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+([<"][^>"]+[>"])', line)
        if match:
            yield number, match[1]


def objects(*directories):
    """The object files that libtool made from sources under these directories (the main build's, with gcc)."""
    found = [path for directory in directories for path in (BUILD / directory).rglob("*.o")]
    assert found, f"no object files in {BUILD}: run ./run build"
    return sorted(found)


def run(*command, cwd=TOP, env=None):
    """Run a tool; its output is the failure message."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout[-20000:]}", pytrace=False)
    return done.stdout
