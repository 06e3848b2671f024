# SPDX-License-Identifier: BSD-3-Clause
"""Inside a pool the reducers of multiprocessing's ForkingPickler count, whenever and wherever they were registered."""

import copyreg
import multiprocessing
import os
import pickle
import socket
from multiprocessing.reduction import ForkingPickler

import pytest

import shoal


class Tensor:
    """Stands for what a library registers a reducer for, as torch does for its tensors."""

    def __init__(self, data, way="pickle"):
        self.data = data
        self.way = way


class SubTensor(Tensor):
    pass


def rebuild(data, way):
    return Tensor(data, way)


def reduce_in(tensor):
    return rebuild, (tensor.data, f"reduced in {os.getpid()}")


def way(tensor):
    return tensor.way


def same(obj):
    return obj


def register_here_and_give(data):
    ForkingPickler.register(Tensor, reduce_in)
    return os.getpid(), Tensor(data)


@pytest.fixture
def registered():
    """register(type, reducer), taken back afterwards."""
    before = dict(ForkingPickler._extra_reducers)
    yield ForkingPickler.register
    ForkingPickler._extra_reducers.clear()
    ForkingPickler._extra_reducers.update(before)


HERE = f"reduced in {os.getpid()}"


def test_registered_after_the_pool_was_made_it_counts_in_the_parent(pool, registered):
    assert pool.apply(way, (Tensor(1),)) == "pickle"
    registered(Tensor, reduce_in)
    assert pool.apply(way, (Tensor(1),)) == HERE
    assert pool.map(way, [Tensor(i) for i in range(10)]) == [HERE] * 10
    assert pool.apply_async(way, ([Tensor(1)][0],)).get() == HERE
    del ForkingPickler._extra_reducers[Tensor]
    assert pool.apply(way, (Tensor(1),)) == "pickle"


def test_registered_in_a_worker_it_counts_for_results(pool):
    pid, tensor = pool.apply(register_here_and_give, (3,))
    assert tensor.way == f"reduced in {pid}"
    assert tensor.data == 3


def test_registered_before_the_pool_was_made_workers_have_it(registered):
    registered(Tensor, reduce_in)
    with shoal.Pool(1) as pool:
        tensor = pool.apply(same, (Tensor(1),))
    assert tensor.way.startswith("reduced in ") and tensor.way != HERE


def test_it_counts_for_functions_that_hold_one(pool, registered):
    registered(Tensor, reduce_in)
    tensor = Tensor(1)
    assert pool.apply(lambda: tensor.way) == HERE


def test_it_goes_before_copyreg(pool, registered, monkeypatch):
    monkeypatch.setitem(copyreg.dispatch_table, Tensor, lambda tensor: (rebuild, (tensor.data, "copyreg")))
    assert pool.apply(way, (Tensor(1),)) == "copyreg"
    registered(Tensor, reduce_in)
    assert pool.apply(way, (Tensor(1),)) == HERE


def test_it_is_for_the_exact_type(pool, registered):
    """As in ForkingPickler: a subclass is written as usual."""
    registered(Tensor, reduce_in)
    assert type(pool.apply(same, (SubTensor(1),))) is SubTensor


def test_register_of_a_subclass_of_forking_pickler_is_the_same_table(pool, registered):
    class Mine(ForkingPickler):
        pass

    Mine.register(Tensor, reduce_in)
    assert pool.apply(way, (Tensor(1),)) == HERE


def test_outside_of_pools_it_does_not_count(registered):
    registered(Tensor, reduce_in)
    assert shoal.loads(shoal.dumps(Tensor(1))).way == "pickle"
    assert shoal.cloudpickle.loads(shoal.cloudpickle.dumps(Tensor(1))).way == "pickle"


def test_what_a_reducer_raises_is_the_tasks_error(pool, registered):
    def refuse(tensor):
        raise ZeroDivisionError("not this one")

    registered(Tensor, refuse)
    with pytest.raises(ZeroDivisionError, match="not this one"):
        pool.apply(way, (Tensor(1),))
    assert pool.apply(same, (1,)) == 1


def test_connections_and_sockets_go_to_workers(pool):
    """multiprocessing registers reducers for these itself."""
    ours, theirs = multiprocessing.Pipe()
    pool.apply(lambda connection: connection.send("by pipe"), (theirs,))
    assert ours.recv() == "by pipe"
    ours.close()
    theirs.close()
    one, other = socket.socketpair()
    pool.apply(lambda end: end.sendall(b"by socket"), (other,))
    assert one.recv(9) == b"by socket"
    one.close()
    other.close()


def test_forking_pickler_itself_works_in_workers(pool, registered):
    registered(Tensor, reduce_in)
    assert pool.apply(lambda data: ForkingPickler.loads(data).way, (bytes(ForkingPickler.dumps(Tensor(1))),)) == HERE
    assert ForkingPickler.loads(shoal.dumps(lambda: 5))() == 5
    assert ForkingPickler.loads is pickle.loads
