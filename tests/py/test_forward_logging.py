# SPDX-License-Identifier: BSD-3-Clause
"""Log records of workers go through the parent's handlers: levels, order, tracebacks, what cannot travel, handlers
that raise, forked workers' inherited handlers, workers with handlers of their own."""

import logging
import multiprocessing
import os
import threading

import pytest

import shoal
from tasks import TIMEOUT, kill_self, works

pytestmark = pytest.mark.leakcheck
LOG = logging.getLogger("shoal.test")
METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(scope="module", autouse=True)
def helpers():
    """Processes that multiprocessing keeps from the first start on."""
    for method in METHODS[1:]:
        with shoal.Pool(1, context=method) as pool:
            pool.apply(abs, (1,))


class Collecting(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records, self.pids = [], set()

    def emit(self, record):
        self.records.append(record)
        self.pids.add(os.getpid())

    def texts(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def heard():
    handler, level = Collecting(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    yield handler
    LOG.removeHandler(handler)
    LOG.setLevel(level)


def say(text, *args, level=logging.INFO, name=LOG.name, **keywords):
    logging.getLogger(name).log(level, text, *args, **keywords)


def say_and_return(n):
    say("item %d", n)
    return n


@pytest.mark.parametrize("method", METHODS)
def test_a_record_goes_through_the_parents_handlers(heard, method):
    with shoal.Pool(1, context=method) as pool:
        pool.apply(say, ("%s and %d", "this", 2))
        (record,) = heard.records
        assert (record.getMessage(), record.levelname, record.name) == ("this and 2", "INFO", LOG.name)
        assert (record.processName, record.process) == (pool._pool[0].name, record.process)
        assert record.process in {worker.pid for worker in pool._pool}
        assert record.funcName == "say"
    assert heard.pids == {os.getpid()}


@pytest.mark.parametrize("method", METHODS)
def test_levels_are_the_parents(heard, method):
    child = logging.getLogger(f"{LOG.name}.child")
    child.setLevel(logging.ERROR)
    try:
        with shoal.Pool(1, context=method) as pool:
            pool.apply(say, ("low",), {"level": logging.DEBUG})
            pool.apply(say, ("not enough",), {"level": logging.WARNING, "name": child.name})
            pool.apply(say, ("enough",), {"level": logging.ERROR, "name": child.name})
            pool.apply(say, ("inherited",))
            LOG.setLevel(logging.WARNING)
            pool.apply(say, ("too low by now",))
    finally:
        child.setLevel(logging.NOTSET)
    assert heard.texts() == ["enough", "inherited"]


def test_filters_of_the_parents_loggers_and_handlers_count(heard):
    with shoal.Pool(1) as pool:
        LOG.addFilter(no_secret := lambda record: "secret" not in record.getMessage())
        heard.addFilter(lambda record: "private" not in record.getMessage())
        try:
            for text in ("open", "a secret", "private"):
                pool.apply(say, (text,))
        finally:
            LOG.removeFilter(no_secret)
    assert heard.texts() == ["open"]


def test_records_come_in_order_and_before_the_result(heard):
    with shoal.Pool(1) as pool:
        for n in range(5):
            assert pool.apply(say_and_return, (n,)) == n
            assert heard.texts()[-1] == f"item {n}"
        pool.map(say_and_return, range(5, 200))
    assert heard.texts() == [f"item {n}" for n in range(200)]


def test_all_records_are_there_when_join_or_shutdown_returns(heard):
    pool = shoal.Pool(2)
    for n in range(100):
        pool.apply_async(say_and_return, (n,))
    pool.close()
    pool.join()
    assert sorted(heard.texts()) == sorted(f"item {n}" for n in range(100))
    with shoal.ProcessPoolExecutor(2) as executor:
        for n in range(100, 200):
            executor.submit(say_and_return, n)
    assert sorted(heard.texts()) == sorted(f"item {n}" for n in range(200))


def test_records_come_while_the_parent_does_not_call(heard):
    gate, told = os.pipe(), threading.Event()
    heard.emit = lambda record: told.set()
    with shoal.Pool(1) as pool:
        result = pool.apply_async(lambda: (say("now"), os.read(gate[0], 1)))
        assert told.wait(TIMEOUT)
        assert not result.ready()
        os.write(gate[1], b".")
        result.get(TIMEOUT)
    for descriptor in gate:
        os.close(descriptor)


def test_a_traceback_travels_as_text(heard):
    def fail():
        try:
            raise KeyError("missing")
        except KeyError:
            LOG.exception("it failed", stack_info=True)

    with shoal.Pool(1) as pool:
        pool.apply(fail)
    (record,) = heard.records
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("it failed\nTraceback (most recent call last):")
    assert "KeyError: 'missing'\nStack (most recent call last):" in text


def test_what_cannot_be_pickled_does_not_stop_a_record(heard):
    def task():
        class Local:
            def __reduce__(self):
                raise RuntimeError("never")

        LOG.info("args %s", threading.Lock(), extra={"lock": threading.Lock(), "local": Local(), "kept": [1, {"a": 2}]})

    def fails_to_load():
        class Fails:
            def __reduce__(self):
                return int, ("no number",)

        LOG.info("still here", extra={"fails": Fails()})

    with shoal.Pool(1) as pool:
        pool.apply(task)
        pool.apply(fails_to_load)
        assert works(pool)
    first, second = heard.records
    assert first.getMessage().startswith("args <unlocked _thread.lock object")
    assert (first.lock, first.kept) == ("<lock object>", [1, {"a": 2}])
    assert "Local object" in first.local
    assert second.getMessage() == "still here"


def test_a_message_that_cannot_be_made_is_reported_where_it_was_said(heard, capfd):
    with shoal.Pool(1, forward=["logging"]) as pool:
        with pytest.raises(TypeError):
            pool.apply(say, ("%d", "text"))
        assert works(pool)
    assert heard.records == []


def test_a_handler_that_raises_harms_neither_the_pool_nor_other_records(heard, monkeypatch):
    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: seen.append(str(unraisable.exc_value)))

    class Raising(logging.Handler):
        def emit(self, record):
            if "bad" in record.getMessage():
                raise OSError(record.getMessage())

    LOG.addHandler(raising := Raising())
    try:
        with shoal.Pool(1) as pool:
            for text in ("good", "bad", "good again"):
                pool.apply(say, (text,))
            assert works(pool)
    finally:
        LOG.removeHandler(raising)
    assert heard.texts() == ["good", "bad", "good again"]
    assert seen == ["bad"]


def test_a_handler_may_use_the_pool(heard):
    with shoal.Pool(2) as pool:
        results = []
        heard.emit = lambda record: results.append(pool.apply(abs, (-len(results),)))
        for _ in range(10):
            pool.apply(say, ("again",))
        pool.map(say, ["x"] * 50)
        assert works(pool)
        pool.close()
        pool.join()
    assert results == list(range(60))


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a lock of its own stays held in the child")
def test_a_worker_may_be_forked_while_another_thread_logs(heard):
    stop = threading.Event()

    def log_on():
        while not stop.is_set():
            LOG.debug("from a thread")

    LOG.setLevel(logging.DEBUG)
    thread = threading.Thread(target=log_on)
    thread.start()
    try:
        for _ in range(5):
            with shoal.Pool(2) as pool:
                pool.map(say, [f"text {n}" for n in range(10)])
    finally:
        stop.set()
        thread.join()
    assert sum(text.startswith("text") for text in heard.texts()) == 50


def test_the_parent_may_hold_a_handlers_lock_while_it_waits_and_while_it_joins(heard):
    with shoal.Pool(1) as pool:
        with heard.lock:
            assert pool.apply_async(say_and_return, (1,)).get(TIMEOUT) == 1
            pool.map_async(say_and_return, range(2, 20)).get(TIMEOUT)
        pool.close()
        pool.join()
    assert heard.texts() == [f"item {n}" for n in range(1, 20)]


def test_inherited_handlers_are_not_run_in_a_forked_worker(tmp_path):
    path = tmp_path / "log.txt"
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(processName)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        with shoal.Pool(4, name="crew") as pool:
            pool.map(say_and_return, range(500), chunksize=1)
    finally:
        LOG.removeHandler(handler)
        handler.close()
    lines = path.read_text().splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines) == sorted(f"item {n}" for n in range(500))
    assert {line.split(" ", 1)[0] for line in lines} <= {f"crew-{n}" for n in range(1, 5)}


def test_what_a_handler_of_the_workers_own_takes_is_not_sent(heard):
    queue = multiprocessing.SimpleQueue()

    def set_up():
        class Own(logging.Handler):
            def emit(self, record):
                queue.put(record.getMessage())

        LOG.addHandler(Own())

    with shoal.Pool(1, initializer=set_up) as pool:
        pool.apply(say, ("mine",))
    assert queue.get() == "mine"
    assert heard.records == []
    queue.close()


def test_it_can_be_turned_off(heard):
    with shoal.Pool(1, forward=False) as pool:
        pool.apply(say, ("unheard",))
    with shoal.ProcessPoolExecutor(1, forward=["stdout"]) as executor:
        executor.submit(say, "unheard").result(TIMEOUT)
    assert heard.records == []


@pytest.mark.parametrize("wrong", ["logging", ["nothing"], 3, {"logging": 1, "x": 2}])
def test_what_forward_takes_is_checked(wrong):
    with pytest.raises(ValueError, match="forward must be"):
        shoal.Pool(1, forward=wrong)
    with pytest.raises(ValueError, match="forward must be"):
        shoal.ProcessPoolExecutor(1, forward=wrong)


def test_what_a_worker_said_before_it_was_killed_is_heard(heard):
    def say_and_die():
        for n in range(20):
            say("last words %d", n)
        kill_self()

    with shoal.Pool(1) as pool:
        with pytest.raises(shoal.WorkerLost):
            pool.apply(say_and_die)
        assert heard.texts() == [f"last words {n}" for n in range(20)]
        assert works(pool)


def test_a_pool_in_a_worker_hands_on_what_its_workers_say(heard):
    def outer():
        with shoal.Pool(1, name="inner") as inner:
            inner.apply(say, ("from within",))

    with shoal.Pool(1) as pool:
        pool.apply(outer)
    (record,) = heard.records
    assert (record.getMessage(), record.processName) == ("from within", "inner-1")


def test_initializers_and_exit_functions_are_heard(heard):
    with shoal.Pool(1, initializer=say, initargs=("begin",), worker_exit=lambda worker: say("end")) as pool:
        pool.apply(abs, (1,))
        pool.close()
        pool.join()
    assert heard.texts() == ["begin", "end"]


def test_a_process_that_a_task_forks_has_the_handlers_back(tmp_path):
    path = tmp_path / "log.txt"
    handler = logging.FileHandler(path)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)

    def task():
        pid = os.fork()
        if pid == 0:
            say("from a child")
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    try:
        with shoal.Pool(1) as pool:
            assert pool.apply(task) == 0
    finally:
        LOG.removeHandler(handler)
        handler.close()
    assert path.read_text() == "from a child\n"
