# SPDX-License-Identifier: BSD-3-Clause
"""The frame of the benchmarks: its turns, its arithmetic, what it does with rows that break."""

import atexit
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import as_pyperf  # noqa: E402
import frame  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402
import side  # noqa: E402


def fake_row(theirs=True, **fields):
    return frame.Row("fake", ours=frame.no_set_up, theirs=frame.no_set_up if theirs else None, **fields)


class FakeSides:
    """Sides that give canned samples and note what happens in which order."""

    def __init__(self, seconds, cpu_seconds=1.0, operations=1):
        self.log = []
        self.samples = {
            name: iter([frame.Sample(each, cpu_seconds, operations) for each in given])
            for name, given in seconds.items()
        }

    @contextlib.contextmanager
    def open(self, row, name, round_seconds):
        self.log.append(f"open {name}")
        try:
            yield FakeSide(self, name)
        finally:
            self.log.append(f"close {name}")


class FakeSide:
    def __init__(self, sides, name):
        self.sides, self.name = sides, name

    def prepare(self):
        self.sides.log.append(f"prepare {self.name}")

    def run_round(self):
        self.sides.log.append(self.name)
        return next(self.sides.samples[self.name])


# ---- Turns and arithmetic


def test_sides_take_turns_round_by_round():
    sides = FakeSides({"ours": [1, 1, 1], "theirs": [2, 2, 2]})
    frame.measure(fake_row(), 3, 0.1, sides.open)
    assert sides.log == [
        "open ours", "open theirs", "prepare ours", "prepare theirs",
        "ours", "theirs", "ours", "theirs", "ours", "theirs",
        "close theirs", "close ours",
    ]  # fmt: skip


def test_ratio_is_taken_within_each_pair_of_rounds():
    sides = FakeSides({"ours": [1.0, 2.0, 4.0], "theirs": [10.0, 6.0, 4.0]})
    result = frame.measure(fake_row(), 3, 0.1, sides.open)
    assert result.ratios() == [10.0, 3.0, 1.0]
    assert result.as_dict()["ratio"] == {"median": 3.0, "min": 1.0, "max": 10.0, "of_means": 20 / 7}


def test_mean_shows_the_rare_slow_round_that_the_median_hides():
    sides = FakeSides({"ours": [1.0, 1.0, 10.0], "theirs": [20.0, 20.0, 20.0]})
    result = frame.measure(fake_row(), 3, 0.1, sides.open)
    assert result.as_dict()["ours"]["median_seconds"] == 1.0
    assert result.as_dict()["ours"]["mean_seconds"] == 4.0
    assert result.ratio_of_means() == 5.0


def test_cpu_time_is_per_operation_over_all_rounds():
    sides = FakeSides({"ours": [1.0, 1.0], "theirs": [1.0, 1.0]}, cpu_seconds=3.0, operations=4)
    result = frame.measure(fake_row(), 2, 0.1, sides.open)
    assert result.cpu_per_operation("ours") == 6.0 / 8


def test_rounds_are_divided_among_the_processes_of_a_row():
    sides = FakeSides({"ours": [1, 1, 1], "theirs": [2, 2, 2]})
    result = frame.measure(fake_row(processes=2), 3, 0.1, sides.open)
    assert sides.log.count("open ours") == sides.log.count("close ours") == 2
    assert [sample.process for sample in result.samples["ours"]] == [0, 1, 1]


def test_goal_is_compared_with_the_median_of_the_ratios():
    def measured(goal):
        sides = FakeSides({"ours": [1.0, 1.0, 1.0], "theirs": [1.0, 2.0, 9.0]})
        return frame.measure(fake_row(goal=goal, family="all"), 3, 0.1, sides.open)

    reached, missed, unrated = measured(2.0), measured(2.1), measured(None)
    assert [each.reaches_goal() for each in (reached, missed, unrated)] == [True, False, None]
    assert " 2 x  " in report.line(reached) and " 2.1 x <" in report.line(missed)
    assert report.verdict([reached, missed, unrated]) == [
        "1 of 2 rows reach their goal",
        "  missed: fake, 2.00 x of 2.1 x",
    ]
    assert report.means([reached, missed], {"all": 1.5, "none": 1.0}) == [
        "all: geometric mean of 2 rows 2.00 x, goal 1.5 x, reached"
    ]


def test_limit_is_compared_with_the_mean_of_ours():
    def measured(limit):
        sides = FakeSides({"ours": [1.0, 1.0, 4.0]})
        return frame.measure(fake_row(theirs=False, limit=limit), 3, 0.1, sides.open)

    kept, broken, unlimited = measured(2.0), measured(1.9), measured(None)
    assert [each.keeps_limit() for each in (kept, broken, unlimited)] == [True, False, None]
    assert report.verdict([kept, broken, unlimited]) == [
        "1 of 2 rows keep under their limit",
        "  over: fake, mean 2,000,000 of at most 1,900,000 us",
    ]


