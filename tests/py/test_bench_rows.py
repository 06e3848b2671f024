# SPDX-License-Identifier: BSD-3-Clause
"""Every row of the benchmarks, once and quickly: it works on both sides, and compares what it says."""

import json
import pathlib
import pickle
import subprocess
import sys

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import frame  # noqa: E402
import picklers  # noqa: E402
import rows  # noqa: E402
import rows_by_value  # noqa: E402


@pytest.mark.parametrize("codec", [picklers.shoal_codec, picklers.cloudpickle_codec])
@pytest.mark.parametrize("name", list(rows_by_value.BY_VALUE))
def test_functions_and_classes_really_travel_by_value_on_both_sides(codec, name):
    """A process that has none of our modules can load them with plain pickle."""
    if codec is picklers.cloudpickle_codec:
        pytest.importorskip("cloudpickle")
    value = rows_by_value.by_value(name)
    stream = codec().dumps(value, 5)
    assert pickle.loads(stream) is not None
    named = "pickle.load(sys.stdin.buffer)" if hasattr(value, "__name__") else "type(pickle.load(sys.stdin.buffer))"
    load = f"import pickle, sys; print({named}.__name__)"
    done = subprocess.run([sys.executable, "-c", load], input=stream, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == getattr(value, "__name__", type(value).__name__)


def test_fresh_functions_are_new_to_every_cache_down_to_their_inner_code():
    def codes(code):
        inner = [codes(constant) for constant in code.co_consts if isinstance(constant, type(code))]
        return [code, *(code for found in inner for code in found)]

    make = rows_by_value.Maker(rows_by_value.by_value("loops"))
    first, second = make(), make()
    assert rows_by_value.BY_VALUE["loops"][1](first)
    seen = codes(first.__code__) + codes(second.__code__) + codes(rows_by_value.by_value("loops").__code__)
    assert len(set(seen)) == len(seen) >= 3


# The same code as the smaller ones, with much more memory or time.
TOO_LARGE = (
    "echo/64-MiB",
    "echo/256-MiB",
    "plus-one/64-MiB",
    "plus-one/256-MiB",
    "plus-one-floor/64-MiB",
    "plus-one-floor/256-MiB",
    "in-place/64-MiB",
    "from-arena/64-MiB",
    "from-arena/1-GiB",
    "table/multiprocessing",
    "workers/32",
    "workers/64",
    *(f"end/{event}-gone/busy-8" for event in ("ctrl-c", "sigterm", "parent-killed")),
    *(f"end/{event}/idle-8" for event in ("ctrl-c-caught", "ctrl-c-gone", "sigterm-gone", "parent-killed-gone")),
    "map-behind-computing/2-busy",
    "apply/free-2-busy",
    "submit/free-2-busy",
    "arrays/1x1-GiB",
    "arrays/16x64-MiB",
    "arrays/1024x1-MiB",
    "arrays/16384x64-KiB",
)


ROWS = [name for name in rows.all_rows().rows if name not in TOO_LARGE]


@pytest.fixture(scope="module")
def measured(request, tmp_path_factory):
    """What each row gave that is asked for here, in two runs at once."""
    asking = [item for item in request.session.items if item.function is test_row_can_be_measured]
    wanted = [item.callspec.params["row"] for item in asking]
    directory = tmp_path_factory.mktemp("figures")
    halves = [half for half in (wanted[::2], wanted[1::2]) if half]
    files = [directory / f"{number}.json" for number in range(len(halves))]
    runs = [
        subprocess.Popen(
            [sys.executable, BENCH / "run.py", *half, "--quick", "--rounds", "1", "--json", file],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for half, file in zip(halves, files, strict=True)
    ]
    shown = [run.communicate()[0].decode() for run in runs]
    assert all(run.returncode in (0, 1) for run in runs), "".join(shown)
    return "".join(shown), [row for file in files for row in json.loads(file.read_text())["rows"]]


@pytest.mark.timeout_s(600)  # the first one waits for all
@pytest.mark.parametrize("row", ROWS)
def test_row_can_be_measured(row, measured):
    shown, figures = measured
    found = [given for given in figures if frame.is_under(given["name"], row)]
    assert found
    for given in found:
        if "skipped" in given:
            pytest.skip(given["skipped"])
        assert "failed" not in given, f"{given['failed']}\n{shown}"
        assert given["name"] in shown
        assert all(given[side]["mean_seconds"] > 0 for side in ("ours", "theirs") if side in given)
        assert ("ratio" in given) == bool(given["peer"])


def test_every_stock_value_is_compared_both_ways():
    script = [sys.executable, BENCH / "stock.py", "--rounds", "1", "--at-least", "0"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" dumps ") == done.stdout.count(" loads ") > 100
