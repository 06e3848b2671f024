# SPDX-License-Identifier: BSD-3-Clause
"""A pool as `Pool.options` shows it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from shoal._limits import Limits
from shoal.pool import Pool


class PoolView(Pool):
    """A pool with limits of its own: what `Pool.options` returns. It begins and ends with the pool."""

    def __init__(self, pool: Pool, asked: Limits | None) -> None:
        self._of = pool
        self._limits = pool._limits if asked is None else asked.over(pool._limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_of"], name)

    @property
    def _state(self) -> str:  # type: ignore[override]
        return self._of._state

    def _resize(self, workers: int) -> None:
        self._of._resize(workers)

    def close(self) -> None:
        """Close the pool."""
        self._of.close()

    def terminate(self) -> None:
        """Terminate the pool."""
        self._of.terminate()

    def join(self) -> None:
        """Wait for the pool's workers to end."""
        self._of.join()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        pass  # the pool itself says so
