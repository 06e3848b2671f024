# SPDX-License-Identifier: BSD-3-Clause
"""What `python -m shoal info` shows, and how the number of usable CPUs is found."""

import json
import os
import subprocess
import sys

import pytest

import shoal
from shoal import _cpus, info


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "shoal", *arguments], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_it_names_what_was_found():
    done = run("info")
    assert done.returncode == 0 and done.stderr == ""
    text = done.stdout.lower()
    for what in ("shoal", "python", "numpy", "cores", "io_uring", "doorbell", "arena", "memory available"):
        assert what in text, what
    assert shoal.__version__ in done.stdout


def test_its_lines_are_aligned():
    lines = run("info").stdout.splitlines()
    column = lines[0].index(shoal.__version__)
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
    assert not any("  " in line[column:] for line in lines)


def test_json_has_the_same_facts():
    found = json.loads(run("info", "--json").stdout)
    assert found["shoal"] == shoal.__version__
    assert found["cpus"]["default workers"] == shoal.usable_cpus()
    assert found["engine"]


def test_it_says_which_doorbell_was_forced():
    done = run("info", env={**os.environ, "SHOAL_DOORBELL": "semaphore"})
    assert "semaphore" in done.stdout


def test_without_a_command_it_says_how_to_use_it():
    done = run()
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (1 << 60, "1024.0 PiB")],
)
def test_sizes_are_readable(size_bytes, text):
    assert info._size(size_bytes) == text


# ---- CPUs ----


def test_usable_cpus_are_at_most_those_of_the_affinity_mask():
    assert 1 <= shoal.usable_cpus() <= len(os.sched_getaffinity(0))


def test_an_affinity_mask_of_one_gives_one_worker(fresh_python):
    done = fresh_python("""
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import shoal
        print(shoal.usable_cpus())
    """)
    assert done.stdout == "1\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({}, None),
        ({"a/b/cpu.max": "max 100000\n"}, None),
        ({"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "150000 100000\n"}, 0.5),
        ({"cpu.max": "300000 100000\n"}, 3.0),  # a container: the group's path is not that of the mount
        ({"a/b/cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_of_cgroup_v2(tmp_path, limits, quota):
    write(tmp_path / "membership", "0::/a/b\n")
    for name, text in limits.items():
        write(tmp_path / "root" / name, text)
    assert _cpus.quota_cpus(tmp_path / "root", tmp_path / "membership") == quota


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("quota", "cpus"), [("-1", None), ("200000", 2.0)])
def test_the_quota_of_cgroup_v1(tmp_path, mount, quota, cpus):
    write(tmp_path / "membership", "12:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    write(tmp_path / f"root/{mount}/cpu.cfs_quota_us", quota + "\n")
    write(tmp_path / f"root/{mount}/cpu.cfs_period_us", "100000\n")
    assert _cpus.quota_cpus(tmp_path / "root", tmp_path / "membership") == cpus


def test_a_quota_is_rounded_up_and_is_never_more_than_the_mask(monkeypatch):
    monkeypatch.setattr(_cpus, "affinity_cpus", lambda: 8)
    for quota, cpus in ((None, 8), (0.2, 1), (1.0, 1), (1.5, 2), (64.0, 8)):
        monkeypatch.setattr(_cpus, "quota_cpus", lambda quota=quota: quota)
        assert _cpus.usable_cpus() == cpus


def test_no_cgroup_is_no_limit(tmp_path):
    assert _cpus.quota_cpus(tmp_path / "nowhere", tmp_path / "nothing") is None
