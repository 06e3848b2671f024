# SPDX-License-Identifier: BSD-3-Clause
"""Workers keep to their CPUs, and they and the threads of their libraries do not outnumber the CPUs."""

import os
import textwrap

import pytest

import shoal
from shoal import _cpus, _thread_limits, _worker_cpus

METHODS = ["fork", "spawn", "forkserver"]
HERE = sorted(os.sched_getaffinity(0))
several_cpus = pytest.mark.skipif(len(HERE) < 2, reason="one CPU only")
pytestmark = pytest.mark.leakcheck


def my_cpus():
    return shoal.current_worker().id, sorted(os.sched_getaffinity(0))


def seen(pool, count):
    """What `my_cpus` says in each of the workers; `count` of them."""
    found = {}
    while len(found) < count:
        found.update(pool.map(my_cpus_of, range(4 * count), chunksize=1))
    return found


def my_cpus_of(_):
    return my_cpus()


def threads(_=None):
    return {name: os.environ.get(name) for name in _thread_limits.VARIABLES}


@pytest.fixture
def no_variables(monkeypatch):
    for name in _thread_limits.VARIABLES:
        monkeypatch.delenv(name, raising=False)


# ---- CPUs ----


@pytest.mark.parametrize("method", METHODS)
def test_workers_run_on_the_cpus_they_were_given(no_main, method):
    with shoal.Pool(1, context=method, cpu_affinity=[HERE[-1]]) as pool:
        assert pool.apply(my_cpus) == (0, [HERE[-1]])
    with shoal.ProcessPoolExecutor(1, method, cpu_affinity=[[HERE[0]], [HERE[-1]]]) as executor:
        assert executor.submit(my_cpus).result() == (0, [HERE[0]])
    assert sorted(os.sched_getaffinity(0)) == HERE


@several_cpus
def test_each_worker_takes_the_next_list_and_they_begin_again():
    with shoal.Pool(3, cpu_affinity=[[HERE[0]], [HERE[1]]]) as pool:
        assert seen(pool, 3) == {0: [HERE[0]], 1: [HERE[1]], 2: [HERE[0]]}


@several_cpus
def test_spread_gives_each_worker_cpus_of_its_own():
    with shoal.Pool(2, cpu_affinity="spread") as pool:
        found = seen(pool, 2)
    assert not set(found[0]) & set(found[1])
    assert sorted(found[0] + found[1]) == HERE


def test_shares_are_equal_and_of_neighbours():
    assert _worker_cpus.spread([0, 4, 1, 5, 2, 6], 3) == [[0, 4], [1, 5], [2, 6]]
    assert _worker_cpus.spread([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3, 4]]
    assert _worker_cpus.spread([0, 1], 5) == [[0], [1]]
    assert _worker_cpus.spread([3], 1) == [[3]]


def test_cpus_of_a_core_are_neighbours(tmp_path):
    for cpu, core in enumerate([0, 1, 0, 1]):
        directory = tmp_path / f"cpu{cpu}" / "topology"
        directory.mkdir(parents=True)
        (directory / "core_id").write_text(f"{core}\n")
        (directory / "physical_package_id").write_text("0\n")
    assert _worker_cpus.by_core([0, 1, 2, 3], tmp_path) == [0, 2, 1, 3]
    assert _worker_cpus.by_core([3, 1], tmp_path / "nothing") == [1, 3]


@pytest.mark.parametrize("wrong", [[10**6], [[HERE[0]], [10**6]], [[]], [], "scatter"])
def test_cpus_that_cannot_be_had_are_refused_when_the_pool_is_made(wrong):
    for make in (shoal.Pool, shoal.ProcessPoolExecutor):
        with pytest.raises(ValueError, match="cpu_affinity"):
            make(1, cpu_affinity=wrong)


def test_a_cpu_that_is_gone_when_the_worker_starts_breaks_the_pool_and_says_so(monkeypatch):
    def gone(pid, cpus):
        raise OSError(22, "no such CPU")

    monkeypatch.setattr(os, "sched_setaffinity", gone)
    with shoal.Pool(1, cpu_affinity=[HERE[0]]) as pool:
        with pytest.raises(shoal.PoolBroken, match="could not be bound to its CPUs.*no such CPU"):
            pool.apply(my_cpus)


# ---- threads ----


@pytest.mark.parametrize("method", METHODS)
def test_a_number_of_threads_that_was_asked_for_is_what_workers_have(no_main, no_variables, method):
    with shoal.Pool(1, context=method, worker_threads=3) as pool:
        assert set(pool.apply(threads).values()) <= {"3", None}
        assert pool.apply(threads)["OMP_NUM_THREADS"] == "3"
    assert set(threads().values()) == {None}


def test_workers_times_threads_stay_within_the_cpus(no_variables):
    usable = _cpus.usable_cpus()
    with shoal.ProcessPoolExecutor(2 * usable) as executor:
        assert executor.submit(threads).result()["OMP_NUM_THREADS"] == "1"
    with shoal.Pool(1) as pool:  # it may have them all: nothing is said
        assert set(pool.apply(threads).values()) == {None}