def test_single_calls_are_shown_where_they_were_timed():
    result = frame.Result(fake_row(theirs=False), {"ours": [frame.Sample(3e-6, 0.0, 1, p50=1e-6, p99=9e-6)] * 3})
    assert result.of_single_calls("ours") == (1e-6, 9e-6)
    assert report.line(result).splitlines()[1].split(": ")[1] == "ours p50 1.00, p99 9.00 us"


def test_each_call_of_a_timed_round_has_its_own_time():
    seen = []
    span = frame.each_timed(seen.append, "x")(200)
    assert seen == ["x"] * 200 and len(span.latencies) == 200
    measured = side.run_round(fake_row(), frame.each_timed(seen.append, "x"), 200)
    assert 0 < measured["p50"] <= measured["p99"] and measured["cpu_seconds"] > 0


def test_busy_processes_run_until_the_row_has_ended():
    before = set(machine.descendants(os.getpid()))
    with machine.busy_processes(2):
        assert len(set(machine.descendants(os.getpid())) - before) == 2
    assert set(machine.descendants(os.getpid())) <= before


def test_round_may_say_which_part_of_it_counts():
    def run(count):
        span = frame.Span()
        for _ in range(count):
            with span:
                pass
        return dataclasses.replace(span, seconds=0.25 * count, cpu_seconds=0.5 * count)

    assert side.run_round(fake_row(), run, 4) == {"seconds": 0.25, "cpu_seconds": 2.0, "operations": 4}


def test_a_part_of_a_round_counts_the_time_of_its_workers_if_it_is_told_of_them():
    waits = "input()\n" + BURN
    child = subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        alone, whole = frame.Span(), frame.Span(tree=[child.pid])
        with whole, alone:
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"done\n"
        child.communicate(b"\n")
    assert whole.cpu_seconds - alone.cpu_seconds >= 0.1  # less the time of its start


def test_arguments_are_made_anew_for_each_call_and_outside_of_the_time():
    made, seen = iter(range(10)), []
    span = frame.each_new(made.__next__, seen.append, at_once=2)(5)
    assert seen == [0, 1, 2, 3, 4]
    assert isinstance(span, frame.Span) and span.seconds > 0


def test_figures_can_be_read_by_pyperf(tmp_path):
    pyperf = pytest.importorskip("pyperf")
    sides = FakeSides({"ours": [1.0, 2.0, 3.0], "theirs": [2.0, 2.0, 2.0]}, operations=6)
    as_pyperf.write(tmp_path, [frame.measure(fake_row(processes=3, operations=2), 3, 0.1, sides.open)])
    (ours,) = pyperf.BenchmarkSuite.load(str(tmp_path / "ours.json")).get_benchmarks()
    assert (ours.get_name(), ours.get_nrun(), ours.get_values(), ours.get_loops()) == ("fake", 3, (1.0, 2.0, 3.0), 3)


def test_row_without_peer_is_shown_alone():
    sides = FakeSides({"ours": [1e-6, 3e-6]})
    result = frame.measure(fake_row(theirs=False), 2, 0.1, sides.open)
    assert "theirs" not in result.as_dict() and "ratio" not in result.as_dict()
    assert report.line(result).split()[:4] == ["fake", "us", "2.00", "2.00"]


def test_line_shows_both_sides_in_the_unit_of_the_row():
    sides = FakeSides({"ours": [2e-3, 2e-3], "theirs": [10e-3, 30e-3]}, cpu_seconds=4e-3)
    words = report.line(frame.measure(fake_row(unit="ms"), 2, 0.1, sides.open)).split()
    assert words[:8] == ["fake", "ms", "2.00", "2.00", "4.00", "20.0", "20.0", "4.00"]
    assert words[8:13] == ["10.0", "x", "5.00..15.0", "10.0", "x"]


def test_long_name_has_a_line_of_its_own_and_keeps_the_columns():
    sides = FakeSides({"ours": [1e-6]})
    result = frame.measure(fake_row(theirs=False), 1, 0.1, sides.open)
    short = report.line(result)
    result.row = frame.Row("native/a-name-that-is-longer-than-its-column", ours=frame.no_set_up)
    name, figures = report.line(result).split("\n")
    assert name == result.row.name
    assert figures.index("us") == short.index("us")


class FakeClock:
    def __init__(self, monkeypatch, seconds_per_call):
        self.now, self.seconds_per_call, self.calls = 0.0, seconds_per_call, []
        monkeypatch.setattr(frame.time, "perf_counter", lambda: self.now)

    def run(self, count):
        self.calls.append(count)
        self.now += count * self.seconds_per_call


