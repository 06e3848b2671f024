# SPDX-License-Identifier: BSD-3-Clause
"""What pools and executors, and views of them, have in common for those who look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal import _ext
    from shoal._stats import PoolStats


class Seen:
    """A pool that says what it has done."""

    def stats(self) -> PoolStats:
        """Return what this pool has done so far, and where its workers' time went.

        It is always counted, and asking waits for nobody. A pool that has ended says what was so then. In a process
        that was forked from the pool's, it raises RuntimeError.
        """
        from shoal._stats import gather

        return gather(self._seen_name(), self._seen_engine())

    def _seen_name(self) -> str:
        return type(getattr(self, "_of", self)).__name__

    def _seen_engine(self) -> _ext.Engine | None:
        engine: _ext.Engine | None = getattr(self, "_engine", None)
        return engine

    def __str__(self) -> str:
        try:
            return str(self.stats())
        except RuntimeError:  # a forked child: the pool is its parent's
            return repr(self)
