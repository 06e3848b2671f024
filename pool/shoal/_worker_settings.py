# SPDX-License-Identifier: BSD-3-Clause
"""What a pool's maker asked for its workers, from the constructors' keywords to the worker.

One object for each pool goes all the way: `worker_settings` checks what was asked for, Lifetime and the start of the
workers hand it on, and the worker takes its steps before anything of the user's is there, calls `set_up` before the
first task and `tear_down` after the last. An option is a key of WorkerOptions and a field: of Functions if it is the
user's code or refers to it, else of WorkerSettings. A fork inherits them. Other workers get the plain fields first;
Functions are pickled apart, and unpickled when an error can be told to the parent and `__main__` is there.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import operator
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple, TypedDict

from shoal import _current
from shoal._current import CurrentWorker, Step
from shoal._forward import Forwarding, forwarding
from shoal._limits import ExecutorOptions, Options
from shoal._thread_limits import variables_to_set
from shoal._worker_cpus import CpuSets, cpu_sets, cpus_of_all, cpus_of_each
from shoal.errors import Payload, Stage, encode_error

ROOM_MIN = 32  # workers that every pool can be resized to
WorkerFunction = Callable[[CurrentWorker], object] | Callable[[], object]


class WorkerOptions(TypedDict, total=False):
    """Keywords about workers that `Pool` and `ProcessPoolExecutor` take."""

    name: str | None
    resizable_to: int | None
    worker_init: WorkerFunction | None
    worker_exit: WorkerFunction | None
    max_worker_memory: int | str | None
    cpu_affinity: Any
    worker_threads: int | None
    forward: bool | Collection[str] | None


class PoolOptions(Options, WorkerOptions, total=False):
    """All that `Pool` takes by keyword only."""


class ExecutorPoolOptions(ExecutorOptions, WorkerOptions, total=False):
    """All that `ProcessPoolExecutor` takes by keyword only."""


class Functions(NamedTuple):
    """The user's code that a worker runs by itself."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    worker_init: WorkerFunction | None = None
    worker_exit: WorkerFunction | None = None

    def called(self) -> list[Callable[..., object]]:
        """Return those of them that are called."""
        return [one for one in (self.initializer, self.worker_init, self.worker_exit) if one is not None]


@dataclasses.dataclass
class WorkerSettings:
    """What holds for all workers of a pool."""

    functions: Functions
    name: str  # of the pool
    named: bool  # by its maker: so the workers are called after it
    max_tasks: int  # 0: no limit
    resizable_to: int | None
    max_memory: int  # bytes; 0: no limit
    affinity: Any
    threads_asked: int | None  # 0: whatever the libraries like
    forwarding: Forwarding
    # What `plan` makes of it:
    cpu_sets: CpuSets | None = None
    cpus_each: int = 1
    threads: int = 0
    variables: tuple[str, ...] = ()  # that are set to `threads`
    # In the worker:
    stage: Stage = "initializer"  # what it is at, for the error that ends it
    unbound: OSError | None = None  # why it does not run on its CPUs

    def plain(self) -> WorkerSettings:
        """Return the same without the user's code."""
        return dataclasses.replace(self, functions=Functions(), forwarding=self.forwarding.described())

    def worker_name(self, index: int) -> str:
        """Return how a worker is called: its process, and what it says."""
        return f"{self.name if self.named else 'ShoalWorker'}-{index + 1}"

    def room(self, workers: int) -> int:
        """Return how many workers there is to be room for."""
        if self.resizable_to is not None:
            return max(self.resizable_to, workers)
        return max(ROOM_MIN, 2 * workers, 2 * len(os.sched_getaffinity(0)))

    def plan(self, workers: int) -> None:
        """Before workers are started: there are to be so many of them."""
        self.cpu_sets = cpu_sets(self.affinity, workers)
        self.cpus_each = self.threads_asked or cpus_of_each(self.cpu_sets, workers)
        self.threads = self.cpus_each
        if self.threads_asked == 0 or (self.threads_asked is None and self.threads >= cpus_of_all()):
            self.variables = ()
        else:
            self.variables = variables_to_set(self.threads_asked is not None)

    # ---- in the worker ----

    def common_steps(self) -> list[Step]:
        """Return what a process does before any of the user's code is there, whichever worker it is."""
        return _set_variables(dict.fromkeys(self.variables, str(self.threads))) + self.forwarding.steps()

    def own_steps(self, index: int) -> list[Step]:
        """Return what makes it worker `index`."""
        becoming = _current.becoming(CurrentWorker(index, self.name, {}), self.cpus_each)
        return [becoming] if self.cpu_sets is None else [(self._bind, (self.cpu_sets, index)), becoming]

    def _bind(self, sets: CpuSets, index: int) -> None:
        try:
            os.sched_setaffinity(0, sets[index % len(sets)])
        except OSError as error:  # they were there when the pool was made
            self.unbound = error

    def set_up(self) -> None:
        """Before the first task: what this raises breaks the pool."""
        self.stage = "cpu_affinity"
        if self.unbound is not None:
            raise self.unbound
        self.stage = "initializer"
        if self.functions.initializer is not None:
            self.functions.initializer(*self.functions.initargs)
        self.stage = "worker_init"
        if self.functions.worker_init is not None:
            _call_with_worker(self.functions.worker_init)

    def tear_down(self) -> None:
        """After the last task of a worker that ends in order: what this raises is written to standard error."""
        if self.functions.worker_exit is None:
            return
        try:
            _call_with_worker(self.functions.worker_exit)
        except SystemExit:
            pass
        except BaseException:
            with suppress(Exception):
                print(f"Exception in worker_exit of {self.worker_name(_here().id)}:", file=sys.stderr)
                traceback.print_exc()

    def encode_error(self, error: BaseException, stage: Stage, codec: Any) -> Payload:
        """Describe an exception for the parent; called by the engine."""
        return encode_error(error, self.stage if stage == "initializer" else stage, codec)


