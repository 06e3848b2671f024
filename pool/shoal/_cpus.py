# SPDX-License-Identifier: BSD-3-Clause
"""How many CPUs this process may use: the affinity mask and the cgroup's quota, not what the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Return the number of CPUs that the affinity mask and the cgroup's CPU quota allow; at least 1."""
    allowed = affinity_cpus()
    quota = quota_cpus()
    if quota is not None:
        allowed = min(allowed, math.ceil(quota))
    return max(1, allowed)


def affinity_cpus() -> int:
    """Return the number of CPUs in the affinity mask (or what `-X cpu_count` says instead, from Python 3.13 on)."""
    counted = getattr(os, "process_cpu_count", None)
    return (counted() if counted is not None else len(os.sched_getaffinity(0))) or 1


def quota_cpus(root: Path = CGROUP_ROOT, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the strictest CPU quota of this process's cgroups (v1 and v2) in CPUs; None: there is no limit."""
    quotas = [quota for group in _groups(root, membership) if (quota := _quota_of(group)) is not None]
    return min(quotas, default=None)


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    """Every directory whose limit may bind us: our group and its ancestors up to the root of each hierarchy."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base = root
        elif "cpu" in controllers.split(","):
            base = root / controllers
            if not base.is_dir():
                base = root / "cpu"
        else:
            continue
        group = base / path.lstrip("/")
        yield group
        while group != base and base in group.parents:
            group = group.parent
            yield group


def _quota_of(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        microseconds, per = int(quota), int(period)
    except ValueError:  # "max"
        return None
    return microseconds / per if microseconds > 0 and per > 0 else None
