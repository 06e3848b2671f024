# SPDX-License-Identifier: BSD-3-Clause
"""What Shoal found on this machine: the text of `python -m shoal info`."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from shoal import _ext
from shoal._cpus import affinity_cpus, quota_cpus, usable_cpus

# What the engine reports, in the order in which it is shown, and what it is called. `*_bytes` are sizes.
LABELS = {
    "doorbell": "doorbell in use",
    "arena_budget_bytes": "arena limit",
    "arena_used_bytes": "arena in use",
    "arena_cached_bytes": "arena kept warm",
    "region_bytes": "address space of the arena",
    "memory_available_bytes": "memory available",
}
DOORBELLS = {
    "uring": "io_uring with futex",
    "uring-eventfd": "io_uring with eventfd",
    "semaphore": "POSIX semaphores",
}
SHOWN_ELSEWHERE = {"version", "kernel", "doorbells"}


def gather() -> dict[str, Any]:
    """Return everything that `python -m shoal info` shows, as JSON-able values."""
    return {
        "shoal": _ext.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "numpy": _version_of("numpy"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": {
            "machine": os.cpu_count(),
            "affinity": affinity_cpus(),
            "cgroup quota": quota_cpus(),
            "default workers": usable_cpus(),
        },
        "engine": dict(_ext.info()),
    }


def as_json() -> str:
    """Return what was found as a JSON object."""
    return json.dumps(gather(), indent=2, default=str)


def as_text() -> str:
    """Return what was found as aligned lines of text."""
    lines = list(_lines(gather()))
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {value}".rstrip() for label, value in lines)


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "shoal", found["shoal"]
    yield "Python", f"{found['python']} ({found['executable']})"
    yield "numpy", found["numpy"] or "not installed"
    yield "system", found["system"]
    cpus = found["cpus"]
    quota = cpus["cgroup quota"]
    yield (
        "cores",
        f"{cpus['machine']} in the machine, {cpus['affinity']} in the affinity mask, cgroup quota "
        f"{'none' if quota is None else f'{quota:g}'}: {cpus['default workers']} workers by default",
    )
    yield from _engine_lines(found["engine"])


def _engine_lines(engine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, state in engine["doorbells"].items():
        yield DOORBELLS.get(kind, kind), state
    known = [key for key in LABELS if key in engine]
    for key in [*known, *(key for key in engine if key not in LABELS and key not in SHOWN_ELSEWHERE)]:
        value = engine[key]
        label = LABELS.get(key, key.removesuffix("_bytes").replace("_", " "))
        yield label, _size(value) if key.endswith("_bytes") else str(value)


def _size(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} bytes"
    power = min(int(math.log2(size_bytes)) // 10, 5)
    return f"{size_bytes / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power - 1]}"


@functools.cache  # the search costs a millisecond, and CPython 3.12 keeps some of its memory
def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