def test_threads_go_by_the_cpus_that_the_workers_are_bound_to(no_variables):
    assert _worker_cpus.cpus_of_each([[0, 1], [2, 3]], 2) == 2
    assert _worker_cpus.cpus_of_each([[0, 1], [2, 3]], 4) == 1
    assert _worker_cpus.cpus_of_each([[0, 1, 2, 3]], 2) == 2
    assert _worker_cpus.cpus_of_each([[0, 1], [2]], 2) == 1
    assert _worker_cpus.cpus_of_each([[0]], 3) == 1


def test_what_the_user_has_set_stays(no_variables, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with shoal.Pool(2 * _cpus.usable_cpus()) as pool:
        found = pool.apply(threads)
    assert found.pop("OMP_NUM_THREADS") == "5"
    assert set(found.values()) == {None}


def test_a_variable_of_one_library_that_the_user_has_set_stays(no_variables, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "5")
    with shoal.Pool(2 * _cpus.usable_cpus()) as pool:
        found = pool.apply(threads)
    assert found["OPENBLAS_NUM_THREADS"] == "5"
    assert found["OMP_NUM_THREADS"] == "1"


def test_zero_leaves_libraries_alone(no_variables):
    with shoal.Pool(2 * _cpus.usable_cpus(), worker_threads=0) as pool:
        assert set(pool.apply(threads).values()) == {None}


@pytest.mark.parametrize("wrong", [-1, True])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="worker_threads"):
        shoal.Pool(1, worker_threads=wrong)


LOADED = """
    import os, sys
    import numpy
    {imported}
    import shoal
    from shoal import _thread_limits

    def blas():
        return [get() for get, put in _thread_limits._openblas()]

    before = blas()
    if not before:
        print("none")
        sys.exit()
    for put in [put for get, put in _thread_limits._openblas()]:
        put(4)
    with shoal.Pool(2 * shoal.usable_cpus()) as pool:
        inside = pool.apply(blas)
        numbers = pool.apply(lambda: (numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum())
    assert numbers == 300 ** 3
    print(inside, blas(), pool._settings.threads)
    with shoal.Pool(1, worker_threads=3) as pool:
        print(pool.apply(blas), blas())
    os.environ["OMP_NUM_THREADS"] = "4"
    with shoal.Pool(2 * shoal.usable_cpus()) as pool:
        print(pool.apply(blas), blas())
"""


@pytest.mark.parametrize(
    "imported", ["", "import threadpoolctl, types; sys.modules['sklearn'] = types.ModuleType('s')"]
)
def test_a_blas_that_is_loaded_has_fewer_threads_in_workers_and_as_many_as_before_in_the_parent(
    fresh_python, no_variables, imported
):
    pytest.importorskip("numpy")
    pytest.importorskip("threadpoolctl")
    done = fresh_python(textwrap.dedent(LOADED).format(imported=imported), timeout=100)
    if done.stdout.strip() == "none":
        pytest.skip("numpy has no OpenBLAS here")
    assert done.stdout.splitlines() == ["[1] [4] 1", "[3] [4]", "[4] [4]"]


TORCH = """
    import sys, types
    import shoal

    class Torch(types.ModuleType):
        number = 8

        def get_num_threads(self):
            return self.number

        def set_num_threads(self, number):
            self.number = number

    def number():
        return sys.modules["torch"].number

    sys.modules["torch"] = Torch("torch")
    with shoal.Pool(2 * shoal.usable_cpus()) as pool:
        print(pool.apply(number), number())
"""


def test_torch_has_one_thread_in_forked_workers_and_as_many_as_before_in_the_parent(fresh_python, no_variables):
    assert fresh_python(TORCH, timeout=100).stdout == "1 8\n"


def test_it_costs_a_program_without_numpy_no_import(fresh_python, no_variables):
    source = """
        import sys, shoal
        with shoal.Pool(2 * shoal.usable_cpus()) as pool:
            pool.apply(abs, (1,))
        print([name for name in ("numpy", "ctypes", "threadpoolctl") if name in sys.modules])
    """
    assert fresh_python(source).stdout.strip() == "[]"


# ---- pools in workers ----


def test_a_pool_that_a_task_makes_has_the_workers_share_of_the_cpus(no_variables):
    def nested():
        with shoal.Pool() as pool:
            inner = pool._processes
        with shoal.ProcessPoolExecutor() as executor:
            return inner, executor._max_workers

    usable = _cpus.usable_cpus()
    with shoal.Pool(2 * usable) as pool:
        assert pool.apply(nested) == (1, 1)
    with shoal.Pool(1) as pool:
        assert pool.apply(nested) == (usable, usable)
    with shoal.Pool() as pool:
        assert pool._processes == usable
