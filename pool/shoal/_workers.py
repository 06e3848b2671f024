# SPDX-License-Identifier: BSD-3-Clause
"""What `Pool` and `ProcessPoolExecutor` have in common about their workers."""

from __future__ import annotations

from shoal._worker_settings import WorkerSettings


class Workers:
    """A pool's name, and what can be done with its workers while it runs."""

    _settings: WorkerSettings

    @property
    def name(self) -> str:
        """What the pool is called: the `name` that its maker gave, else one with a number."""
        return self._settings.name