@pytest.mark.parametrize("seconds_per_call", [1e-6, 3e-5, 1e-3, 0.02])
def test_calls_of_a_round_fill_its_time(monkeypatch, seconds_per_call):
    clock = FakeClock(monkeypatch, seconds_per_call)
    calls = frame.calls_per_round(fake_row(), 0.1, clock.run)
    assert 0.09 <= calls * seconds_per_call <= 0.41
    assert calls in (clock.calls[-1], round(clock.calls[-1] * 0.1 / (clock.calls[-1] * seconds_per_call)))


def test_round_has_at_least_the_calls_of_the_row(monkeypatch):
    clock = FakeClock(monkeypatch, 1.0)
    assert frame.calls_per_round(fake_row(calls=7), 0.1, clock.run) == 7


def test_each_calls_exactly_as_often_as_told():
    seen = []
    frame.each(seen.append, "x")(5)
    assert seen == ["x"] * 5


# ---- Rows that break


def test_skipped_row_says_why():
    @contextlib.contextmanager
    def refuse(row, name, round_seconds):
        raise frame.SkipRow("needs a unicorn")
        yield

    result = frame.measure(fake_row(), 1, 0.1, refuse)
    assert result.as_dict() == {"name": "fake", "peer": "", "skipped": "needs a unicorn"}
    assert report.line(result).endswith("skipped: needs a unicorn")


def test_failing_round_fails_its_row_only_and_closes_both_sides():
    sides = FakeSides({"ours": [1.0], "theirs": []})
    result = frame.measure(fake_row(), 1, 0.1, sides.open)
    assert "StopIteration" in result.failed
    assert sides.log[-2:] == ["close theirs", "close ours"]
    assert "FAILED" in report.line(result)


def side_process(code):
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_side_that_dies_is_reported_with_its_status():
    with side_process("import os; os.kill(os.getpid(), 9)") as process, pytest.raises(ChildProcessError, match="-9"):
        side.SideProcess("ours", process).prepare()


def test_side_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(side, "PATIENCE_SECONDS", 0.01)
    with side_process("input(); input()") as process:
        with pytest.raises(TimeoutError, match="ours: no answer"):
            side.SideProcess("ours", process).prepare()
        process.kill()


def test_side_that_is_interrupted_leaves_no_process():
    row = rows.all_rows().rows["dumps/lambda"]
    with pytest.raises(KeyboardInterrupt), side.open_side(row, "theirs", 0.001) as opened:
        raise KeyboardInterrupt
    assert opened.process.returncode == -9
    assert opened.process.pid not in machine.descendants(os.getpid())


def test_side_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr(side, "PATIENCE_SECONDS", 0.01)
    forked = side.Fork(signal.pause)
    with pytest.raises(TimeoutError, match="ours did not end"), side.driving("ours", forked):
        pass
    assert forked.returncode == -9


def test_forked_side_ends_as_a_program_does():
    """What modules do when the threads are to end comes before the exit functions, which may wait for it."""

    def work():
        ended = threading.Event()
        threading._register_atexit(ended.set)
        atexit.register(ended.wait)

    assert side.Fork(work).wait() == 0


def test_error_of_a_side_arrives():
    with side_process("""print('{"failed": "ours: ValueError: no"}')""") as process:
        with pytest.raises(RuntimeError, match="ours: ValueError: no"):
            side.SideProcess("ours", process).prepare()


def test_side_that_refuses_skips_the_row():
    with side_process("""print('{"skipped": "needs numpy"}')""") as process:
        with pytest.raises(frame.SkipRow, match="needs numpy"):
            side.SideProcess("ours", process).prepare()


# ---- Choosing rows


def test_name_chooses_the_row_and_those_under_it():
    registry = frame.Registry()
    for name in ("echo/1", "echo/64", "echoes", "map"):
        registry.add(name, ours=frame.no_set_up)
    assert [row.name for row in registry.choose(["echo"])] == ["echo/1", "echo/64"]
    assert [row.name for row in registry.choose(["map", "echo/1"])] == ["echo/1", "map"]
    assert len(registry.choose([])) == 4
    with pytest.raises(SystemExit, match="no row is called ech;"):
        registry.choose(["ech"])


def test_group_chooses_its_rows():
    registry = frame.Registry()
    for name, group in (("echo/1", "pool"), ("dumps/1", "pickle"), ("dumps/2", "pickle")):
        registry.add(name, ours=frame.no_set_up, group=group)
    assert [row.name for row in registry.choose([], "pickle")] == ["dumps/1", "dumps/2"]
    assert [row.name for row in registry.choose(["dumps/2"], "pickle")] == ["dumps/2"]
    with pytest.raises(SystemExit, match="no group is called pickles, but pickle, pool"):
        registry.choose([], "pickles")


