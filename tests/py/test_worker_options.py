# SPDX-License-Identifier: BSD-3-Clause
"""What a pool's maker asks for its workers: a name, functions at their beginning and end, a state of their own."""

import multiprocessing
import os
import signal

import pytest

import shoal

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(params=["pool", "executor"])
def make(request):
    """Makes a pool or an executor; the rest of the tests asks both for the same things."""

    def make(workers, method="fork", max_tasks=None, **asked):
        if request.param == "pool":
            return shoal.Pool(workers, context=method, maxtasksperchild=max_tasks, **asked)
        return shoal.ProcessPoolExecutor(workers, method, max_tasks_per_child=max_tasks, **asked)

    return make


def call(pool, function, *args):
    if isinstance(pool, shoal.Pool):
        return pool.apply(function, args)
    return pool.submit(function, *args).result()


def end(pool):
    if isinstance(pool, shoal.Pool):
        pool.close()
        pool.join()
    else:
        pool.shutdown()


def once_per_worker(kind, tmp_path):
    def note(worker):
        (tmp_path / f"{kind}-{worker.pool}-{worker.id}-{os.getpid()}").write_text(repr(sorted(worker.state.items())))

    return note


def notes(tmp_path, kind):
    return sorted(path.name for path in tmp_path.glob(f"{kind}-*"))


def count_up():
    state = shoal.current_worker().state
    state["calls"] = state.get("calls", 0) + 1
    return state["calls"]


# ---- which worker ----


@pytest.mark.parametrize("method", METHODS)
def test_a_task_learns_which_worker_runs_it_and_finds_what_the_last_one_left(no_main, make, method):
    with make(1, method, name="cruncher") as pool:
        worker = call(pool, lambda: shoal.current_worker()._replace(state=None))
        assert worker == (0, "cruncher", None)
        assert [call(pool, count_up) for _ in range(3)] == [1, 2, 3]
        assert call(pool, lambda: multiprocessing.current_process().name) == "cruncher-1"
        assert pool.name == "cruncher"


