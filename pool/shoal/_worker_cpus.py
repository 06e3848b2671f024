# SPDX-License-Identifier: BSD-3-Clause
"""Which CPUs each worker runs on, and how many it may keep busy."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from shoal._cpus import affinity_cpus, quota_cpus

TOPOLOGY = Path("/sys/devices/system/cpu")
CpuSets = list[list[int]]


def cpu_sets(asked: Any, workers: int) -> CpuSets | None:
    """Return the CPUs of each worker, in turn, as `cpu_affinity` asks for them; None: it does not.

    Raises
    ------
    ValueError
        If it names a CPU that this process may not use, or none.
    """
    if asked is None:
        return None
    allowed = os.sched_getaffinity(0)
    if isinstance(asked, str):
        if asked != "spread":
            raise ValueError(f"cpu_affinity must be 'spread', a list of CPUs, or a list of such lists, not {asked!r}")
        return spread(by_core(allowed), workers)
    given = list(asked)
    sets = [_numbers(one) for one in given] if given and isinstance(given[0], Iterable) else [_numbers(given)]
    for one in sets:
        if not one:
            raise ValueError("cpu_affinity names no CPU")
        if not allowed.issuperset(one):
            raise ValueError(
                f"cpu_affinity: this process may not use CPU {min(set(one) - allowed)}, but {_text(allowed)}"
            )
    return sets


def _numbers(one: Iterable[Any]) -> list[int]:
    return [operator.index(cpu) for cpu in one]


def _text(cpus: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))


def spread(cpus: list[int], workers: int) -> CpuSets:
    """Cut the CPUs into equal shares of neighbours; where workers outnumber them, each has one."""
    count = len(cpus)
    if workers >= count:
        return [[cpu] for cpu in cpus]
    return [cpus[number * count // workers : (number + 1) * count // workers] for number in range(workers)]


def by_core(cpus: Iterable[int], topology: Path = TOPOLOGY) -> list[int]:
    """Sort them so that those of a package, and those of a core, are neighbours."""

    def place(cpu: int) -> tuple[int, int, int]:
        return _read(topology, cpu, "physical_package_id"), _read(topology, cpu, "core_id"), cpu

    return sorted(cpus, key=place)


def _read(topology: Path, cpu: int, name: str) -> int:
    try:
        return int((topology / f"cpu{cpu}" / "topology" / name).read_text())
    except (OSError, ValueError):
        return 0


@lru_cache(maxsize=1)
def _quota_at_first() -> float | None:
    """Reading a dozen files is too much for each start of a pool, and quotas hardly change."""
    return quota_cpus()


def cpus_of_all() -> int:
    """Return how many CPUs the workers of a pool may keep busy together."""
    quota = _quota_at_first()
    return max(1, affinity_cpus() if quota is None else min(affinity_cpus(), math.ceil(quota)))


def cpus_of_each(sets: CpuSets | None, workers: int) -> int:
    """Return how many CPUs each worker may keep busy, so that all together stay within what there is."""
    if sets is None:
        return max(1, cpus_of_all() // workers)
    sharers = -(-workers // len(sets))
    return max(1, min(map(len, sets)) // sharers)