def test_every_row_belongs_to_a_group():
    assert {row.group for row in rows.all_rows().rows.values()} == {"pool", "pickle", "native"}


def test_two_rows_of_one_name_are_refused():
    registry = frame.Registry()
    registry.add("echo", ours=frame.no_set_up)
    with pytest.raises(ValueError, match="two rows are called echo"):
        registry.add("echo", ours=frame.no_set_up)


def test_list_names_every_row(capsys):
    assert run.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(rows.all_rows().rows)


# ---- Programs of their own


def program(tmp_path, body):
    path = tmp_path / "ring"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return frame.Program("native/ring", lambda name: tmp_path / name)


def test_program_gives_a_row_for_each_line_that_it_prints(tmp_path):
    body = 'echo "# a remark"; echo "row=ring_push ns=12.5"; echo "row=pop ns=8 extra=1"'
    results = frame.measure_program(program(tmp_path, body), 3)
    assert [result.row.name for result in results] == ["native/ring/push", "native/ring/pop"]
    assert results[0].seconds("ours") == pytest.approx([12.5e-9] * 3)
    assert report.line(results[1]).split()[:4] == ["native/ring/pop", "ns", "8.00", "8.00"]
    json.dumps([result.as_dict() for result in results], allow_nan=False)


@pytest.mark.parametrize(
    ("body", "reason"),
    [("echo broken >&2; exit 3", "status 3: broken"), ("true", "printed no row"), ("echo row=a", "KeyError")],
)
def test_program_that_breaks_fails_its_row(tmp_path, body, reason):
    (result,) = frame.measure_program(program(tmp_path, body), 1)
    assert reason in result.failed


def test_program_that_is_not_built_is_skipped(tmp_path, monkeypatch):
    import rows_native

    monkeypatch.setenv("SHOAL_BENCH_PROGRAMS", str(tmp_path))
    (result,) = frame.measure_program(frame.Program("native/ring", rows_native.find), 1)
    assert "make bench-programs" in result.skipped


def test_programs_are_found_where_the_environment_says(tmp_path, monkeypatch):
    import rows_native

    program(tmp_path, "true")
    monkeypatch.setenv("SHOAL_BENCH_PROGRAMS", str(tmp_path))
    assert rows_native.find("ring") == tmp_path / "ring"


# ---- The machine

BURN = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ninput()"


def test_cpu_time_of_the_tree_counts_children_that_live_and_that_have_ended():
    before = machine.tree_cpu_seconds([])
    child = subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout.readline() == b"done\n"
        tree = machine.descendants(os.getpid())
        assert child.pid in tree
        assert machine.tree_cpu_seconds(tree) - before >= 0.2
        child.communicate(b"\n")
    assert machine.tree_cpu_seconds([]) - before >= 0.2


def test_foreign_share_is_what_was_busy_without_us(monkeypatch):
    def give(name, *values):
        given = iter(values)
        monkeypatch.setattr(machine, name, lambda *_: next(given))

    give("busy_cpu_seconds", 100.0, 103.0)
    give("tree_cpu_seconds", 1.0, 3.0)
    monkeypatch.setattr(machine.time, "monotonic", iter([10.0, 11.0]).__next__)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    assert machine.ForeignShare().measure() == (3.0 - 2.0) / (1.0 * 4)


PLACED = """
import multiprocessing, os, sys
sys.path.insert(0, sys.argv[1])
import machine
with multiprocessing.get_context("fork").Pool(2) as pool:
    machine.place(sys.argv[2])
    parent = os.sched_getaffinity(0)
    workers = [os.sched_getaffinity(worker.pid) for worker in pool._pool]
    threads = [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
    print([parent, workers, threads])
"""


def affinities(placement):
    command = [sys.executable, "-c", PLACED, str(BENCH), placement]
    return eval(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_free_placement_pins_nobody():
    parent, workers, _ = affinities("free")
    assert parent == os.sched_getaffinity(0)
    assert workers == [parent, parent]


def test_one_core_takes_all_processes_and_threads():
    parent, workers, threads = affinities("one core")
    assert len(parent) == 1
    assert all(cpus == parent for cpus in workers + threads)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_two_cores_part_the_parent_from_the_workers():
    parent, workers, threads = affinities("two cores")
    assert len(parent) == 1 and all(cpus == parent for cpus in threads)
    assert all(len(cpus) == 1 and cpus != parent for cpus in workers)


def test_quiet_machine_is_awaited_only_so_long():
    assert 0.0 <= machine.wait_until_quiet(limit=-1.0, patience_seconds=0.0, look_seconds=0.01) <= 1.0
