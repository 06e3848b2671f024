# SPDX-License-Identifier: BSD-3-Clause
"""numpy arrays whose memory lies in the arena, so that passing one to a task or back costs a handle, not a copy.

The semantics stay those of a copy. What arrives can be written, and nobody else sees it: the pages that are written
are copied, the others are the one memory that all read. The array itself freezes when it is first sent (writing to it
raises from then on), so that no task sees what the sender writes later. A view that was made of it before keeps its
own flag: docs/failure.md.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from shoal import _ext

_Mode = Literal["copy", "readonly", "open"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray


def empty(
    shape: SupportsIndex | tuple[SupportsIndex, ...] | list[SupportsIndex],
    dtype: DTypeLike = float,
    order: Literal["C", "F"] = "C",
) -> NDArray[Any]:
    """Return a new array in the arena, its values not set. It can be written until it is first sent.

    Parameters
    ----------
    shape : int or sequence of int
        Length in each dimension.
    dtype : dtype
        Type of the elements; one with objects in it is refused.
    order : {"C", "F"}
        Last ("C") or first ("F") index varies fastest.

    Raises
    ------
    MemoryError
        If the arena has no room for it.
    TypeError
        If the type has Python objects in it: a pointer means nothing to another process.
    """
    array, _ = _allocate(_numpy("empty"), shape, dtype, order)
    return array


def array(obj: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return a copy of `obj` in the arena. It can be written until it is first sent."""
    copy, _ = _copy(_numpy("array"), obj, dtype)
    return copy


def share(array: ArrayLike, *, readonly: bool = False, writable: bool = False) -> NDArray[Any]:
    """Return a copy of `array` in the arena, for any number of tasks. One that is shared like this already is returned
    as it is.

    Parameters
    ----------
    array : array_like
        What to share. Python objects cannot be.
    readonly : bool
        Tasks get read-only views, too. By default what they get is as good as a copy: they may write it, and nobody
        else sees that.
    writable : bool
        Truly shared memory: this process and all tasks read and write the same bytes, at the same time. Nothing keeps
        them out of each other's way.

    Returns
    -------
    ndarray
        Read-only, unless `writable`.

    Raises
    ------
    MemoryError
        If the arena has no room for it.
    TypeError
        If there are Python objects in it.
    """
    if readonly and writable:
        raise ValueError("an array cannot be shared as readonly and as writable")
    mode: _Mode = "open" if writable else "readonly" if readonly else "copy"
    np = _numpy("share")
    if isinstance(array, np.ndarray) and array.flags.writeable == writable and _mode_of(array) == mode:
        shared: NDArray[Any] = array
        return shared
    copy, block = _copy(np, array, None, mode)
    if not writable:
        if block is not None:
            block.freeze()
        copy.flags.writeable = False
    return copy


def _numpy(function: str) -> Any:
    try:
        import numpy
    except ImportError as error:
        text = f"shoal.{function}() needs numpy, which is not installed (pip install numpy)"
        raise ImportError(text, name="numpy") from error
    return numpy


def _allocate(
    np: Any, shape: Any, dtype: DTypeLike | None, order: str, mode: _Mode = "copy"
) -> tuple[NDArray[Any], _ext.Block | None]:
    kind: np.dtype[Any] = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of Python objects cannot lie in shared memory (dtype {kind})")
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    try:
        lengths: tuple[int, ...] = (operator.index(shape),)
    except TypeError:
        lengths = tuple(operator.index(length) for length in shape)
    if min(lengths, default=0) < 0:
        raise ValueError("negative dimensions are not allowed")
    size_bytes = math.prod(lengths) * kind.itemsize
    if size_bytes == 0:
        return np.empty(lengths, kind, order), None
    block = _ext.Block(size_bytes, mode)
    return np.ndarray(lengths, kind, block, order=order), block


def _copy(
    np: Any, obj: ArrayLike, dtype: DTypeLike | None, mode: _Mode = "copy"
) -> tuple[NDArray[Any], _ext.Block | None]:
    source = np.asarray(obj, dtype)
    columns_first = source.flags.f_contiguous and not source.flags.c_contiguous
    copy, block = _allocate(np, source.shape, source.dtype, "F" if columns_first else "C", mode)
    copy[...] = source
    return copy, block


def _mode_of(array: Any) -> str | None:
    """How the arena's block is shared that the array lies in; None if it lies in none."""
    while array is not None:
        if isinstance(array, _ext.Block):
            return array.mode
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return None
