# SPDX-License-Identifier: BSD-3-Clause
"""The Python snippets of README.md and of every page under docs/ do what stands beside them.

A snippet that begins with an import is a program of its own; any other goes on from those before it in its section. It
is run as a script and prints what the comments behind its print(…) say, or what the block right behind it shows: there
sizes and times differ, so numbers are compared by their places only. A block that shows an exception is how it ends.
What is a part of a program only is marked `py` and not run.
"""

import ast
import importlib.util
import pathlib
import pickle
import re
import shlex
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt|Lost|Broken|Terminated): ")
SAID = re.compile(r"print\(.*\)  # (.*)$", re.MULTILINE)


def numberless(text):
    line = re.sub(r"\d[\d,.]*|\b[KM]?B\b", "0", text)
    return re.sub(r" +", " ", line).strip()


class Line(str):
    """A line that is shown in a block. It equals any that differs in its numbers alone."""

    def __eq__(self, other):
        return numberless(self) == numberless(other)

    __hash__ = None


def printed(source, shown):
    if not shown:
        return SAID.findall(source)
    return [] if ERROR.match(shown) else [Line(line) for line in shown.splitlines()]


def snippets():
    """(The whole program, what it prints, the exception it ends with or "")."""
    for page in PAGES:
        for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
            before, lines = "", []
            for language, source, shown in BLOCK.findall(section):
                if language != "python":
                    continue
                if re.match(r"import |from ", source):
                    before, lines = "", []
                error = shown if ERROR.match(shown) else ""
                label = f"{page.stem}: {section.splitlines()[0]}: {source.splitlines()[-1].strip()}"
                yield pytest.param(before + source, lines + printed(source, shown), error, id=label[:100])
                if not error:
                    before, lines = before + source, lines + printed(source, shown)


def skip_without_its_packages(source):
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) else []
        for package in {module.partition(".")[0] for module in modules}:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize(("source", "lines", "error"), list(snippets()))
def test_a_snippet_does_what_stands_beside_it(source, lines, error, tmp_path):
    skip_without_its_packages(source)
    (tmp_path / "train.py").write_text(source)
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if error:
        if "while making" in error and sys.version_info < (3, 11):  # a note, which exceptions have had since
            error = error.splitlines()[0]
        end = [Line(line) for line in error.splitlines()]
        assert (done.returncode, done.stderr.splitlines()[-len(end) :]) == (1, end)
    else:
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == lines


def commands():
    for page in PAGES:
        yield from re.findall(r"^\$ python (-m shoal .*?) *(?:# .*)?$", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_runs(command, tmp_path):
    (tmp_path / "mymodule.py").write_text("def train():\n    return 1\n")
    (tmp_path / "result.pickle").write_bytes(pickle.dumps({"a": [1, 2]}))
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "explain" not in command or "100%" in done.stdout


def test_there_is_something_of_each():
    sources = [snippet.values[0] for snippet in snippets()]
    assert any(snippet.values[2] for snippet in snippets())
    assert len(list(commands())) >= 2
    for interface in ("shoal.Pool", "shoal.ProcessPoolExecutor", "shoal.share", "shoal.dumps", "shoal.explain"):
        assert any(interface in source for source in sources)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_are_there(page):
    named = re.findall(r"`((?:tests|docs|pool|lib|include|examples|bench)/[\w/.*-]+)`", page.read_text())
    assert not [name for name in named if not list(TOP.glob(name))]


def test_the_readme_says_in_which_order_to_read():
    order = (TOP / "README.md").read_text().split("## Files in reading order")[1].split("\n## ")[0]
    assert len(re.findall(r"`([\w/.*-]+)`", order)) > 10