def _set_variables(variables: dict[str, str]) -> list[Step]:
    data = getattr(os.environ, "_data", None)  # what `os.environ` is on Linux: a dict of bytes
    if not isinstance(data, dict):
        return [(os.environ.update, (variables,))]
    encoded = {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
    return [(data.update, (encoded,)), *((os.putenv, one) for one in encoded.items())]


def _here() -> CurrentWorker:
    worker = _current.current_worker()
    assert worker is not None
    return worker


def _call_with_worker(function: Callable[..., object]) -> None:
    """Call it without an argument if it can be called so, else with the worker."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        function(_here())
    except ValueError:  # one of C that does not say what it takes
        function()
    else:
        function()


_numbers = itertools.count(1)
UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
UNITS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


def _bytes(asked: int | str | None) -> int:
    """Return what `max_worker_memory` says; 0: there is no limit."""
    if asked is None:
        return 0
    if isinstance(asked, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?\s*", asked.lower())
        if found is None:
            raise ValueError(f"max_worker_memory must be a number of bytes or like '2GB' or '500 MiB', not {asked!r}")
        count = int(float(found[1]) * UNITS[found[2]])
    elif isinstance(asked, bool):
        raise TypeError("max_worker_memory must be a number of bytes or a string, not bool")
    else:
        count = operator.index(asked)
    if not 0 < count < 1 << 63:
        raise ValueError(f"max_worker_memory must be more than 0 bytes and fit into 63 bits, not {asked!r}")
    return count


def worker_settings(
    asked: Any, initializer: Any, initargs: Any, max_tasks: int | None
) -> tuple[WorkerSettings, dict[str, Any]]:
    """Check what a user asked for; return it, and what of `asked` is not about workers."""
    own = {key: value for key, value in asked.items() if key in WorkerOptions.__annotations__}
    others = {key: value for key, value in asked.items() if key not in own}
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    name = own.get("name")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    for option in ("worker_init", "worker_exit"):
        if own.get(option) is not None and not callable(own[option]):
            raise TypeError(f"{option} must be a callable")
    resizable_to = own.get("resizable_to")
    if resizable_to is not None:
        resizable_to = operator.index(resizable_to)
    threads = own.get("worker_threads")
    if threads is not None and (isinstance(threads, bool) or operator.index(threads) < 0):
        raise ValueError(f"worker_threads must be 1 or more, or 0 for as many as the libraries like, not {threads!r}")
    cpu_sets(own.get("cpu_affinity"), 1)  # an error is for whoever makes the pool, not for its first call
    functions = Functions(initializer, tuple(initargs), own.get("worker_init"), own.get("worker_exit"))
    settings = WorkerSettings(
        functions,
        name=name or f"ShoalPool-{next(_numbers)}",
        named=bool(name),
        max_tasks=max_tasks or 0,
        resizable_to=resizable_to,
        max_memory=_bytes(own.get("max_worker_memory")),
        affinity=own.get("cpu_affinity"),
        threads_asked=threads,
        forwarding=forwarding(own.get("forward")),
    )
    return settings, others
