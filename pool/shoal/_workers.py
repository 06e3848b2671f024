# SPDX-License-Identifier: BSD-3-Clause
"""What `Pool` and `ProcessPoolExecutor` have in common about their workers."""

from __future__ import annotations

from collections.abc import Callable

from shoal._lifetime import worker_count
from shoal._worker_settings import WorkerSettings


class Workers:
    """A pool's name, and what can be done with its workers while it runs."""

    _settings: WorkerSettings
    _resize: Callable[[int], None]

    @property
    def name(self) -> str:
        """What the pool is called: the `name` that its maker gave, else one with a number."""
        return self._settings.name

    def resize(self, workers: int) -> None:
        """Have so many workers from now on, while calls are under way.

        Those that come are started before this returns. Those that go, the ones with the highest ids, end after the
        task or chunk that they are at, in order (`worker_exit`); nothing that was submitted is lost. This does not wait
        for them.

        Parameters
        ----------
        workers : int
            At least 1. The most is what there was room for when the pool was made: `resizable_to`, else 32 or twice as
            many as it had then, or as there are CPUs, if that is more.

        Raises
        ------
        ValueError
            If there is no room for so many.
        """
        self._resize(worker_count(workers, "a pool has at least 1 worker"))
