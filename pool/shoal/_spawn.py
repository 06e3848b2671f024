# SPDX-License-Identifier: BSD-3-Clause
"""Workers that are not forked from this process: the start methods `spawn` and `forkserver` of multiprocessing.

The problem: a fork copies a process with the locks that its other threads hold just then, and a GPU's state does not
survive it. A process that is started anew has nothing of the pool.

The protocol: multiprocessing's own machinery starts the process (its command line, its forkserver, its resource
tracker, `set_executable`, frozen programs) and passes descriptors: the pool's memory, the pipe that ends the worker
with us, the bells (`Engine.handover`). In the child, `multiprocessing.spawn` unpickles a SpawnedWorker, which attaches
to the pool. Only then, when an error can be told to the parent, it imports the main module as `__mp_main__` and
unpickles and runs the initializer; then it serves.

The initializer and its arguments are pickled once, when the pool is made, as what a new process inherits: locks, queues
and connections of multiprocessing may be among them, functions and classes of a script go by value.

What it costs: the start of an interpreter for each worker (spawn), or a fork of one that has Shoal imported
(forkserver).
What it does not do: start workers for a pool that a main module makes while a worker imports it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import functools
import io
import mmap
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context, forkserver, process, resource_tracker, spawn, util
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

from shoal import _ext, _stop
from shoal._crash import CrashFile, write_there
from shoal._imported import let_import, take_main
from shoal._settle import Parent, StandardInput, common_steps, own_steps, take
from shoal._shared import Shared, reduce_for_start
from shoal._worker import HELD_BACK, serve_and_exit
from shoal._worker_settings import WorkerSettings

# What multiprocessing.spawn prepares before anything of Shoal can be imported; the rest when errors can be reported.
FIRST = ("name", "authkey", "sys_path")
# The kernel takes 253 descriptors in one message, and multiprocessing adds four: what is more comes through a socket.
DESCRIPTORS_MAX = 200
# What a child of the forkserver has from it: this, and what the first function by value would import.
PRELOADED = (__name__, "shoal._rebuild")


class Descriptors:
    """Duplicates that live as long as this object."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, fd: int) -> int:
        """Duplicate `fd`; return its place in the list."""
        self.numbers.append(os.dup(fd))
        return len(self.numbers) - 1

    def __del__(self) -> None:
        for number in self.numbers:
            os.close(number)


