# SPDX-License-Identifier: BSD-3-Clause
"""What can go wrong, and how the failure of a worker becomes an exception of the caller.

A task's own exception arrives as it was raised, with the worker's traceback as its cause. The classes here are for what
went wrong around it: the worker died, something could not travel, the pool is gone.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pickle
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback  # type: ignore[attr-defined]
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, Literal, Protocol

from shoal import _ext

Stage = Literal[
    "call",
    "arguments",
    "result",
    "stopped",
    "initializer",
    "worker_init",
    "cpu_affinity",
    "main module",
    "initializer's arguments",
]
# What a worker sends in place of a result: stage, name of the exception's type, its text, the worker's traceback,
# the exception pickled (None: it could not travel), and why not.
Payload = tuple[Stage, str, str, str, "bytes | None", str]


# What a worker does before its first task; how the exception that ends it is told.
SETUP: dict[Stage, str] = {
    "initializer": "the initializer raised {}",
    "worker_init": "worker_init raised {}",
    "cpu_affinity": "a worker could not be bound to its CPUs: {}",
    "main module": "a worker could not import the main module: {}",
    "initializer's arguments": "a worker could not unpickle the initializer and its arguments: {}",
}


class WorkerLost(BrokenProcessPool):
    """The worker that ran a task died. Other tasks and workers go on; the worker is replaced.

    It is a BrokenProcessPool, although the pool is not broken, for those who catch that of concurrent.futures.

    Attributes
    ----------
    worker : int
        Index of the worker in its pool.
    pid : int
        Its process id.
    signal : int or None
        The signal that killed it; None if it exited, or if nobody could tell.
    exit_code : int or None
        Its exit code, if it exited.
    what : str
        What it was doing, and which element of a map-like call is lost.
    memory : int or None
        The most memory that it had resident, in bytes, as far as anybody knows.
    cause : str
        Why it ended, as far as that can be told: the kernel, for lack of memory; a crash; somebody's signal.
    task : str
        The call that is lost, as `name(arguments)`, short; empty if it is not known.
    crash : str
        Where a crash was, as Python's `faulthandler` has it: the stacks of its threads; empty if there is nothing.
    """

    def __init__(
        self,
        worker: int,
        pid: int,
        signal: int | None,
        exit_code: int | None,
        what: str = "",
        memory: int | None = None,
        cause: str = "",
        task: str = "",
        crash: str = "",
    ) -> None:
        super().__init__(worker, pid, signal, exit_code, what, memory, cause, task, crash)
        self.worker = worker
        self.pid = pid
        self.signal = signal
        self.exit_code = exit_code
        self.what = what
        self.memory = memory
        self.cause = cause
        self.task = task
        self.crash = crash

    def __str__(self) -> str:
        if self.signal is not None:
            end = f"was killed by {_signal_name(self.signal)}"
        elif self.exit_code is not None:
            end = f"ended with exit code {self.exit_code}"
        else:
            end = "is gone (its exit status was collected by somebody else)"
        what = self.what or "while it ran a task"
        lines = [f"worker {self.worker} (pid {self.pid}) {end}{' ' if what.startswith('while') else ': '}{what}"]
        if self.task:
            lines[0] += f": {self.task}"
        if self.cause:
            lines.append(f"likely cause: {self.cause}")
        if self.memory is not None:
            lines.append(f"memory: {self.memory / 2**20:,.1f} MiB at most")
        if self.crash:
            lines.append(self.crash.rstrip().replace("\n", "\n  "))
        return "\n  ".join(lines)


if TYPE_CHECKING or concurrent.futures.TimeoutError is TimeoutError:

    class _AnyTimeout(TimeoutError, multiprocessing.TimeoutError):
        pass

else:  # Python 3.10

    class _AnyTimeout(TimeoutError, multiprocessing.TimeoutError, concurrent.futures.TimeoutError):
        pass


class TaskTimeout(_AnyTimeout):
    """A task took longer than its `timeout`, counted from when a worker took it, and was stopped.

    It is a TimeoutError, a multiprocessing.TimeoutError and a concurrent.futures.TimeoutError.

    Attributes
    ----------
    seconds : float
        How long it had run.
    where : str
        The worker's Python stack at that moment, outermost call first; empty if that is not known.
    killed : bool
        It did not end when it was told to, and its worker was killed.
    """

    def __init__(self, seconds: float, where: str = "", killed: bool = False) -> None:
        super().__init__("timed out")
        self.seconds = seconds
        self.where = where
        self.killed = killed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seconds, self.where, self.killed)

    def __str__(self) -> str:
        how = "did not end when it was told to, and was killed" if self.killed else "was stopped"
        where = f"it was at\n{self.where.rstrip()}" if self.where else "where it was is not known"
        return f"the task {how}, after {self.seconds:.3g} s; {where}"


class TaskStopped(BaseException):
    """Raised inside of a task that is to end: its time is up, or it was cancelled. Let it pass."""


class PoolBroken(BrokenProcessPool):
    """The pool cannot go on: its initializer failed, or its workers died as soon as they were started."""


class PoolTerminated(BrokenProcessPool):
    """The pool was terminated before this task ended."""


class RemoteError(RuntimeError):
    """Stands for a task's exception that could not travel from the worker to the caller.

    Attributes
    ----------
    type_name : str
        Name of the original exception's type, with its module.
    message : str
        The original exception's text.
    traceback : str
        The worker's traceback.
    reason : str
        Why the exception itself could not travel.
    """

    def __init__(self, type_name: str, message: str, traceback: str, reason: str) -> None:
        super().__init__(type_name, message, traceback, reason)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message} (the exception itself could not be sent: {self.reason})"


class ResultEncodingError(MaybeEncodingError, pickle.PicklingError):  # type: ignore[misc]
    """A task's result could not be pickled. The text says which call, and where in the result the culprit sits.

    Attributes
    ----------
    exc : str
        The pickling error.
    value : str
        Whose result it was.
    """

    def __init__(self, exc: str, value: str = "") -> None:
        pickle.PicklingError.__init__(self, exc, value)
        self.exc = exc
        self.value = value

    def __str__(self) -> str:
        return f"the result of {self.value or 'the task'} cannot be pickled: {self.exc}"


class ArgumentDecodingError(pickle.UnpicklingError):
    """A task's function or arguments could not be unpickled in the worker. The cause is what unpickling raised."""


