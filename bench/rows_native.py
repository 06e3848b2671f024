# SPDX-License-Identifier: BSD-3-Clause
"""Rows of the C library, per operation. They have no peer and are shown alone.

Each bench/c/<name>.c becomes a program (make bench-programs) that measures its own operations and prints one line
`row=<name> ns=<value>` for each, ns being the mean time of one operation.
"""

import os
import pathlib

import frame

HERE = pathlib.Path(__file__).resolve().parent


def directories() -> list[pathlib.Path]:
    """Where the programs may lie: ./run says it, otherwise beside a build in build/."""
    root = pathlib.Path(os.environ.get("SHOAL_BENCH_PROGRAMS") or HERE.parent / "build" / "bench")
    return [root, root / "c"]


def find(name: str) -> pathlib.Path:
    for directory in directories():
        path = directory / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise frame.SkipRow(f"{name} is not in {directories()[0]}; make bench-programs builds it")


def add_to(registry: frame.Registry) -> None:
    for source in sorted((HERE / "c").glob("*.c")):
        registry.add_program(f"native/{source.stem}", find)
