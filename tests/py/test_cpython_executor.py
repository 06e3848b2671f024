# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of a process pool executor at work, run with ours. See cpython_futures.py."""

from cpython_futures import run_with_ours

TestProcessPool = run_with_ours(
    "ProcessPoolExecutorTest",
    {
        "test_killed_child": "wants the whole pool to break with one worker: here its task alone is lost",
        "test_max_tasks_per_child": "wants it refused with the start method fork: here it works",
        "test_max_tasks_per_child_defaults_to_spawn_context": "see above: the start method stays what it is",
        "test_python_finalization_error": "makes the threads that theirs starts fail: ours starts none in Python",
    },
)
TestInitializer = run_with_ours("InitializerMixin")
TestFailingInitializer = run_with_ours("FailingInitializerMixin")
TestAsCompleted = run_with_ours("AsCompletedTests")
