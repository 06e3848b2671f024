# SPDX-License-Identifier: BSD-3-Clause
"""Name each failed test of a run, with the end of its report, so that the last page of a long log tells what failed.

Some see no more of a run than that page. So all of it fits there: the names first, then as much of each report as there
is room for. A results directory holds, for each part, what tests/total says, and NAME.log (its output) or NAME.logs/
(automake: one log per CUnit program, with TAP in it).
"""

import collections
import re
import xml.etree.ElementTree as ElementTree

NAMES = 40  # lines
REPORTS = 100  # lines, for all failures together
REPORT = 30  # lines, for one
SHORTEST = 8  # lines; what does not get that many is not shown
COLUMNS = 200

# A report is lines of which the first tell most, and lines of which the last do. The head repeats what is in the tail.
Failure = collections.namedtuple("Failure", "name head tail")

# Where the reports of sanitizers, of libFuzzer and of Python's faulthandler begin.
ALARM = re.compile(r"ERROR: \w+|runtime error: |WARNING: ThreadSanitizer|Fatal Python error|Timeout \(\d|: \*\*\* \[")


def testcases(path):
    """Those of a JUnit report; none if there is no report or its writer was killed."""
    try:
        return list(ElementTree.parse(path).iter("testcase"))
    except (FileNotFoundError, ElementTree.ParseError):
        return []


def from_junit(path):
    """One for each failed test, in pytest's own spelling; what its subtests say is put together."""
    for case in testcases(path):
        bad = [child for child in case if child.tag in ("failure", "error")]
        if bad:
            place = case.get("classname", "").replace(".", "/")
            messages = "\n".join(child.get("message") or "" for child in bad)
            texts = "\n".join(child.text or "" for child in bad)
            yield Failure(f"{place}.py::{case.get('name')}", messages.splitlines(), texts.splitlines())


def from_tap(path):
    """What a C program printed before each of its tests that failed."""
    before = []
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("not ok"):
            yield Failure(f"{path.stem}: {line}", [], before)
            before = []
        elif line.startswith("ok "):
            before = []
        else:
            before = [*before, line]


def from_log(name, path):
    """The end of an output, and before it what a sanitizer or a watchdog says there."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    lines = [line for line in lines if line.strip()]
    start = next((number for number, line in enumerate(lines) if ALARM.search(line)), len(lines))
    return Failure(name, lines[start : start + REPORT], lines[-REPORT:] if start == len(lines) else [])


def of_part(status_file):
    junit, trs, log = (status_file.with_suffix(suffix) for suffix in (".xml", ".trs", ".log"))
    status = status_file.read_text().strip()
    found = list(from_junit(junit))
    for program in sorted(status_file.with_suffix(".logs").glob("*.log")):
        found += from_tap(program)
    if not found and status != "0":
        found.append(from_log(f"ended with status {status} without naming a failed test", log))
    if not found and not testcases(junit) and not (trs.exists() and ":test-result:" in trs.read_text()):
        found.append(from_log("no test ran", log))
    return [failure._replace(name=f"{status_file.stem}: {failure.name}") for failure in found]


def of_directory(results):
    return [failure for status_file in sorted(results.glob("*.status")) for failure in of_part(status_file)]


def of_output(path, has_sum):
    """The failures of a run whose output this is, from the results that it left beside it."""
    results = path.with_name(path.name + ".results")
    found = of_directory(results) if results.is_dir() else []
    if not has_sum:
        found.append(from_log("ended without a sum", path))
    return [failure._replace(name=f"{path.name}: {failure.name}") for failure in found]


def show(failures):
    if not failures:
        return
    print(f"\n==== failed: {len(failures)}")
    for failure in failures[:NAMES]:
        print(cut(failure.name))
    if len(failures) > NAMES:
        print(f"and {len(failures) - NAMES} more")
    room = min(REPORT, max(SHORTEST, REPORTS // len(failures)))
    for failure in failures[: REPORTS // room]:
        print(cut(f"---- {failure.name}"))
        for line in excerpt(failure, room - 1):
            print(cut(f"  {line}"))
    print()


def excerpt(failure, room):
    tail = failure.tail[-room:]
    if len(tail) == len(failure.tail) > 0:
        return tail
    head = failure.head[: room - min(len(tail), room // 2)]
    return head + tail[len(head) + len(tail) - room :] if tail else head


def cut(line):
    return line if len(line) <= COLUMNS else line[: COLUMNS - 3] + "..."
