# SPDX-License-Identifier: BSD-3-Clause
"""What the package tests share: a copy of the source tree as a clone has it, and running a tool."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SHOAL_BUILD", TOP / "build"))


def run(*command, cwd=TOP, env=None, only=False, fails=False):
    """Run a tool and return what it says; with `only` nothing but `env` is in its environment."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**({} if only else os.environ), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    if (done.returncode != 0) is not fails:
        pytest.fail(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout[-20000:]}", pytrace=False)
    return done.stdout


def copy_of_the_tree(directory):
    """The files that are, or are to be, under version control."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in listed:
        if name and (TOP / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, directory / name)
    return directory


def pip(*words, **options):
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *words, **options)
