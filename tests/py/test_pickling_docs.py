# SPDX-License-Identifier: BSD-3-Clause
"""The snippets of docs/pickling.md do what stands beside them, each in a process of its own.

A Python snippet may go on from those before it in its section. It prints what its comments say, or what the block right
behind it shows; sizes differ with the version of Python, so numbers are compared by their places only.
"""

import pathlib
import pickle
import re
import shlex
import subprocess
import sys

import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "pickling.md"
ERROR = re.compile(r"\w*Error: ")
BLOCK = re.compile(r"^```(python)?\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def snippets():
    """(The source with what came before it in its section, the source alone, the block behind it or "")."""
    for section in re.split(r"^## ", DOCS.read_text(), flags=re.MULTILINE):
        before = ""
        for language, source, shown in BLOCK.findall(section):
            if language:
                yield pytest.param(before, source, shown, id=f"{section.splitlines()[0]}: {source.splitlines()[-1]}")
                before += "" if ERROR.match(shown) else source


def numberless(text):
    lines = (re.sub(r"\d[\d,.]*|\b[KM]?B\b", "0", line) for line in text.splitlines())
    return [re.sub(r" +", " ", line).strip() for line in lines]


def run(directory, source):
    (directory / "train.py").write_text(source)
    command = [sys.executable, "train.py"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("before", "source", "shown"), list(snippets()))
def test_a_snippet_does_what_stands_beside_it(before, source, shown, tmp_path):
    if "numpy" in before + source:
        pytest.importorskip("numpy")
    done = run(tmp_path, before + source)
    if ERROR.match(shown):
        if "while making" in shown and sys.version_info < (3, 11):
            shown = shown.splitlines()[0]
        assert done.returncode == 1
        assert numberless(done.stderr)[-len(shown.splitlines()) :] == numberless(shown)
        return
    assert done.returncode == 0, done.stderr
    wanted = shown or "\n".join(re.findall(r"print\(.*\)  # (.*)$", source, re.MULTILINE))
    if wanted:
        lines = numberless(wanted)
        assert numberless(done.stdout)[-len(lines) :] == lines


def commands():
    return re.findall(r"^\$ python (-m shoal .*?) *(?:# .*)?$", DOCS.read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_a_command_runs(command, tmp_path):
    (tmp_path / "mymodule.py").write_text("def train():\n    return 1\n")
    (tmp_path / "result.pickle").write_bytes(pickle.dumps({"a": [1, 2]}))
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stdout


def test_there_is_something_of_each():
    assert len(list(snippets())) >= 6
    assert len(commands()) >= 2


def test_tests_that_it_names_are_there():
    named = re.findall(r"`(tests/[\w/.*]+)`", DOCS.read_text())
    assert named
    assert not [name for name in named if not list(DOCS.parents[1].glob(name))]
