# SPDX-License-Identifier: BSD-3-Clause
"""numpy arrays whose memory lies in the arena, so that passing one to a task or back costs a handle, not a copy.

The semantics stay those of a copy. What arrives can be written, and nobody else sees it: the pages that are written
are copied, the others are the one memory that all read. The array itself freezes when it is first sent (writing to it
raises from then on). A view that was made of it before keeps its own flag, but what is written through it is the
sender's alone, and the array is a copy when it is next sent: no task sees what the sender writes later.
"""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeVar, overload

from shoal import _ext

T = TypeVar("T")
_Mode = Literal["copy", "readonly", "open"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from shoal._shared import Shared


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


@overload
def share(  # type: ignore[overload-overlap]
    obj: NDArray[Any], *, readonly: bool = False, writable: bool = False
) -> NDArray[Any]: ...
@overload
def share(obj: ArrayLike, *, readonly: bool = False, writable: Literal[True]) -> NDArray[Any]: ...
@overload
def share(obj: T, *, readonly: bool = False, writable: Literal[False] = False) -> Shared[T]: ...
def share(obj: Any, *, readonly: bool = False, writable: bool = False) -> Any:
    """Return a copy of `obj` in shared memory, for any number of tasks of any number of pools.

    A numpy array gives an array, which is its own handle. Anything else that can be pickled (a data frame, a dict, a
    model, bytes) gives a `Shared`: a handle that arrives as the object where it is an argument of a task, and whose
    `get()` gives it elsewhere. What is shared like this already is returned as it is.

    Parameters
    ----------
    obj : object
        What to share. In an array there can be no Python objects.
    readonly : bool
        Tasks get read-only views of arrays, and of large buffers of other objects. By default they may write them, and
        nobody else sees that.
    writable : bool
        For arrays only (or what becomes one): truly shared memory. This process and all tasks read and write the same
        bytes, at the same time. Nothing keeps them out of each other's way.

    Returns
    -------
    ndarray or Shared
        An array is read-only, unless `writable`.

    Raises
    ------
    MemoryError
        If the arena has no room for it.
    TypeError
        If it is an array with Python objects in it.
    PicklingError
        If it cannot be pickled.
    """
    if readonly and writable:
        raise ValueError("an array cannot be shared as readonly and as writable")
    from shoal._shared import Shared, make

    if type(obj) is Shared and not writable:
        return obj
    if not writable and not _is_plain_array(obj):
        return make(obj, readonly)
    return _share_array(obj, "open" if writable else "readonly" if readonly else "copy", writable)


def _is_plain_array(obj: object) -> bool:
    """An array, and no more than that: not one of a subclass that has more than elements, such as a mask or units."""
    np = sys.modules.get("numpy")
    if np is None or not isinstance(obj, np.ndarray):
        return False
    return type(obj) is np.ndarray or (type(obj).__module__.startswith("numpy") and not hasattr(obj, "mask"))


def _share_array(array: ArrayLike, mode: _Mode, writable: bool) -> NDArray[Any]:
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