class _Codec(Protocol):
    """An engine, on either side, or the pickler itself."""

    def dumps(self, obj: Any, /) -> bytes: ...
    def loads(self, data: bytes, /) -> Any: ...


class _Pickler:
    """Used where no engine is at hand."""

    dumps = staticmethod(_ext.dumps)
    loads = staticmethod(_ext.loads)


def encode_error(error: BaseException, stage: Stage, codec: _Codec = _Pickler) -> Payload:
    """Describe an exception so that the description surely travels. Called in the worker by the engine."""
    pickled: bytes | None = None
    reason = ""
    if stage == "stopped":
        return _encode_stopped(error, codec)
    if stage != "result":
        try:
            pickled = codec.dumps(error)
            if not isinstance(codec.loads(pickled), BaseException):
                pickled, reason = None, "it unpickles to something that is not an exception"
        except BaseException as problem:  # user code ran: whatever it raised, the worker goes on
            pickled, reason = None, _one_line(problem)
    elif isinstance(error, MemoryError):
        # Nothing is wrong with the object, there is no room for it: the caller gets the MemoryError itself.
        stage, pickled = "call", codec.dumps(MemoryError(_text_of(error)))
    text = _with_notes(error) if stage in ("result", "arguments") else _text_of(error)
    return stage, _type_name(error), text, _traceback_of(error), pickled, reason


def _encode_stopped(error: BaseException, codec: _Codec) -> Payload:
    from shoal._stop import stopped_error

    timeout = stopped_error()
    traceback = _traceback_of(error) if isinstance(error, TaskStopped) else timeout.where
    return "call", _type_name(timeout), str(timeout), traceback, codec.dumps(timeout), ""


