# SPDX-License-Identifier: BSD-3-Clause
"""The end of a run: what tests/total prints of results made up here."""

import subprocess
import sys

import pytest

from tree import TOP

PASSED = '<testcase classname="tests.py.test_a" name="test_good"/>'
SKIPPED = '<testcase classname="tests.py.test_a" name="test_other"><skipped message="no"/></testcase>'


def failed(name, message="assert 1 == 2", text="def test():\n    assert 1 == 2\nE   assert 1 == 2", tag="failure"):
    return f'<testcase classname="tests.py.test_a" name="{name}"><{tag} message="{message}">{text}</{tag}></testcase>'


def write_part(results, name, *cases, status=0, log=None, trs=None, logs=()):
    results.mkdir(exist_ok=True)
    (results / f"{name}.status").write_text(f"{status}\n")
    if cases:
        (results / f"{name}.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    if log is not None:
        (results / f"{name}.log").write_text(log)
    if trs is not None:
        (results / f"{name}.trs").write_text(trs)
    for file, text in dict(logs).items():
        (results / f"{name}.logs").mkdir(exist_ok=True)
        (results / f"{name}.logs" / file).write_text(text)


def total(*arguments):
    """The lines that it prints."""
    command = [sys.executable, "tests/total", *map(str, arguments)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert done.returncode == (", 0 failed, " not in lines[-1])
    return lines


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def test_a_run_without_a_failure_is_one_line(results):
    write_part(results, "py-test_a", PASSED, SKIPPED)
    write_part(results, "c", trs=":test-result: PASS\n:test-result: SKIP\n", logs={"t.log": "ok 1 - x\n"})
    assert total(results) == ["2 passed, 0 failed, 2 skipped"]


def test_a_failed_python_test_is_named_with_its_traceback(results):
    write_part(results, "py-test_a", PASSED, failed("test_bad[x-1]"), status=1)
    lines = total(results)
    assert "py-test_a: tests/py/test_a.py::test_bad[x-1]" in lines
    assert "  E   assert 1 == 2" in lines
    assert lines[-1] == "1 passed, 1 failed, 0 skipped"


def test_a_failure_of_a_fixture_counts_and_is_named(results):
    write_part(results, "py-test_a", failed("test_bad", text="fixture &lt;x&gt; broke", tag="error"), status=1)
    lines = total(results)
    assert "  fixture <x> broke" in lines
    assert lines[-1] == "0 passed, 1 failed, 0 skipped"


def test_of_a_long_report_the_message_and_the_end_are_shown(results):
    text = "\n".join(f"line {number}" for number in range(500))
    write_part(results, "py-test_a", failed("test_bad", message="it was &lt;NULL&gt;", text=text), status=1)
    lines = total(results)
    assert "  it was <NULL>" in lines
    assert "  line 499" in lines and "  line 480" in lines and "  line 100" not in lines
    assert len(lines) < 40


def test_a_failed_c_test_is_named_with_what_it_said(results):
    log = "ok 1 - uring: good\n# uring: t.c:12: x == 1\nnot ok 2 - uring: bad\nok 3 - uring: fine\n1..3\n"
    trs = ":test-result: PASS\n:test-result: FAIL\n:test-result: PASS\n"
    write_part(results, "c", trs=trs, status=2, log="make: Error 1", logs={"test_ring.log": log})
    lines = total(results)
    assert "c: test_ring: not ok 2 - uring: bad" in lines
    assert "  # uring: t.c:12: x == 1" in lines
    assert not any("good" in line or "fine" in line for line in lines)
    assert lines[-1] == "2 passed, 1 failed, 0 skipped"


def test_of_a_file_that_died_the_end_of_its_output_is_shown(results):
    write_part(results, "py-test_a", status=139, log="\n".join(f"line {number}" for number in range(500)))
    lines = total(results)
    assert "py-test_a: ended with status 139 without naming a failed test" in lines
    assert "  line 499" in lines
    assert lines[-1] == "0 passed, 1 failed, 0 skipped"


def test_of_a_file_that_died_the_report_of_a_sanitizer_is_shown_from_its_start(results):
    after = "\n".join(f"shadow byte {number}" for number in range(500))
    log = f"...\n==12==ERROR: AddressSanitizer: heap-use-after-free\n#0 in decode\n{after}"
    write_part(results, "fuzz-search", status=1, log=log)
    lines = total(results)
    assert "  ==12==ERROR: AddressSanitizer: heap-use-after-free" in lines
    assert "  #0 in decode" in lines


def test_a_file_that_ran_nothing_is_a_failure_with_a_name(results):
    write_part(results, "py-test_a", log="nothing to see")
    lines = total(results)
    assert "py-test_a: no test ran" in lines
    assert lines[-1] == "0 passed, 1 failed, 0 skipped"


def test_a_report_that_was_cut_off_is_a_failure_with_a_name(results):
    write_part(results, "py-test_a", PASSED, status=137, log="killed")
    (results / "py-test_a.xml").write_text("<testsuites><testsuite>")
    lines = total(results)
    assert "py-test_a: ended with status 137 without naming a failed test" in lines
    assert lines[-1] == "0 passed, 1 failed, 0 skipped"


def test_stages_are_added_up_and_their_failures_named_by_stage(tmp_path):
    (tmp_path / "default").write_text("much\n10 passed, 0 failed, 1 skipped\n")
    (tmp_path / "python3.13").write_text("much\n9 passed, 1 failed, 2 skipped\n")
    write_part(tmp_path / "python3.13.results", "py-test_a", PASSED, failed("test_bad"), status=1)
    lines = total(tmp_path / "default", tmp_path / "python3.13")
    assert "python3.13: py-test_a: tests/py/test_a.py::test_bad" in lines
    assert lines[-1] == "19 passed, 1 failed, 3 skipped"


def test_a_stage_that_ended_without_a_sum_is_shown(tmp_path):
    (tmp_path / "sanitize").write_text("compiling\nx.c:1: error: no\n")
    lines = total(tmp_path / "sanitize")
    assert "sanitize: ended without a sum" in lines
    assert "  x.c:1: error: no" in lines
    assert lines[-1] == "0 passed, 1 failed, 0 skipped"


def test_however_much_failed_it_fits_on_a_page(results):
    text = "\n".join(f"line {number}" for number in range(200))
    for part in range(20):
        cases = [failed(f"test_{number}", message="m&#10;" * 50, text=text) for number in range(20)]
        write_part(results, f"py-test_{part:02}", *cases, status=1)
    lines = total(results)
    assert len(lines) < 150
    assert "py-test_00: tests/py/test_a.py::test_0" in lines
    assert lines[-1] == "0 passed, 400 failed, 0 skipped"


@pytest.mark.parametrize(
    ("text", "summed"),
    [
        ("import pytest\npytest.skip('not here', allow_module_level=True)\n", "0 passed, 0 failed, 1 skipped"),
        ("def helper(): pass\n", "0 passed, 1 failed, 0 skipped"),
    ],
)
def test_a_file_that_is_skipped_as_a_whole_is_no_failure_and_one_without_a_test_is(results, tmp_path, text, summed):
    results.mkdir()
    file = tmp_path / "test_made_up.py"
    file.write_text(text)
    command = ["tests/one-file", results, "", sys.executable, file]
    assert subprocess.run(command, cwd=TOP, stdout=subprocess.DEVNULL).returncode == 0
    assert total(results)[-1] == summed
