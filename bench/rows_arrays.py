# SPDX-License-Identifier: BSD-3-Clause
"""Rows for arrays on their way into the arena: all that a task with them costs, against one memcpy of the same bytes.

Ours is a whole `pool.apply` of a function that does nothing with its arrays: pickled, copied into a block of the
arena, mapped by the worker as views, answered. The peer is nothing but `memmove`, from the same arrays into a block of
such an arena. The memory is warm on both sides: the peer's block is written again and again, and so is ours, as long
as the arena gives the pool the block again that came back with the last answer.
"""

import contextlib
import ctypes
import functools
from collections.abc import Iterator

import frame

MEBIBYTE = 1 << 20


def nothing(arrays) -> None:
    return None


def make_arrays(count: int, size_bytes: int) -> list:
    try:
        import numpy
    except ImportError:
        raise frame.SkipRow("needs numpy") from None
    dtypes = [numpy.float64, numpy.int32, numpy.uint8, numpy.complex128]
    arrays = []
    for number in range(count):
        dtype = numpy.dtype(dtypes[number % len(dtypes)])
        arrays.append(numpy.full(size_bytes // dtype.itemsize, number % 100, dtype))
    return arrays


@contextlib.contextmanager
def through_the_pool(count: int, size_bytes: int) -> Iterator[frame.Rounds]:
    import shoal

    arrays = make_arrays(count, size_bytes)
    with shoal.Pool(1) as pool:
        yield frame.each(pool.apply, nothing, (arrays,))


@contextlib.contextmanager
def by_memmove(count: int, size_bytes: int) -> Iterator[frame.Rounds]:
    from shoal import _ext

    arrays = make_arrays(count, size_bytes)
    block = _ext.Block(count * size_bytes)
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    copies = [(start + number * size_bytes, array.ctypes.data) for number, array in enumerate(arrays)]

    def run(times: int) -> None:
        for _ in range(times):
            for destination, source in copies:
                ctypes.memmove(destination, source, size_bytes)

    yield run


SHAPES = {
    "64x1-MiB": (64, MEBIBYTE),
    "1x1-GiB": (1, 1024 * MEBIBYTE),
    "16x64-MiB": (16, 64 * MEBIBYTE),
    "1024x1-MiB": (1024, MEBIBYTE),
    "16384x64-KiB": (16384, MEBIBYTE // 16),
}


def add_to(registry: frame.Registry) -> None:
    for name, shape in SHAPES.items():
        registry.add(
            f"arrays/{name}",
            ours=functools.partial(through_the_pool, *shape),
            theirs=functools.partial(by_memmove, *shape),
            peer="memmove",
            unit="ms",
            rounds=10,
            group="pickle",
            goal=0.9,
        )
