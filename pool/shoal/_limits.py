# SPDX-License-Identifier: BSD-3-Clause
"""Limits of calls: how long a task may take, how often it is tried, what an error or a cancellation does.

They are given per call, to `options()`, or to the constructor of a pool; what is nearer to the call counts.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from shoal import _ext

if TYPE_CHECKING:
    from shoal._progress import Bar
    from shoal._random_streams import Seed, Seeds

Backoff = float | Callable[[int], float]
FOR_EVER_S = 1e9  # 30 years: longer is no limit, and would not fit into the clock


class Options(TypedDict, total=False):
    """Keywords of `options()` and of those who take the same."""

    timeout: float | None
    grace: float | None
    retries: int | None
    retry_if: Callable[[BaseException], object] | None
    backoff: Backoff | None
    abort_on_error: bool | None
    progress: Any
    seed: Any


class ExecutorOptions(Options, total=False):
    """The same, and what only an executor needs to be told."""

    cancel_running: bool | None


class Limits(NamedTuple):
    """What was asked for; None: nothing was."""

    timeout: float | None = None
    grace: float | None = None
    retries: int | None = None
    retry_if: Callable[[BaseException], object] | None = None
    backoff: Backoff | None = None
    abort_on_error: bool | None = None
    cancel_running: bool | None = None
    progress: Any = None
    seed: Seed | Seeds | None = None

    def over(self, others: Limits | None) -> Limits:
        """These; where nothing was asked for here, the others."""
        if others is None:
            return self
        nearest = [other if one is None else one for one, other in zip(self, others, strict=True)]
        return Limits._make(nearest)

    def bar(self, engine: _ext.Engine, *inputs: object) -> Bar | None:
        """Begin the bar of a call over these inputs, if one was asked for."""
        if self.progress is None or self.progress is False:
            return None
        from shoal._progress import Bar, length_of

        return Bar(self.progress, length_of(inputs), engine)

    @property
    def retried(self) -> bool:
        """Whether a call may have to be sent again."""
        return bool(self.retries)

    def seeded(self, function: Callable[..., Any], elements: bool = False) -> Callable[..., Any]:
        """Return what is sent in the place of the function of a call, or of the elements of a map-like one."""
        if self.seed is None:
            return function
        from shoal._random_streams import Seeded

        return Seeded(function, self.seed.of_call(), elements)

    def of_elements(self) -> Callable[[], Limits]:
        """Return what gives the limits of the next element, for a call whose elements are calls of their own."""
        if self.seed is None:
            return lambda: self
        seed, numbers = self.seed.of_call(), itertools.count()
        return lambda: self._replace(seed=seed.child(next(numbers)))

    def apply_to(self, call: _ext.Item | _ext.Group) -> None:
        """Say so to the engine, before the call is submitted."""
        timeout = self.timeout
        timeout_ns = 0 if timeout is None or timeout > FOR_EVER_S else max(1, int(timeout * 1e9))
        grace_ns = -1 if self.grace is None else int(min(self.grace, FOR_EVER_S) * 1e9)
        if isinstance(call, _ext.Group):
            call._limit(timeout_ns, grace_ns, bool(self.abort_on_error))
        else:
            call._limit(timeout_ns, grace_ns)


def with_defaults(given: Limits | None, defaults: Limits | None) -> Limits:
    """What was given; where nothing was, the defaults."""
    return (given or Limits()).over(defaults)


def standing(given: Limits | None) -> Limits | None:
    """What a pool or a view was given: its seed is that of all its calls."""
    if given is None or given.seed is None:
        return given
    from shoal._random_streams import Seeds

    return given._replace(seed=Seeds(given.seed.of_call()))


def options(
    timeout: Any = None,
    grace: Any = None,
    retries: Any = None,
    retry_if: Any = None,
    backoff: Any = None,
    abort_on_error: Any = None,
    cancel_running: Any = None,
    progress: Any = None,
    seed: Any = None,
) -> Limits | None:
    """Check what a user gave; None if that was nothing."""
    given = Limits(timeout, grace, retries, retry_if, backoff, abort_on_error, cancel_running, progress, seed)
    if all(one is None for one in given):
        return None
    if timeout is not None and not _seconds("timeout", timeout) > 0:
        raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r}")
    if grace is not None and _seconds("grace", grace) < 0:
        raise ValueError(f"grace must be 0 seconds or more, not {grace!r}")
    if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int)):
        raise TypeError(f"retries must be an integer, not {type(retries).__name__}")
    if retries is not None and retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
    if retry_if is not None and not callable(retry_if):
        raise TypeError("retry_if must be a callable that takes an exception")
    if backoff is not None and not callable(backoff) and _seconds("backoff", backoff) < 0:
        raise ValueError(f"backoff must be 0 seconds or more, not {backoff!r}")
    if not (progress is None or isinstance(progress, bool | str) or callable(progress)):
        raise TypeError(
            "progress must be True, a description, or a class that makes a bar, such as tqdm.tqdm, "
            f"not {type(progress).__name__}"
        )
    if seed is None:
        return given
    from shoal._random_streams import seed_from

    return given._replace(seed=seed_from(seed))


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    seconds = float(value)
    if math.isnan(seconds):
        raise ValueError(f"{name} must be a number of seconds, not nan")
    return seconds
