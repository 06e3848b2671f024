# SPDX-License-Identifier: BSD-3-Clause
"""What pickles of things by value name: one module for all of it, and little to import."""

import pickle
import pickletools
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
