# SPDX-License-Identifier: BSD-3-Clause
"""pool.report(): what a real pool did is in its page, and whatever goes wrong leaves nothing behind."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import warnings

import pytest

import browser
import shoal
from tasks import TIMEOUT, fail_on_three, kill_self, square, works

pytestmark = pytest.mark.leakcheck


@pytest.fixture(autouse=True)
def nothing_left(tmp_path, monkeypatch):
    """No temporary file, no half page and no thread is left."""
    own = tmp_path / "temporary"
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    yield
    assert list(own.iterdir()) == []
    assert not [path for path in tmp_path.rglob("*.part*")]
    assert "shoal-memory" not in [thread.name for thread in threading.enumerate()]


def data_of(page):
    """The columns that the script of the page draws."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found[1])


def test_a_real_pools_tasks_are_in_the_page_and_drawn_by_a_browser(pool, tmp_path):
    page = tmp_path / "page.html"
    with pool.report(page):
        assert pool.map(square, range(40), 1) == [x * x for x in range(40)]
        assert pool.apply(divmod, (7, 2)) == (3, 1)
        with pytest.raises(ValueError, match="no 3"):
            pool.apply(fail_on_three, (3,))
        assert not page.exists()
    data = data_of(page)
    assert sum(data["tasks"]) == 42 and set(data["functions"]) == {"square", "divmod", "fail_on_three"}
    assert data["workers"] == [0, 1] and sorted(set(data["outcome"])) == ["done", "raised"]
    assert all(one >= 0 for name in ("start", "length", "run", "pickle", "unpickle") for one in data[name])
    text = page.read_text()
    assert "raised an exception" in text and str(os.getpid()) in text and shoal.__version__ in text
    if browser.find() is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    chromium = browser.Browser(tmp_path / "profile")
    try:
        chromium.open(page)
        assert chromium.value("document.getElementById('timeline').dataset.drawn") == "42"
        assert not chromium.logged
    finally:
        chromium.close()


def test_elements_of_chunks_are_counted(pool, tmp_path):
    with pool.report(tmp_path / "page.html"):
        pool.map(square, range(1000), 100)
    assert sum(data_of(tmp_path / "page.html")["elements"]) == 1000


def test_an_executor_has_it_too_also_before_its_first_call(executor, tmp_path):
    with executor.report(tmp_path / "page.html"):
        assert executor.submit(square, 4).result() == 16
    assert data_of(tmp_path / "page.html")["functions"] == ["square"]


def test_it_can_be_begun_and_ended_by_hand_and_again(pool, tmp_path):
    report = pool.report(str(tmp_path / "page.html"))
    for times in (1, 2):
        report.start()
        with pytest.raises(RuntimeError, match="under way already"):
            report.start()
        pool.map(square, range(times), 1)
        report.stop()
        assert len(data_of(tmp_path / "page.html")["start"]) == times
    with pytest.raises(RuntimeError, match="not under way"):
        report.stop()


def test_what_was_not_recorded_is_not_in_it(pool, tmp_path):
    pool.apply(divmod, (7, 2))
    with pool.report(tmp_path / "page.html"):
        pass
    pool.apply(divmod, (7, 2))
    assert data_of(tmp_path / "page.html")["start"] == []


def test_workers_that_die_and_come_are_told_and_no_fork_is_warned_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with shoal.Pool(1) as pool:
            with pool.report(tmp_path / "page.html"):
                for _ in range(2):
                    with pytest.raises(shoal.WorkerLost):
                        pool.apply(kill_self)
                    assert pool.apply(square, (2,)) == 4
    text = (tmp_path / "page.html").read_text()
    assert "Worker 0 was replaced" in text and "its worker died" in text
    assert data_of(tmp_path / "page.html")["outcome"].count("lost") == 2


def test_an_error_of_the_program_does_not_cost_the_page(pool, tmp_path):
    with pytest.raises(KeyError, match="mine"):
        with pool.report(tmp_path / "page.html"):
            pool.apply(square, (2,))
            raise KeyError("mine")
    assert len(data_of(tmp_path / "page.html")["start"]) == 1


def test_a_place_that_cannot_be_written_is_told_at_the_beginning(pool, tmp_path):
    for path in (tmp_path / "missing" / "page.html", tmp_path):
        with pytest.raises(OSError):
            with pool.report(path):
                pytest.fail("it has begun")
    assert works(pool)


def test_a_disk_that_is_full_leaves_the_page_that_was_there(pool, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("the old one")

    def no_space(path, *arguments, **keywords):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pathlib.Path, "write_text", no_space)
    with pytest.raises(OSError, match="No space left"):
        with pool.report(page):
            pool.apply(square, (2,))
    with pytest.raises(KeyError):  # which says more
        with pool.report(page):
            raise KeyError
    monkeypatch.undo()
    assert page.read_text() == "the old one"
    assert works(pool)


def test_a_pool_that_ends_meanwhile_is_no_harm(tmp_path):
    with shoal.Pool(1) as pool:
        report = pool.report(tmp_path / "page.html").start()
        pool.apply(square, (2,))
    report.stop()
    assert "ShoalPool" in (tmp_path / "page.html").read_text()


# ---- of a trace ----


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "shoal", "report", *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT
    )


def test_a_trace_can_be_made_a_page_later(pool, tmp_path):
    with pool.trace(tmp_path / "run.json"):
        pool.map(square, range(20), 1)
    done = command(tmp_path / "run.json")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{tmp_path / 'run.html'}\n")
    assert sum(data_of(tmp_path / "run.html")["tasks"]) == 20
    assert command(tmp_path / "run.json", tmp_path / "other.html").returncode == 0
    assert (tmp_path / "other.html").read_text() == (tmp_path / "run.html").read_text()


@pytest.mark.parametrize("text", [None, "", "{", "[1, 2]", '{"traceEvents": 3}', '{"traceEvents": [[3]]}', "\xff\x00"])
def test_what_is_no_trace_is_said_to_be_none(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
    done = command(tmp_path / "run.json")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"python -m shoal report: {tmp_path / 'run.json'}: ")
    assert not (tmp_path / "run.html").exists()
