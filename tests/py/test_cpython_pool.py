# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of `multiprocessing.Pool` (test._test_multiprocessing), run with ours in its place.

They come from the interpreter that runs this, so they differ from version to version; where it has no `test` package,
everything here is skipped. No test is left out, but for TestPoolNotLeakOnFailure, which puts processes of its own
making into multiprocessing's Pool: the last test here promises the same of ours.
"""

import multiprocessing
import multiprocessing.managers
import os
import threading
import unittest
from unittest import mock

import pytest

try:
    from test import _test_multiprocessing as theirs
except ImportError as error:
    pytest.skip(f"this interpreter has no test._test_multiprocessing ({error})", allow_module_level=True)

import shoal

SCRIPT = "import multiprocessing, shoal; multiprocessing.Pool = shoal.Pool\n"


class WithOurs(theirs.ProcessesMixin):
    """Where they say `multiprocessing.Pool`, in the test's process and in scripts, it is ours."""

    Pool = staticmethod(shoal.Pool)

    def setUp(self):
        super().setUp()
        run_script = theirs.test.support.script_helper.assert_python_ok
        for patch in (
            mock.patch.object(multiprocessing, "Pool", shoal.Pool),
            mock.patch.object(
                theirs.test.support.script_helper,
                "assert_python_ok",
                lambda option, source, **options: run_script(option, SCRIPT + source, **options),
            ),
        ):
            patch.start()
            self.addCleanup(patch.stop)


class ShoalPool(theirs._TestPool, WithOurs, unittest.TestCase):
    pass


class ShoalPoolWorkerErrors(theirs._TestPoolWorkerErrors, WithOurs, unittest.TestCase):
    def test_unpickleable_result(self):
        """Their result is a lambda, which can be pickled here; a lock cannot."""
        with mock.patch.object(theirs, "unpickleable_result", threading.Lock):
            super().test_unpickleable_result()


class ShoalPoolWorkerLifetime(theirs._TestPoolWorkerLifetime, WithOurs, unittest.TestCase):
    pass


class ShoalPoolInitializers(WithOurs, theirs.TestInitializers):
    pass


class ShoalPoolStdin(WithOurs, theirs.TestStdinBadfiledescriptor):
    pass


class Manager(multiprocessing.managers.SyncManager):
    """A manager process that has pools of ours for its clients."""


Manager.register("Pool", shoal.Pool, multiprocessing.managers.PoolProxy)
Manager.register("Iterator", proxytype=multiprocessing.managers.IteratorProxy, create_method=False)
Manager.register("AsyncResult", create_method=False)


class ShoalPoolInManager(theirs._TestPool, theirs.ManagerMixin, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with mock.patch.object(multiprocessing, "Manager", start_manager):
            super().setUpClass()


def start_manager():
    manager = Manager(ctx=multiprocessing.get_context("fork"))
    manager.start()
    return manager


def test_processes_of_a_pool_that_cannot_be_made_are_not_left():
    """What TestPoolNotLeakOnFailure wants, which counts the processes that it makes for multiprocessing's Pool."""
    fork, forked = os.fork, []

    def failing_fork():
        if len(forked) == 3:
            raise OSError("no more processes")
        forked.append(fork())
        return forked[-1]

    with mock.patch.object(os, "fork", failing_fork), pytest.raises(OSError, match="no more processes"):
        shoal.Pool(5)
    assert len(forked) == 3
    for pid in forked:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
