# SPDX-License-Identifier: BSD-3-Clause
"""The objects of a large stream, or of a long list of results, lie in large pages; nothing but that is different."""

import pathlib

import pytest

COMMON = """
import ctypes, re, shoal

def large():
    "Bytes of this process's mappings for which large pages were asked."
    total = size = 0
    for line in open("/proc/self/smaps"):
        if line.startswith("Size:"):
            size = int(line.split()[1]) * 1024
        elif line.startswith("VmFlags:") and " hg" in line:
            total += size
    return total

class Allocator(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("context", "allocate", "free")]

def allocator():
    found = Allocator()
    ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(found))
    return found.context, found.allocate, found.free

strings = [f"string number {number}" for number in range(100_000)]
stream = shoal.dumps(strings)
before = allocator(), large()
"""

pytestmark = pytest.mark.skipif(
    not pathlib.Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the kernel knows no large pages"
)


@pytest.fixture
def script(fresh_python):
    def run(source):
        return fresh_python(COMMON + source, env={"PYTHONMALLOC": "pymalloc"})

    return run


def test_large_stream_is_loaded_into_large_pages_and_small_ones_are_not(script):
    script("""
for _ in range(100):
    assert shoal.loads(shoal.dumps(strings[:500])) == strings[:500]
assert large() == before[1]
copy = shoal.loads(stream)
assert copy == strings
assert large() >= 5_000_000, large()
assert allocator() == before[0]
""")


def test_memory_goes_back_with_the_objects(script):
    script("""
copy = shoal.loads(stream)
most = large()
del copy
assert large() <= most / 2, (large(), most)  # some arenas have got other objects meanwhile
for _ in range(20):
    shoal.loads(stream)
    assert large() <= most + 2 * 2**20
copies = [shoal.loads(stream) for _ in range(3)]
del copies[1]
assert copies[0] == copies[1] == strings
""")


def test_rest_of_a_large_page_goes_back_at_the_end_of_the_stream(script):
    script("""
copies = [shoal.loads(shoal.dumps([float(i) for i in range(30_000)])) for _ in range(40)]
taken = sum(30_000 * (24 + 8) for _ in copies)
assert large() <= 1.2 * taken, (large(), taken)
""")


def test_allocator_is_pythons_own_while_user_code_runs_and_after_errors(script):
    script("""
import sys
seen = []
sys.modules["looks"] = sys.modules["__main__"]

def look(number):
    seen.append(allocator())
    assert shoal.loads(stream) == strings
    seen.append(allocator())
    if number == 2:
        raise ZeroDivisionError
    return number

look.__module__ = "looks"  # it goes by its name

class Looks:
    def __init__(self, number):
        self.number = number
    def __reduce__(self):
        return look, (self.number,)

assert shoal.loads(shoal.dumps([strings, Looks(0), strings[:], Looks(1), list(strings)]))[1::2] == [0, 1]
try:
    shoal.loads(shoal.dumps([strings, Looks(2)]))
except ZeroDivisionError:
    seen.append(allocator())
try:
    shoal.loads(stream[:-100])
except Exception:
    seen.append(allocator())
assert len(seen) == 8 and set(seen) == {before[0]}
""")


def test_allocator_of_somebody_else_stays(script):
    script("""
libc = ctypes.CDLL(None)
calloc, nothing = (ctypes.cast(function, ctypes.c_void_p) for function in (libc.calloc, libc.abs))
theirs = Allocator(1, calloc, nothing)  # calloc(1, size); abs(1)
ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(theirs))
copy = shoal.loads(stream)
assert copy == strings
assert large() == before[1]
assert allocator() == (1, calloc.value, nothing.value)
""")


def test_other_interpreters_are_left_alone(script):
    done = script("""
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
assert shoal.loads(stream) == strings
assert large() == before[1]
interpreters.destroy(other)
copy = shoal.loads(stream)
assert large() > before[1]
""")
    assert done.returncode == 0


def test_results_of_a_long_map_lie_in_large_pages_and_go_back_with_them(script):
    script("""
def twice(number):
    return 2 * number

numbers = range(1_000_000, 1_300_000)
with shoal.Pool(2) as pool:
    assert pool.map(twice, range(20_000)) == list(range(0, 40_000, 2))
    assert large() == before[1]
    results = pool.map(twice, numbers)
    assert results == list(map(twice, numbers))
    most = large()
    assert most >= 5_000_000, most
    assert allocator() == before[0]
    del results
    assert large() <= most / 2, (large(), most)
    for _ in range(5):
        assert len(pool.map(twice, numbers)) == len(numbers)
        assert large() <= most + 2 * 2**20
""")


def test_allocator_is_pythons_own_while_the_elements_of_a_long_map_are_made_and_after_an_error(script):
    script("""
seen = []

def twice(number):
    return [number] if number == 100_000 else 2 * number if number < 150_000 else 1 // 0

class Looks:
    def __init__(self, number):
        self.number = number
    def __reduce__(self):
        seen.append(allocator())
        return Looks, (self.number,)

with shoal.Pool(2) as pool:
    assert pool.map(type, [Looks(0)] * 3 + list(range(100_000)))[2:4] == [Looks, int]
    look = lambda outcome: seen.append(allocator())
    answer = pool.map_async(twice, range(200_000), callback=look, error_callback=look)
    try:
        answer.get()
    except ZeroDivisionError:
        seen.append(allocator())
    assert len(seen) >= 5 and set(seen) == {before[0]}, seen
""")
