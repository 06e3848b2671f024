# SPDX-License-Identifier: BSD-3-Clause
"""CPython's own tests of `concurrent.futures.ProcessPoolExecutor`, prepared to run with ours in its place.

`run_with_ours(suite)` makes a test case of one of CPython's suites ("WaitTests", …), from the interpreter that runs
this. A test that is excluded is still run and must fail: when it begins to pass, its line has to go.
"""

import concurrent.futures
import functools
import importlib
import unittest
from unittest import mock

import pytest

import shoal

PARTS = ("test_process_pool", "test_init", "test_shutdown", "test_wait", "test_as_completed", "test_deadlock", "util")

SCRIPT = """
import concurrent.futures, multiprocessing, shoal
concurrent.futures.ProcessPoolExecutor = shoal.ProcessPoolExecutor
"""


def _load():
    """The modules that CPython's suites are in: one, or from 3.12 on several."""
    try:
        package = importlib.import_module("test.test_concurrent_futures")
        if not hasattr(package, "__path__"):
            return [package]
        return [importlib.import_module(f"test.test_concurrent_futures.{part}") for part in PARTS]
    except ImportError as error:
        pytest.skip(f"this interpreter has no test.test_concurrent_futures ({error})", allow_module_level=True)


MODULES = _load()


def _find(name):
    for module in MODULES:
        if hasattr(module, name):
            return module, getattr(module, name)
    raise LookupError(name)


class WithOurs:
    """Where they say `futures.ProcessPoolExecutor`, in the test's process and in scripts, it is ours."""

    # Not the very class that takes its place: one test leaves out what is theirs, since it would hang.
    executor_type = type("ProcessPoolExecutor", (shoal.ProcessPoolExecutor,), {})
    ctx = "fork"

    def setUp(self):
        self._replace(concurrent.futures, "ProcessPoolExecutor", shoal.ProcessPoolExecutor)
        for module in MODULES:
            if hasattr(module, "assert_python_ok"):
                run = functools.partial(_run_script, module.assert_python_ok)
                self._replace(module, "assert_python_ok", run)
        super().setUp()

    def _replace(self, where, name, value):
        patch = mock.patch.object(where, name, value)
        patch.start()
        self.addCleanup(patch.stop)


def _run_script(run, option, source):
    return run(option, SCRIPT + source)


def run_with_ours(suite, excluded=None, *, method="fork"):
    """A test case of CPython's suite `suite`. `excluded`: test -> why it cannot pass."""
    _, tests = _find(suite)
    _, mixin = _find("ProcessPoolForkMixin")
    _, base = _find("BaseTestCase")
    case = type(f"Shoal{suite}", (WithOurs, tests, mixin, base), {"__module__": __name__, "ctx": method})
    for name in excluded or {}:
        if hasattr(case, name):
            setattr(case, name, _must_fail(getattr(case, name)))
    return case


def _must_fail(method):
    @functools.wraps(method)
    def run(self):
        method(self)

    return unittest.expectedFailure(run)
