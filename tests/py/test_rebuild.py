# SPDX-License-Identifier: BSD-3-Clause
"""What pickles of things by value name: one module for all of it, and little to import."""

import io
import pickle
import pickletools
import sys
import textwrap

import pytest

import shoal
from object_cases import CASES
from shoal import _rebuild


@pytest.mark.parametrize("name", _rebuild.__all__)
def test_each_reconstructor_is_found_in_one_place(name):
    reconstructor = getattr(_rebuild, name)
    assert (reconstructor.__module__, reconstructor.__name__) == ("shoal._rebuild", name)
    for protocol in range(6):
        for dumps in (pickle.dumps, shoal.dumps):
            stream = dumps(reconstructor, protocol)
            assert b"shoal._rebuild" in stream and pickle.loads(stream) is reconstructor


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_streams_name_no_other_module_of_ours(protocol):
    named = set()
    for define, _ in CASES.values():
        namespace = {"__name__": "__main__"}
        exec(textwrap.dedent(define), namespace)
        for _, argument, _ in pickletools.genops(shoal.dumps(namespace["it"], protocol)):
            if isinstance(argument, str) and argument.startswith("shoal."):
                named.add(argument.split()[0])
    assert named == {"shoal._rebuild"}


def test_the_first_load_imports_no_cryptography(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    fresh_python(
        """
        import shoal, sys, typing
        T = typing.TypeVar('T', bound=int)
        class Box(typing.Generic[T]):
            def put(self, it: T) -> T: return it
        open(sys.argv[1], 'wb').write(shoal.dumps((Box, lambda x: x + 1)))
        """,
        file,
    )
    fresh_python(
        """
        import pickle, sys
        before = set(sys.modules)
        Box, add = pickle.loads(open(sys.argv[1], 'rb').read())
        assert add(1) == 2 and Box().put(3) == 3
        assert not {'hashlib', '_hashlib'} & (set(sys.modules) - before)
        """,
        file,
    )


def adder(step):
    return lambda number: number + step


def test_reconstructors_are_looked_up_at_each_load_and_audited(monkeypatch):
    stream = shoal.dumps(adder(1))
    events = []
    recording = True

    def hook(event, args):
        if recording and event == "pickle.find_class":
            events.append(args)

    for _ in range(2):
        assert shoal.loads(stream)(1) == 2
    sys.addaudithook(hook)
    try:
        assert shoal.loads(stream)(1) == 2
    finally:
        recording = False
    assert events == [("shoal._rebuild", "_function"), ("shoal._rebuild", "_cell")]
    original, calls = _rebuild._function, []
    monkeypatch.setattr(_rebuild, "_function", lambda *args: calls.append(args) or original(*args))
    assert shoal.loads(stream)(1) == 2 and len(calls) == 1
    monkeypatch.undo()
    for _ in range(2):
        with pytest.raises(AttributeError, match="_kell"):
            shoal.loads(stream.replace(b"_cell", b"_kell"))


def test_reconstructors_are_asked_of_find_class():
    stream = shoal.dumps(adder(1))
    asked = []

    class Loader(shoal.Unpickler):
        def find_class(self, module, name):
            asked.append((module, name))
            return super().find_class(module, name)

    for _ in range(2):
        assert Loader(io.BytesIO(stream)).load()(1) == 2
    assert asked == [("shoal._rebuild", "_function"), ("shoal._rebuild", "_cell")] * 2


def test_names_of_reconstructors_may_stand_elsewhere_and_be_cut_off():
    stream = shoal.dumps(adder(1))
    assert shoal.loads(stream)(1) == 2
    values = ["shoal._rebuild", "_function", "shoal._rebuilt", "shoal._rebuil", ("shoal._rebuild", "_cell", None)]
    for value in [*values, values, {"shoal._rebuild": "_function"}]:
        assert shoal.loads(shoal.dumps(value)) == shoal.loads(pickle.dumps(value, 4)) == value
    unframed = stream[:2] + stream[11:]
    assert shoal.loads(unframed)(1) == 2
    for damaged in (stream, unframed):
        for length in range(len(damaged)):
            with pytest.raises((shoal.UnpicklingError, EOFError)):
                shoal.loads(damaged[:length])
            with pytest.raises((shoal.UnpicklingError, EOFError)):
                shoal.load(io.BytesIO(damaged[:length]))
