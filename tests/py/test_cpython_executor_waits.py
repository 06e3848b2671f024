# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of `wait` on futures of a process pool executor, run with ours. See cpython_futures.py."""

from cpython_futures import run_with_ours

TestWait = run_with_ours("WaitTests")