def _killed_timeout(seconds: float, pid: int) -> BaseException:
    from shoal._stop import killed_error

    return killed_error(seconds, pid)


def task_error(payload: Payload, what: str = "", codec: _Codec = _Pickler) -> BaseException:
    """Make the caller's exception from what `encode_error` returned. Called in the parent by a pool's engine."""
    return _make_task_error(payload, what, codec, RemoteTraceback)


def future_error(payload: Payload, what: str = "", codec: _Codec = _Pickler) -> BaseException:
    """The same for an executor, whose users know the cause by another type."""
    return _make_task_error(payload, what, codec, _RemoteTraceback)


def _make_task_error(
    payload: Payload, what: str, codec: _Codec, traceback_type: Callable[..., BaseException]
) -> BaseException:
    stage, type_name, message, traceback, pickled, reason = payload
    remote = traceback_type(f'\n"""\n{traceback}"""')
    if stage == "result":
        return _with_cause(ResultEncodingError(f"{type_name}: {message}" if message else type_name, what), remote)
    error: BaseException | None = None
    if pickled is not None:
        try:
            loaded = codec.loads(pickled)
            if isinstance(loaded, BaseException):
                error = loaded
            else:
                reason = "it unpickled to something that is not an exception"
        except Exception as problem:
            reason = f"it did not unpickle here: {_one_line(problem)}"
    if error is None:
        error = RemoteError(type_name, message, traceback, reason)
    _keep_chain(error, remote)
    _with_cause(error, remote)
    if stage == "arguments":
        text = f"the arguments of {what or 'the task'} could not be unpickled in the worker: {type_name}: {message}"
        return _with_cause(ArgumentDecodingError(text), error)
    if stage in SETUP:
        return _with_cause(PoolBroken(SETUP[stage].format(f"{type_name}: {message}")), error)
    return error


def _worker_lost(*told: Any) -> BaseException:
    from shoal._lost import worker_lost

    return worker_lost(*told)


def _hear(message: bytes, worker: int) -> None:
    from shoal._hear import hear

    hear(message)


def pool_broken(reason: BaseException) -> PoolBroken:
    """Make what every call on a broken pool raises, from the exception that broke it. Called by the engine."""
    if isinstance(reason, PoolBroken):
        return reason
    broken = PoolBroken(f"the pool cannot go on: {reason}")
    _with_cause(broken, reason)
    return broken


def _with_cause(error: BaseException, cause: BaseException) -> BaseException:
    # Past the class's own __setattr__: an exception that is a frozen dataclass would refuse.
    BaseException.__dict__["__cause__"].__set__(error, cause)
    return error


def _keep_chain(error: BaseException, remote: BaseException) -> None:
    """What the error was raised from hangs on behind the worker's traceback, which takes its place."""
    for link in ("__cause__", "__context__", "__suppress_context__"):
        value = BaseException.__dict__[link].__get__(error)
        if value:
            setattr(remote, link, value)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _type_name(error: BaseException) -> str:
    cls = type(error)
    return cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "<its text could not be made>"


def _one_line(error: BaseException) -> str:
    """Its type and text, without the advice that a pickling error has on a line of its own."""
    return f"{_type_name(error)}: {_text_of(error)}".partition("\n")[0]


def _with_notes(error: BaseException) -> str:
    """Its text, and the path to the culprit, if that is in a note."""
    notes = getattr(error, "__notes__", ())
    notes = notes if isinstance(notes, (list, tuple)) else ()
    return "\n  ".join([_text_of(error), *(note for note in notes if isinstance(note, str))])


def _traceback_of(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException as problem:
        return f"{_one_line(error)}\n<its traceback could not be made: {_one_line(problem)}>\n"


# What the engine, which is C, takes from here; and in a pool, reducers that were registered with multiprocessing count.
_ext.configure(
    worker_lost=_worker_lost,
    task_error=task_error,
    pool_broken=pool_broken,
    task_timeout=_killed_timeout,
    hear=_hear,
    forking_reducers=ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
)
