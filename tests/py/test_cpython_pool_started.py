# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of `multiprocessing.Pool` with ours in its place, as test_cpython_pool.py has them, where workers
are not forked: what `test.test_multiprocessing_spawn` and `_forkserver` run of them. None is left out.
"""

import functools
import unittest

import pytest

try:
    from test import _test_multiprocessing as theirs
except ImportError as error:
    pytest.skip(f"this interpreter has no test._test_multiprocessing ({error})", allow_module_level=True)

import shoal

pytestmark = pytest.mark.usefixtures("no_main")


class Spawned(theirs.ProcessesMixin):
    Pool = staticmethod(functools.partial(shoal.Pool, context="spawn"))


class FromForkserver(theirs.ProcessesMixin):
    Pool = staticmethod(functools.partial(shoal.Pool, context="forkserver"))


class SpawnedPool(theirs._TestPool, Spawned, unittest.TestCase):
    pass


class SpawnedPoolWorkerLifetime(theirs._TestPoolWorkerLifetime, Spawned, unittest.TestCase):
    pass


class ForkserverPool(theirs._TestPool, FromForkserver, unittest.TestCase):
    pass


class ForkserverPoolWorkerLifetime(theirs._TestPoolWorkerLifetime, FromForkserver, unittest.TestCase):
    pass
