# SPDX-License-Identifier: BSD-3-Clause
"""In a subinterpreter `import shoal` is an ImportError that says why; the main interpreter is none the worse for it."""

import pytest

# What each version calls it: run source in a new interpreter, and whether that has a GIL of its own.
CREATE = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    def create(own_gil):
        return interpreters.create("isolated" if own_gil else "legacy")
else:
    import _xxsubinterpreters as interpreters
    def create(own_gil):
        return interpreters.create(isolated=own_gil)

def run(interpreter, source):
    failed = interpreters.run_string(interpreter, source)
    assert failed is None, failed.formatted
"""
IMPORT = """
TRY = '''
try:
    import {module}
except ImportError as error:
    assert "main interpreter only" in str(error), error
else:
    raise AssertionError("it was imported")
'''
"""


@pytest.mark.parametrize("own_gil", [True, False])
@pytest.mark.parametrize("module", ["shoal", "shoal._ext", "shoal.pool", "shoal.cloudpickle"])
@pytest.mark.parametrize("before", ["", "import shoal"])
def test_an_import_is_refused_with_the_reason(own_gil, module, before, fresh_python):
    fresh_python(
        CREATE
        + IMPORT.format(module=module)
        + f"""
{before}
for _ in range(2):
    interpreter = create({own_gil})
    run(interpreter, TRY)
    run(interpreter, TRY)
    interpreters.destroy(interpreter)
import shoal
with shoal.Pool(1) as pool:
    assert pool.map(lambda x: x + 1, range(3)) == [1, 2, 3]
"""
    )
