# SPDX-License-Identifier: BSD-3-Clause
"""The source of functions that come from no file: it travels, so that tracebacks show it where the function runs."""

import inspect
import linecache
import pickle
import subprocess
import sys
import traceback

import pytest

import shoal
from shoal import _source

CELL = """
unrelated = 'elsewhere'

def decorate(f): return f

@decorate
def it(n):
    # a comment
    def inner():
        return n / 0
    return inner(
    )
    # the last line

square = lambda x: x ** -x
end = 1
"""


def define(name, text=CELL):
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    space = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), space)
    return space


@pytest.fixture(autouse=True)
def clean():
    before = dict(linecache.cache)
    _source._kept.clear()
    yield
    linecache.cache.clear()
    linecache.cache.update(before)
    _source._kept.clear()


def arrive(stream, name):
    """Loads it as a process does that has not defined it."""
    linecache.cache.pop(name, None)
    return pickle.loads(stream)


def test_a_traceback_elsewhere_shows_the_line(fresh_python, tmp_path):
    for name in ("<ipython-input-3-f00>", "/tmp/ipykernel_1/no_such_file.py"):
        file = tmp_path / "pickle"
        file.write_bytes(shoal.dumps(define(name)["it"]))
        fresh_python(
            "import pickle, sys, linecache, inspect, traceback\n"
            "it = pickle.load(open(sys.argv[1], 'rb'))\n"
            "linecache.checkcache()\n"
            "try: it(1)\n"
            "except ZeroDivisionError as error: lines = traceback.format_exception(error)\n"
            "assert any('return n / 0' in line for line in lines), lines\n"
            "assert any('return inner(' in line for line in lines), lines\n"
            f"assert inspect.getsource(it) == {own_text()!r}\n",
            file,
        )


def own_text():
    lines = CELL.splitlines(True)
    return "".join(lines[lines.index("@decorate\n") : lines.index("    # the last line\n") + 1])


def test_only_the_functions_own_lines_travel():
    stream = shoal.dumps(define("<cell 1>")["it"])
    assert b"a comment" in stream
    assert b"the last line" in stream
    assert b"elsewhere" not in stream
    assert b"square" not in stream


def test_functions_of_one_cell_complete_each_other():
    space = define("<cell 2>")
    streams = [shoal.dumps(space[name]) for name in ("square", "it")]
    square = arrive(streams[0], "<cell 2>")
    it = pickle.loads(streams[1])
    assert inspect.getsource(square) == "square = lambda x: x ** -x\n"
    assert inspect.getsource(it) == own_text()


def test_what_the_reader_can_read_is_left_alone(tmp_path):
    stream = shoal.dumps(define("<cell 3>")["it"])
    own = ["own lines\n"] * 30
    linecache.cache["<cell 3>"] = (300, None, own, "<cell 3>")
    assert pickle.loads(stream).__code__.co_filename == "<cell 3>"
    assert linecache.getlines("<cell 3>") is own

    file = tmp_path / "cell.py"
    stream = shoal.dumps(define(str(file))["it"])
    file.write_text("text of the reader\n")
    arrive(stream, str(file))
    assert linecache.getlines(str(file)) == ["text of the reader\n"]


def test_it_is_sent_on_as_it_came():
    stream = shoal.dumps(define("<cell 4>")["it"])
    linecache.cache["<cell 4>"] = (300, None, ["other lines\n"] * 30, "<cell 4>")
    assert shoal.dumps(pickle.loads(stream)) == stream
    linecache.cache.clear()
    assert shoal.dumps(pickle.loads(stream)) == stream


@pytest.mark.parametrize("name", ["<string>", "<stdin>"])
def test_under_a_name_of_many_texts_only_a_function_that_is_there_has_lines(name):
    """From Python 3.13 on linecache knows the text of python -c as that of <string>."""
    space = define(name)
    assert b"# the last line" in shoal.dumps(space["it"])
    assert b"x ** -x" in shoal.dumps(space["square"])
    other = {"__name__": "__main__"}
    source = "\n\n\n\n\ndef other(n):\n    return n\n\n\n\n\n\n\n\nthen = lambda x: x\nelse_ = lambda y: y"
    exec(compile(source, name, "exec"), other)
    for function in (other["other"], other["else_"]):
        stream = shoal.dumps(function)
        assert b"decorate" not in stream and b"end" not in stream
        assert shoal.dumps(arrive(stream, "<nothing>")) == stream


def test_a_program_from_standard_input_is_read_again_if_that_is_a_file(fresh_python, tmp_path):
    script, file = tmp_path / "script.py", tmp_path / "pickle"
    script.write_text(f"""import shoal


def it(n):
    return 1 // n  # the line


open({str(file)!r}, "wb").write(shoal.dumps(it))
""")
    with script.open() as text:
        subprocess.run([sys.executable, "-"], stdin=text, check=True)
    fresh_python(
        """
        import pickle, sys, traceback
        it = pickle.load(open(sys.argv[1], "rb"))
        try:
            it(0)
        except ZeroDivisionError:
            told = traceback.format_exc()
        assert 'File "<stdin>", line 5, in it\\n    return 1 // n  # the line\\n' in told, told
        """,
        file,
    )


def test_functions_of_files_carry_no_source():
    assert b"carry_no_source" in shoal.dumps(lambda: "a text")
    assert shoal.dumps(lambda: "a text").count(b"a text") == 1


def test_lines_of_a_doctest():
    import doctest

    text = ">>> def it():\n...     return 1 / 0\n>>> streams.append(dumps(it))\n"
    streams = []
    test = doctest.DocTestParser().get_doctest(text, {"streams": streams, "dumps": shoal.dumps}, "example", None, 0)
    runner = doctest.DocTestRunner()
    assert runner.run(test).failed == 0
    (stream,) = streams
    it = pickle.loads(stream)
    with pytest.raises(ZeroDivisionError) as caught:
        it()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].line == "return 1 / 0"


def test_text_that_is_too_large_stays_at_home():
    text = "def it():\n" + "    x = 12345\n" * 20_000
    assert b"x = 12345" not in shoal.dumps(define("<large>", text)["it"])


def test_of_many_files_the_oldest_are_forgotten():
    streams = [shoal.dumps(define(f"<file {i}>")["it"]) for i in range(_source._FILES_KEPT + 10)]
    linecache.clearcache()
    for stream in streams:
        pickle.loads(stream)
    assert not linecache.getlines("<file 0>")
    assert linecache.getlines(f"<file {_source._FILES_KEPT + 9}>")
    assert sum(name.startswith("<file ") for name in linecache.cache) == _source._FILES_KEPT


def test_lines_of_no_use_are_done_without():
    for entry in ((0, None, [], "<odd>"), (0, None, None, "<odd>"), (0, None, ["x\n"], "<odd>"), (lambda: "",), "odd"):
        space = define("<odd>")
        linecache.cache["<odd>"] = entry
        copy = arrive(shoal.dumps(space["square"]), "<odd>")
        assert copy(-1) == -1
