# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of how a process pool executor ends, and of crashes in it, with ours. See cpython_futures.py."""

import os
from unittest import mock

from cpython_futures import run_with_ours

ALONE = "wants the whole pool to break: here the call alone fails, with an error that says why"
PRIVATE = "looks at the thread and the queue that theirs has"


class TestShutdown(
    run_with_ours("ProcessPoolShutdownTest", {"test_del_shutdown": PRIVATE, "test_shutdown_no_wait": PRIVATE})
):
    def test_cancel_futures(self):
        """Theirs takes it that a call that was just submitted has begun: here one has when they go on."""
        submitted = []

        def submit(*call):
            submitted.append(type(self.executor).submit(self.executor, *call))
            return submitted[-1]

        def shutdown(**options):
            while not any(future.running() or future.done() for future in submitted):
                os.sched_yield()
            type(self.executor).shutdown(self.executor, **options)

        with mock.patch.multiple(self.executor, submit=submit, shutdown=shutdown):
            super().test_cancel_futures()


TestCrashes = run_with_ours(
    "ExecutorDeadlockTest",
    {
        "test_error_at_task_unpickle": ALONE,
        "test_exit_at_task_unpickle": ALONE,
        "test_error_during_result_unpickle_in_result_handler": ALONE,
        "test_exit_during_result_unpickle_in_result_handler": ALONE,
        "test_exit_during_result_pickle_on_worker": "wants what the pickling raised: here that is told by a "
        "ResultEncodingError, as by the MaybeEncodingError of multiprocessing",
        "test_shutdown_deadlock_pickle": PRIVATE,
    },
)
