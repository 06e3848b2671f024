# SPDX-License-Identifier: BSD-3-Clause
"""Classes of every kind by value: as they were defined, in a process that cannot import them and in their own."""

import sys
import textwrap

import pytest

from class_cases import CASES

DEFINE = "import shoal\n"
DUMP = """
if __name__ == "__main__":
    import pickle, shoal, sys
    streams = [shoal.dumps(it, p) for p in (2, 5)]
    for stream in streams:
        assert shoal.dumps(pickle.loads(stream), 5) == streams[1], "coming home it is something else"
    pickle.dump(streams, open(sys.argv[1], "wb"))
"""
LOAD = """
import pickle, sys
streams = pickle.load(open(sys.argv[1], "rb"))
"""
AGAIN = """
import shoal
assert shoal.dumps(pickle.loads(streams[{}]), 5) == streams[1], "sent on it is something else"
"""


def define_and_use(fresh_python, tmp_path, define, check, since=None):
    if since and sys.version_info < since:
        pytest.skip("syntax of a later Python")
    file = tmp_path / "pickle"
    fresh_python(DEFINE + textwrap.dedent(define) + DUMP, file, env={"PYTHONHASHSEED": "1"})
    load = LOAD + "import pytest\n" * ("pytest" in check)  # it is slow to import
    check = textwrap.indent(textwrap.dedent(check), "    ")
    for i in range(2):
        twice = f"for it in pickle.loads(streams[{i}]), pickle.loads(streams[{i}]):\n" + check
        done = fresh_python(load + AGAIN.format(i) + twice, file, env={"PYTHONHASHSEED": str(i + 2)})
        assert not done.stderr


@pytest.mark.parametrize("name", CASES)
def test_defined_in_one_script_it_works_in_another(fresh_python, tmp_path, name):
    define_and_use(fresh_python, tmp_path, *CASES[name])


def test_a_dataclass_travels_in_every_protocol(fresh_python, tmp_path):
    define, check = CASES["dataclass of every kind"]
    file = tmp_path / "pickle"
    dump = "pickle.dump([shoal.dumps(it, p) for p in range(6)], open(sys.argv[1], 'wb'))\n"
    fresh_python(textwrap.dedent(define) + "import pickle, shoal, sys\n" + dump, file)
    for protocol in range(6):
        load = f"import pytest\n{LOAD}it = pickle.loads(streams[{protocol}])\n"
        fresh_python(load + textwrap.dedent(check), file)


def test_hooks_that_want_a_keyword_nobody_has_seen_are_left_out_with_a_warning(fresh_python, tmp_path):
    file = tmp_path / "pickle"
    define = """
    class B:
        def __init_subclass__(cls, *, tag): cls.tag = tag
    class it(B, tag=1): pass
    import shoal
    """
    fresh_python(textwrap.dedent(define) + DUMP, file)
    done = fresh_python(
        LOAD + "it = pickle.loads(streams[1])\nassert it.tag == 1 and it.__mro__[1].__name__ == 'B'", file
    )
    assert "without running the hooks of its definition: TypeError" in done.stderr


def test_hooks_of_an_importable_metaclass_run_once_for_each_process(fresh_python, tmp_path):
    (tmp_path / "registry.py").write_text(
        textwrap.dedent("""
        NAMES = []
        class Meta(type):
            def __init__(cls, name, bases, ns, **kw):
                NAMES.append((name, sorted(k for k in ns if k[0] != "_"), kw))
            def __new__(m, name, bases, ns, **kw): return super().__new__(m, name, bases, ns)
        """)
    )
    env, file = {"PYTHONPATH": str(tmp_path)}, tmp_path / "pickle"
    define = "import registry, shoal\nclass it(metaclass=registry.Meta, k=1):\n    a = 1\n    def f(self): return it\n"
    once = "assert registry.NAMES == [('it', ['a', 'f'], {'k': 1})], registry.NAMES\n"
    fresh_python(define + DUMP + once, file, env=env)
    fresh_python(LOAD + "import registry\nfor s in streams * 2: assert pickle.loads(s)().f()\n" + once, file, env=env)
