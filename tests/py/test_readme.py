# SPDX-License-Identifier: BSD-3-Clause
"""The Python examples of README.md run as they stand there, and print what their comments say."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def examples():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return [pytest.param(block, id=block.strip().splitlines()[-1][:40]) for block in blocks]


def said(block):
    """What the comments behind print(…) announce, one line each."""
    return re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)


@pytest.mark.parametrize("block", examples())
def test_example_runs_and_prints_what_it_says(block, fresh_python):
    if "numpy" in block:
        pytest.importorskip("numpy")
    assert fresh_python(block).stdout.splitlines() == said(block)


def test_there_is_an_example_for_each_interface():
    text = "".join(param.values[0] for param in examples())
    for interface in ("shoal.Pool", "shoal.ProcessPoolExecutor", "shoal.share", "shoal.dumps"):
        assert interface in text


def test_files_in_reading_order_exist():
    order = README.read_text().split("## Files in reading order")[1].split("\n## ")[0]
    named = re.findall(r"`([\w/.*-]+)`", order)
    assert len(named) > 10
    missing = [name for name in named if not list(README.parent.glob(name))]
    assert not missing
