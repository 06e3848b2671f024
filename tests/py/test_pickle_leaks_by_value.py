# SPDX-License-Identifier: BSD-3-Clause
"""Whatever travels by value leaves nothing behind: each case of the case files, dumped, forgotten and loaded."""

import pickle
import pickletools
import sys
import textwrap

import pytest

import by_value_cases
import enum_cases
import exception_cases
import object_cases
import shoal
from leaking import leaks
from shoal import _rebuild

# Not named by pickles: the pickler asks these.
ASKED_BY_THE_PICKLER = {"_content", "_describe_enum", "_describe_type_parameter", "_list_effects", "_list_registered"}
ENUMS = {
    f"enums: {name}": case[:2] for name, case in enum_cases.CASES.items() if sys.version_info >= (*case[2:], (3,))[0]
}
CASES = {**by_value_cases.CASES, **object_cases.CASES, **exception_cases.CASES, **ENUMS}
# Libraries that keep what they are shown, and arrays of objects, which the collector does not see into.
NOT_MEASURED = {
    "files",
    "frame with functions in its attributes",
    "numpy's own",
    "text file",
}


def make(name, code={}):  # noqa: B006 (a cache)
    if name not in code:
        code[name] = compile(textwrap.dedent(CASES[name][0]), f"<{name}>", "exec")
    namespace = {"__name__": "__main__"}
    exec(code[name], namespace)
    return namespace


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of iterators; they would be kept, one by one
@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_MEASURED])
def test_memory_does_not_grow(name):
    def there_and_back():
        pickle.loads(shoal.dumps(make(name)["it"]))

    assert not leaks(there_and_back)


def test_each_reconstructor_is_measured():
    named = set()
    for name in CASES:
        for protocol in (3, 5):
            namespace = make(name)  # it owns files that are closed with it
            for _, argument, _ in pickletools.genops(shoal.dumps(namespace["it"], protocol)):
                if isinstance(argument, str):
                    named.update(argument.split())
    # In streams of pools only.
    named |= {"_put_items", "_shared", "_shared_at", "_find_shared", "_unpack"}
    if sys.version_info < (3, 12):
        named |= {"_type_alias", "_fill_type_alias", "_fill_type_parameter"}
    assert {name for name in _rebuild.__all__ if name not in ASKED_BY_THE_PICKLER} - named == set()