def test_a_replacement_has_the_id_of_the_one_before_and_a_state_of_its_own(make):
    with make(1) as pool:
        call(pool, count_up)
        with pytest.raises(shoal.WorkerLost):
            call(pool, lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert call(pool, count_up) == 1
        assert call(pool, lambda: shoal.current_worker().id) == 0


def test_a_process_that_is_no_worker_has_none(make):
    def in_a_child():
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, repr(shoal.current_worker()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(read, 100)

    assert shoal.current_worker() is None
    with make(1) as pool:
        assert call(pool, in_a_child) == b"None"
    assert shoal.current_worker() is None


def test_pools_without_a_name_are_numbered(make):
    with make(1) as one, make(1) as other:
        assert one.name.startswith("ShoalPool-")
        assert one.name != other.name
        assert call(one, lambda: shoal.current_worker().pool) == one.name
        assert call(one, lambda: multiprocessing.current_process().name) == "ShoalWorker-1"


def test_a_view_has_the_name_of_its_pool(make):
    with make(1, name="one") as pool:
        assert pool.options(timeout=60).name == "one"


# ---- beginning and end ----


@pytest.mark.parametrize("method", METHODS)
def test_functions_run_at_the_beginning_and_the_end_of_each_worker(no_main, make, method, tmp_path):
    begin, finish = once_per_worker("init", tmp_path), once_per_worker("exit", tmp_path)
    with make(2, method, name="two", worker_init=begin, worker_exit=finish) as pool:
        call(pool, count_up)
        end(pool)
        began, ended = notes(tmp_path, "init"), notes(tmp_path, "exit")
    assert len(began) == 2
    assert [name.replace("init", "exit") for name in began] == ended
    assert sum("calls" in (tmp_path / name).read_text() for name in ended) == 1


def test_worker_init_and_exit_are_called_with_nothing_if_they_want_nothing(make, tmp_path):
    def begin(*more):
        shoal.current_worker().state["given"] = more

    def leave():
        (tmp_path / str(shoal.current_worker().id)).touch()

    with make(1, worker_init=begin, worker_exit=leave) as pool:
        assert call(pool, lambda: shoal.current_worker().state["given"]) == ()
        end(pool)
    assert (tmp_path / "0").exists()


def test_worker_init_comes_after_the_initializer_and_finds_the_state(make):
    def first():
        shoal.current_worker().state["order"] = ["initializer"]

    def second(worker):
        worker.state["order"].append("worker_init")

    with make(1, initializer=first, worker_init=second) as pool:
        assert call(pool, lambda: shoal.current_worker().state["order"]) == ["initializer", "worker_init"]


def test_a_worker_that_has_had_its_number_of_tasks_ends_in_order(make, tmp_path):
    with make(1, max_tasks=1, worker_exit=once_per_worker("exit", tmp_path)) as pool:
        pids = [call(pool, os.getpid) for _ in range(3)]
        end(pool)
    assert {int(name.rpartition("-")[2]) for name in notes(tmp_path, "exit")} >= set(pids)


def test_no_exit_function_runs_in_a_worker_that_is_killed(make, tmp_path):
    with make(1, worker_exit=once_per_worker("exit", tmp_path)) as pool:
        pid = call(pool, os.getpid)
        with pytest.raises(shoal.WorkerLost):
            call(pool, lambda: os.kill(os.getpid(), signal.SIGKILL))
        call(pool, abs, -1)
        end(pool)
    assert not any(name.endswith(f"-{pid}") for name in notes(tmp_path, "exit"))


# ---- what goes wrong there ----


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_init_that_raises_breaks_the_pool_and_says_so(no_main, make, method):
    def raises(worker):
        raise LookupError(f"nothing for worker {worker.id}")

    with make(1, method, worker_init=raises) as pool:
        with pytest.raises(shoal.PoolBroken, match="worker_init raised .*nothing for worker 0"):
            call(pool, abs, -1)


def test_a_worker_init_that_dies_each_time_breaks_the_pool(make):
    with make(1, worker_init=lambda worker: os._exit(3)) as pool:
        with pytest.raises(shoal.PoolBroken, match="as soon as they are started"):
            call(pool, abs, -1)


@pytest.mark.parametrize("method", METHODS)
def test_what_worker_exit_raises_is_written_and_harms_nobody(no_main, make, method, capfd, tmp_path):
    def raises(worker):
        once_per_worker("exit", tmp_path)(worker)
        raise LookupError("nothing to give back")

    with make(1, method, name="bad", worker_exit=raises) as pool:
        assert call(pool, abs, -1) == 1
        processes = list(pool._pool if isinstance(pool, shoal.Pool) else pool._processes.values())
        end(pool)
    assert [process.exitcode for process in processes] == [0]
    assert len(notes(tmp_path, "exit")) == 1
    if method == "forkserver":
        return  # its workers write to where the server does
    said = capfd.readouterr().err
    assert "Exception in worker_exit of bad-1" in said
    assert "LookupError: nothing to give back" in said


def test_a_worker_that_dies_in_its_exit_function_is_replaced_and_nothing_is_lost(make):
    with make(1, max_tasks=1, worker_exit=lambda worker: os.kill(os.getpid(), signal.SIGKILL)) as pool:
        assert [call(pool, abs, -n) for n in range(5)] == list(range(5))


def test_terminate_ends_a_worker_that_hangs_in_its_exit_function(tmp_path):
    def hangs(worker):
        (tmp_path / "hangs").touch()
        signal.pause()

    pool = shoal.Pool(1, maxtasksperchild=1, worker_exit=hangs)
    pid = pool.apply(os.getpid)
    while not (tmp_path / "hangs").exists():
        os.sched_yield()
    pool.terminate()
    pool.join()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_terminate_ends_a_worker_that_hangs_in_its_beginning(tmp_path):
    def hangs(worker):
        (tmp_path / "hangs").touch()
        signal.pause()

    pool = shoal.Pool(1, worker_init=hangs)
    result = pool.apply_async(abs, (-1,))
    while not (tmp_path / "hangs").exists():
        os.sched_yield()
    pool.terminate()
    pool.join()
    with pytest.raises(shoal.PoolTerminated):
        result.get()


@pytest.mark.parametrize("option", ["worker_init", "worker_exit", "name"])
def test_options_of_the_wrong_type_are_refused(make, option):
    with pytest.raises(TypeError, match=option):
        make(1, **{option: 3})
