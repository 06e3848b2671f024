# SPDX-License-Identifier: BSD-3-Clause
"""A module that another thread is importing is waited for, and modules without an ordinary spec are found."""

import importlib
import pickle
import sys
import threading
import types

import pytest

import shoal

SLOW = """
import gates_of_slow_module as gates
gates.begun.set()
gates.go.wait(30)
value = 5
"""
LOOKUP = b"cslow_module\nvalue\n."


def test_a_module_under_import_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text(SLOW)
    gates = types.ModuleType("gates_of_slow_module")
    gates.begun, gates.go = threading.Event(), threading.Event()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, gates.__name__, gates)
    monkeypatch.delitem(sys.modules, "slow_module", raising=False)
    loaded = []

    def open_the_gate(frame, event, argument):
        if frame.f_code.co_name == "_lock_unlock_module":  # of importlib: what waits for the other thread
            gates.go.set()

    def load():
        sys.setprofile(open_the_gate)
        try:
            loaded.append(shoal.loads(LOOKUP))
        except AttributeError as error:
            loaded.append(error)
        finally:
            sys.setprofile(None)
            gates.go.set()

    importing = threading.Thread(target=importlib.import_module, args=("slow_module",))
    importing.start()
    assert gates.begun.wait(30)
    loading = threading.Thread(target=load)
    loading.start()
    loading.join(30)
    importing.join(30)
    assert loaded == [5]
    del sys.modules["slow_module"]


class Flagged:
    """A spec that answers for itself."""

    def __getattr__(self, name):
        raise AttributeError(name)


@pytest.mark.parametrize("spec", [None, 5, Flagged(), types.SimpleNamespace(), types.SimpleNamespace(_initializing=0)])
def test_modules_with_any_spec_are_found(monkeypatch, spec):
    module = types.ModuleType("module_with_a_spec")
    module.__spec__ = spec
    module.value = object()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert shoal.loads(b"cmodule_with_a_spec\nvalue\n.") is module.value


def test_a_module_without_a_spec_is_found(monkeypatch):
    module = types.ModuleType("module_without_a_spec")
    del module.__spec__
    module.value = object()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert shoal.loads(b"cmodule_without_a_spec\nvalue\n.") is module.value
    assert pickle.loads(b"cmodule_without_a_spec\nvalue\n.") is module.value