class Received:
    """In a stream: a descriptor that is handed over beside it. What `multiprocessing.reduction.DupFd` gives."""

    here: list[int] = []  # in the worker: what it was given

    def __init__(self, place: int) -> None:
        self._place = place

    def detach(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        return os.dup(self.here[self._place])


class Inheriting:
    """What multiprocessing's reducers see as the process that is being started."""

    DupFd = Received

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors

    def duplicate_for_child(self, fd: int) -> int:
        """Keep `fd` for the workers; return its place."""
        return self._descriptors.add(fd)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While things are pickled for the workers."""
        before = context.get_spawning_popen()
        context.set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            yield
        finally:
            context.set_spawning_popen(before)


class SpawnStart:
    """How a pool starts workers that are not its forks: called by the engine, also for replacements."""

    def __init__(self, method: str, settings: WorkerSettings) -> None:
        self._settings = settings
        self.crashes = CrashFile()
        self._launch = _spawn if method == "spawn" else _ask_forkserver
        self._signal_mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        self._descriptors = Descriptors()
        self._inheriting = Inheriting(self._descriptors)
        self._setup = Descriptors()
        self._handles: list[Shared[Any]] = []  # of the initializer's arguments: they live as long as the pool

    def prepare(self, engine: _ext.Engine) -> None:
        """Before the first start: what all workers of this engine get."""
        rest = _preparation("")[1]  # raises in a worker that is importing its main module
        path = rest.get("init_main_from_path")
        if "init_main_from_name" in rest:
            path = getattr(sys.modules["__main__"], "__file__", None)
        let_import(engine, self._settings.functions.called(), path)
        with self._inheriting.starting():
            reducers = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
            reducers = {**reducers, Shared: reduce_for_start(self._handles)}
            setup = engine.dumps(self._settings.functions, reducers)
        with open(_memory(setup), "rb") as file:
            self._setup.add(file.fileno())

    def __call__(self, engine: _ext.Engine, index: int) -> int | tuple[int, int]:
        """Start worker `index`; return its pid, and for a child of the forkserver where to read its exit status."""
        self.crashes.wipe(index)
        handover, descriptors = engine.handover(index)
        first, rest = _preparation(self._settings.worker_name(index))
        worker = SpawnedWorker()
        worker.index = index
        worker.settings = self._settings.plain()
        worker.parent = Parent.current()
        worker.signal_mask = self._signal_mask
        worker.preparation = rest
        worker.handover = handover
        worker.engine_count = len(descriptors)
        worker.has_crash_file = self.crashes.descriptor >= 0
        descriptors += self._setup.numbers
        if worker.has_crash_file:
            descriptors.append(self.crashes.descriptor)
        descriptors += self._descriptors.numbers
        util._flush_std_streams()  # type: ignore[attr-defined]
        return self._launch(self._inheriting, first, worker, descriptors)


class SpawnedWorker:
    """What `multiprocessing.spawn` unpickles and runs in the new process."""

    index: int
    settings: WorkerSettings
    parent: Parent
    signal_mask: list[int]
    preparation: dict[str, Any]
    handover: bytes
    engine_count: int
    has_crash_file: bool
    descriptors: list[int]  # spawn: their numbers. forkserver: empty, they are what it has received
    messages: int = 0  # forkserver: more of them, in the socket that is the last one

    def _bootstrap(self, parent_sentinel: int) -> NoReturn:
        """Serve until told to stop. Never returns."""

        def serve() -> int:
            os.close(parent_sentinel)
            received = self._receive()
            take(common_steps(self.settings, self.signal_mask, StandardInput.new(), forked=False))
            take(own_steps(self.index, self.settings, self.parent))
            engine = _ext.attach(self.handover, received[: self.engine_count], self.index)
            for number in received[: self.engine_count]:
                os.close(number)
            setup, *Received.here = received[self.engine_count :]
            if self.has_crash_file:
                crash_file = Received.here.pop(0)
                write_there(crash_file, self.index)
                os.close(crash_file)
            settings = self.settings
            set_up = functools.partial(self._set_up, engine, setup)
            return engine.work(self.index, set_up, settings.encode_error, _stop.arm, settings.max_memory)

        serve_and_exit(serve, self.settings)

    def _receive(self) -> list[int]:
        received = self.descriptors or list(forkserver.get_inherited_fds() or ())
        if self.messages > 0:
            with socket.socket(fileno=received.pop()) as rest:
                for _ in range(self.messages):
                    received += socket.recv_fds(rest, 1, DESCRIPTORS_MAX)[1]
        for number in received:
            os.set_inheritable(number, False)
        return received

    def _set_up(self, engine: _ext.Engine, setup: int) -> None:
        current = process.current_process()
        current._inheriting = True  # type: ignore[attr-defined]
        try:
            self.settings.stage = "main module"
            spawn.prepare(self.preparation)
            take_main(engine)
            self.settings.forwarding.handlers_so_far()
            self.settings.stage = "initializer's arguments"
            with mmap.mmap(setup, 0, prot=mmap.PROT_READ) as stream:
                self.settings.functions = engine.loads(stream)
        finally:
            del current._inheriting  # type: ignore[attr-defined]
            for number in (setup, *Received.here):
                os.close(number)
            Received.here = []
        self.settings.set_up()


# ---- the two ways ----


def _spawn(inheriting: Inheriting, first: dict[str, Any], worker: SpawnedWorker, descriptors: list[int]) -> int:
    tracker: Any = resource_tracker.getfd()  # before signals are blocked: it may start its process
    worker.descriptors = descriptors
    # Not a pipe, as multiprocessing has it: writing to one blocks for ever if the child dies before it reads.
    data = _memory(_dump(inheriting, first, worker))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        program: Any = spawn.get_executable()
        command: list[Any] = spawn.get_command_line(tracker_fd=tracker, pipe_handle=data)
        return util.spawnv_passfds(program, command, [tracker, data, *descriptors])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(data)


def _ask_forkserver(
    inheriting: Inheriting, first: dict[str, Any], worker: SpawnedWorker, descriptors: list[int]
) -> tuple[int, int]:
    _ensure_forkserver()
    worker.descriptors = []
    # Its children come with the signal mask of the server: have them blocked by the first that they unpickle.
    first = {**first, "signals": _Blocked()}
    with _in_portions(descriptors) as (portion, worker.messages):
        data = _dump(inheriting, first, worker)
        status, write = forkserver.connect_to_new_process(portion)
    try:
        with open(write, "wb") as file:
            file.write(data)
        return forkserver.read_signed(status), status
    except BaseException as error:
        os.close(status)
        if isinstance(error, (EOFError, BrokenPipeError)):
            raise ChildProcessError("multiprocessing's forkserver ended before it had started a worker") from error
        raise


@contextmanager
def _in_portions(descriptors: list[int]) -> Iterator[tuple[list[int], int]]:
    """What one message can take of them; the last of these is a socket with so many messages of the rest, if any is."""
    if len(descriptors) <= DESCRIPTORS_MAX:
        yield descriptors, 0
        return
    ours, theirs = socket.socketpair()
    with ours, theirs:
        starts = range(DESCRIPTORS_MAX, len(descriptors), DESCRIPTORS_MAX)
        for start in starts:
            socket.send_fds(ours, [b"."], descriptors[start : start + DESCRIPTORS_MAX])
        yield [*descriptors[:DESCRIPTORS_MAX], theirs.fileno()], len(starts)


def _ensure_forkserver() -> None:
    """Start multiprocessing's forkserver if it does not run, with Shoal imported, so that its children come quickly."""
    server: Any = forkserver._forkserver
    preload = server._preload_modules
    if __name__ not in preload:
        server._preload_modules = [*preload, *PRELOADED]
    try:
        forkserver.ensure_running()
    finally:
        server._preload_modules = preload


class _Blocked:
    """Unpickled, it blocks signals in the process that does so."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _signal.pthread_sigmask, (int(signal.SIG_BLOCK), sorted(map(int, HELD_BACK)))


def _preparation(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What multiprocessing tells a new process: what it needs to import Shoal, and the rest."""
    data = spawn.get_preparation_data(name)
    path = data.get("init_main_from_path")
    if path is not None and not os.path.isfile(path) and not os.path.isdir(path):
        del data["init_main_from_path"]  # standard input, or a cell of a notebook: nothing to import
    first = {key: data.pop(key) for key in FIRST if key in data}
    return first, data


def _dump(inheriting: Inheriting, first: dict[str, Any], worker: SpawnedWorker) -> bytes:
    file = io.BytesIO()
    with inheriting.starting():
        for value in (first, worker):
            ForkingPickler(file).dump(value)
    return file.getvalue()


def _memory(data: bytes) -> int:
    """Return the descriptor of a memory file with this content, to be read from its start."""
    number = os.memfd_create("shoal-start", os.MFD_CLOEXEC)
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(number, 0, os.SEEK_SET)
    except BaseException:
        os.close(number)
        raise
    return number
