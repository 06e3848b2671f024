# SPDX-License-Identifier: BSD-3-Clause
"""A class that several threads receive at once is made by one of them: its hooks run once, and nobody waits for ever.

A thread switch happens only where a thread waits: the interval after which the interpreter forces one is set to hours.
So a thread that says that it is about to load a class has looked for it before any other thread goes on.
"""

import os
import textwrap

import pytest

KINDS = {
    "metaclass": """
        class Meta(type):
            def __init__(cls, *args):
                super().__init__(*args)
                sys.gate.hook(cls)
        class Born(metaclass=Meta): pass
    """,
    "__init_subclass__": """
        class Base:
            def __init_subclass__(cls):
                sys.gate.hook(cls)
        class Born(Base): pass
    """,
    "__set_name__": """
        class Field:
            def __set_name__(self, owner, name):
                sys.gate.hook(owner)
        class Born: field = Field()
    """,
    "enum": """
        import enum
        class Base(enum.Enum):
            def __init_subclass__(cls):
                sys.gate.hook(cls)
        class Born(Base): A = 1
    """,
    "late attributes": """
        class Base:
            def __init_subclass__(cls):
                sys.gate.hook(cls)
        class Born(Base): pass
        Born.itself = (Born,)
        Born.others = {1: (Born, Born)}
    """,
}

DUMP = """
    import sys, types
    sys.gate = types.SimpleNamespace(hook=lambda cls: None)
    {define}
    import pickle, shoal
    def about(): sys.gate.about()
    class About:
        def __reduce__(self): return about, ()
    pickle.dump((shoal.dumps(Born), shoal.dumps((About(), Born))), open(sys.argv[1], 'wb'))
"""

LOAD = """
    import os, pickle, sys, threading
    sys.setswitchinterval(10_000)
    alone, announced = pickle.load(open(sys.argv[1], 'rb'))
    runs, results = [], {}

    class gate:
        entered, reached, go = threading.Event(), threading.Event(), threading.Event()
        about = reached.set
        def hook(cls):
            if cls.__name__ != 'Born':
                return
            runs.append(cls)
            if len(runs) == 1:
                gate.entered.set()
                assert gate.go.wait(60)
    sys.gate = gate

    def first():
        try:
            results['first'] = pickle.loads(alone)
        except BaseException as error:
            results['first'] = error
    def second():
        assert gate.entered.wait(60)
        results['second'] = pickle.loads(announced)[1]
    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    def run():
        for thread in threads: thread.start()
        assert gate.reached.wait(60)
        gate.go.set()
        for thread in threads: thread.join()
"""


@pytest.fixture
def load(fresh_python, tmp_path):
    def run(define, script):
        file = tmp_path / "pickle"
        fresh_python(textwrap.dedent(DUMP).replace("{define}", textwrap.dedent(define)), file)
        return fresh_python(textwrap.dedent(LOAD) + textwrap.dedent(script), file)

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_run_once_for_two_threads(load, kind):
    load(
        KINDS[kind],
        """
    run()
    Born = results['first']
    assert len(runs) == 1 and Born is results['second'] and isinstance(Born, type), (runs, results)
    if hasattr(Born, 'itself'):
        assert Born.itself == (Born,) and Born.others == {1: (Born, Born)}
        """,
    )


def test_who_waited_makes_the_class_when_the_first_has_failed(load):
    load(
        KINDS["metaclass"],
        """
    once = gate.hook
    def hook(cls):
        once(cls)
        if len(runs) == 1:
            raise SystemExit('not this time')
    gate.hook = hook
    run()
    assert isinstance(results['first'], SystemExit) and len(runs) == 2
    assert results['second'].__name__ == 'Born' and pickle.loads(alone) is results['second']
        """,
    )


def test_a_hook_may_load_its_own_class(load):
    load(
        KINDS["__init_subclass__"],
        """
    def hook(cls):
        runs.append(cls)
        if len(runs) == 1:
            results['inner'] = pickle.loads(alone)
    gate.hook = hook
    Born = pickle.loads(alone)
    assert Born is results['inner'] and pickle.loads(alone) is Born and len(runs) == 2
        """,
    )


def test_a_hook_may_wait_for_a_thread_that_loads_its_class(load):
    load(
        KINDS["metaclass"],
        """
    def hook(cls):
        runs.append(cls)
        if len(runs) == 1:
            thread = threading.Thread(target=lambda: results.update(inner=pickle.loads(alone)))
            thread.start()
            thread.join()
    gate.hook = hook
    Born = pickle.loads(alone)
    assert Born is results['inner'] and pickle.loads(alone) is Born and len(runs) == 2
        """,
    )


def test_two_threads_may_make_classes_whose_hooks_load_each_other(load):
    load(
        """
        class Meta(type):
            def __init__(cls, *args):
                super().__init__(*args)
                sys.gate.hook(cls)
        class Left(metaclass=Meta): pass
        class Right(metaclass=Meta): pass
        import shoal
        Born = shoal.dumps(Left), shoal.dumps(Right)
        """,
        """
    streams = dict(zip(('Left', 'Right'), pickle.loads(alone)))
    here = {name: threading.Event() for name in streams}
    def hook(cls):
        runs.append(cls.__name__)
        other = 'Left' if cls.__name__ == 'Right' else 'Right'
        here[cls.__name__].set()
        assert here[other].wait(60)
        if runs.count(other) + runs.count(cls.__name__) <= 3:
            results[cls.__name__, other] = pickle.loads(streams[other])
    gate.hook = hook
    def make(name):
        results[name] = pickle.loads(streams[name])
    threads = [threading.Thread(target=make, args=(name,)) for name in streams]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for name in streams:
        assert pickle.loads(streams[name]) is results[name] and results[name].__name__ == name
        """,
    )


CHILD = """
    def in_child(body):
        pid = os.fork()
        if pid == 0:
            try:
                body()
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_does_not_wait_for_a_thread_of_its_parent(load):
    load(
        KINDS["metaclass"],
        CHILD
        + """
    threads[0].start()
    assert gate.entered.wait(60)
    def body():
        Born = pickle.loads(alone)
        assert len(runs) == 2 and pickle.loads(alone) is Born and len(runs) == 2
    in_child(body)
    gate.go.set()
    threads[0].join()
    assert len(runs) == 1 and pickle.loads(alone) is results['first']
        """,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_hook_may_fork(load):
    load(
        KINDS["metaclass"],
        CHILD
        + """
    def hook(cls):
        runs.append(cls)
        results['pid'] = os.fork()
    gate.hook = hook
    Born = pickle.loads(alone)
    def again():
        results['again'] = pickle.loads(alone)
    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    assert results['again'] is Born and len(runs) == 1
    if results['pid'] == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(results['pid'], 0)[1]) == 7
        """,
    )
