# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of an executor whose workers are not forked, run with ours. See cpython_futures.py."""

from cpython_futures import run_with_ours

BY_AND_BY = "wants workers to be started one by one: ours start together, at the first call"

TestInitializerSpawn = run_with_ours("InitializerMixin", method="spawn")
TestInitializerForkserver = run_with_ours("InitializerMixin", method="forkserver")
TestFailingInitializerSpawn = run_with_ours("FailingInitializerMixin", method="spawn")
TestProcessPoolForkserver = run_with_ours(
    "ProcessPoolExecutorTest",
    {
        "test_killed_child": "wants the whole pool to break with one worker: here its task alone is lost",
        "test_max_tasks_per_child_defaults_to_spawn_context": "fork works with it here and stays the default",
        "test_idle_process_reuse_one": BY_AND_BY,
        "test_idle_process_reuse_multiple": BY_AND_BY,
        "test_python_finalization_error": "makes the threads that theirs starts fail: ours starts none in Python",
    },
    method="forkserver",
)
