# SPDX-License-Identifier: BSD-3-Clause
"""What a pickle is made of: `explain(obj)` for an object, `explain_stream(data)` for a pickle that is there already.

The pickle is read as a tree (`shoal._explain_stream`); nothing in it is imported, called or made, so a file from
elsewhere is safe to explain. Why something is by value is told as far as its name tells it; for an object, this
process's modules are asked, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shoal import _ext
from shoal._parts import Part

__all__ = ["Part", "explain", "explain_stream"]


def explain(obj: Any, protocol: int | None = None, *, out_of_band: bool = False) -> Part:
    """Pickle an object and tell what the pickle is made of, and why.

    Parameters
    ----------
    obj : object
        Anything that `dumps` takes. Otherwise what `dumps` raises is raised: it names the path to the culprit.
    protocol : int or None
        As for `dumps`.
    out_of_band : bool
        Leave large buffers out of the pickle, as a pool does; they are told with their sizes.

    Returns
    -------
    Part
        The whole. `print` it, iterate over it (largest first), ask its `size`, `kind`, `name`, `why`, `by`, `reason`.

    Examples
    --------
    >>> table = bytes(50_000)
    >>> print(shoal.explain(lambda: len(table)).children[0].line())
    global 'table': bytes of 50,000
    """
    from shoal._explain_reasons import add_reasons
    from shoal._explain_stream import read

    buffers: list[Any] = []
    data = _ext.dumps(obj, protocol, buffer_callback=buffers.append if out_of_band else None)
    (whole,) = read(data, [buffer.raw() for buffer in buffers])
    add_reasons(whole)
    return whole


def explain_stream(data: Any, buffers: Sequence[Any] = ()) -> list[Part]:
    """Tell what pickles are made of that are there already, from any pickler. Nothing in them is run or imported.

    Parameters
    ----------
    data : bytes-like
        One pickle, or several one after the other.
    buffers : sequence of bytes-like
        Its out-of-band buffers, to tell their sizes.

    Returns
    -------
    list of Part
        One for each pickle.

    Raises
    ------
    UnpicklingError
        This is no pickle. The text says at which byte that was seen.
    """
    from shoal._explain_reasons import add_told_reasons
    from shoal._explain_stream import read

    roots = read(data, buffers)
    for root in roots:
        add_told_reasons(root)
    return roots
