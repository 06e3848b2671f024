# SPDX-License-Identifier: BSD-3-Clause
"""Rules that hold for each source file by itself."""

import ast
import re
import subprocess
import warnings

from tree import TOP, c_files, files, name_of, objects, python_files, run

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
WRITABLE_SECTIONS = re.compile(r"\.(data|bss|tdata|tbss)\b|\*COM\*")
# Tables that CPython's API takes through pointers to non-const; nobody writes them.
PYTHON_TABLES = "PyModuleDef PyModuleDef_Slot PyMethodDef PyMemberDef PyGetSetDef PyType_Slot PyType_Spec PyBufferProcs"


def sources():
    return c_files() + python_files() + [TOP / name for name in ("run", "setup.py", ".ci/run", "tests/total")]


def test_each_file_names_its_licence_on_top():
    assert not [
        name_of(path)
        for path in sources()
        if "SPDX-License-Identifier: BSD-3-Clause" not in "".join(path.read_text().splitlines(keepends=True)[:3])
    ]


def test_each_c_file_says_what_it_is_for():
    """A comment on top besides the licence; the header of a .c file may say it for both."""
    silent = []
    for path in c_files("include", "lib", "pool", "examples"):
        top = re.split(r"^(?:#include|struct|static|int)\b", path.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
        words = path.stem.split("_")  # decoder.h speaks for decoder_stack.c, too
        headers = [path.with_name("_".join(words[:count]) + ".h") for count in range(1, len(words) + 1)]
        if top.count("/*") < 2 and not (path.suffix == ".c" and any(header.exists() for header in headers)):
            silent.append(name_of(path))
    assert not silent


def test_no_file_is_longer_than_500_lines_unless_its_top_says_why():
    long = []
    for path in sources():
        lines = path.read_text().splitlines()
        if len(lines) > MAX_FILE_LINES and not any("why this file is long" in line.lower() for line in lines[:60]):
            long.append(f"{name_of(path)}: {len(lines)} lines")
    assert not long, 'split along a concept, or begin a line of the opening comment with "Why this file is long:"'


def test_lines_fit_into_120_columns():
    assert not [
        f"{name_of(path)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120
    ]


def test_no_work_is_left_in_place():
    mark = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|for now\b|not implemented yet", re.IGNORECASE)
    assert not [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in sources()
        if path.name != "test_sources.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if mark.search(line)
    ]


def c_functions(path):
    """(name, lines, the comment above or inside its first lines) of each function."""
    lines = path.read_text().splitlines()
    start = 0
    for number, line in enumerate(lines):
        if line == "{":
            start = number
        elif line == "}" and start:
            head = next((at for at in range(start - 1, 0, -1) if re.match(r"\w.*\(", lines[at])), start)
            name = re.search(r"(\w+)\(", lines[head])
            yield name[1] if name else "?", number - start + 1, "\n".join(lines[max(0, head - 12) : start + 6])
            start = 0


def python_functions(path):
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.end_lineno - node.lineno + 1, ast.get_docstring(node) or ""


def test_functions_over_60_lines_are_reported_and_over_120_say_why():
    reported, silent = [], []
    for path in c_files("lib", "pool") + python_files("pool"):
        functions = python_functions(path) if path.suffix == ".py" else c_functions(path)
        for name, lines, comment in functions:
            if lines > MAX_FUNCTION_LINES:
                reported.append(f"{name_of(path)}: {name}: {lines} lines")
            if lines > 2 * MAX_FUNCTION_LINES and "why it is long:" not in comment.lower():
                silent.append(f"{name_of(path)}: {name}: {lines} lines")
    if reported:
        warnings.warn("functions over 60 lines:\n" + "\n".join(reported), stacklevel=1)
    assert not silent, 'split it, or begin a line of the comment above it with "Why it is long:"'


def writable_symbols(path):
    """(name, section) of objects in writable sections. .data.rel.ro, constants with relocations, ends up read-only."""
    for line in run("objdump", "-t", path).splitlines():
        match = re.match(r"[0-9a-f]{16} .{6}(O|.) (\S+)\s+[0-9a-f]{16} (?:\.hidden )?(\S+)$", line)
        if match and match[1] == "O" and ".rel.ro" not in match[2] and WRITABLE_SECTIONS.match(match[2]):
            yield re.sub(r"\.\d+$", "", match[3]), match[2]


def test_there_are_no_writable_variables_outside_functions():
    text = "\n".join(path.read_text() for path in c_files("pool"))
    tables = set(re.findall(rf"\b(?:{'|'.join(PYTHON_TABLES.split())})\s+(\w+)\b", text))
    tables |= set(re.findall(r"static char \*(?:const )?(\w+)\[\]", text))  # PyArg_ParseTupleAndKeywords's keywords
    assert not [
        f"{path.name}: {name} ({section})"
        for path in objects("lib", "pool")
        for name, section in writable_symbols(path)
        if name not in tables and not name.startswith("__odr_asan")
    ]


def test_the_library_prints_nothing():
    printing = {"printf", "fprintf", "puts", "perror", "putchar", "vfprintf", "vprintf", "stderr", "stdout", "fwrite"}
    found = []
    for path in objects("lib"):
        undefined = {line.split()[-1].split("@")[0] for line in run("nm", "-u", path).splitlines() if line.strip()}
        found += [f"{path.name}: {name}" for name in sorted(undefined & printing)]
    assert not found


def test_every_source_is_in_the_makefile():
    """By its name, or as a program of that name. The fuzz target is built by tests/fuzz/run."""
    listed = set((TOP / "Makefile.am").read_text().split())
    sources = c_files("include", "lib", "pool", "tests/c", "bench", "examples")
    sources += files("*.py", "*.pyi", "py.typed", under=("pool/shoal",))
    assert not [name_of(path) for path in sources if not {name_of(path), name_of(path.with_suffix(""))} & listed]


def test_nothing_that_is_generated_is_in_the_repository():
    tracked = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=TOP, capture_output=True, text=True)
    assert not tracked.stdout


def test_each_pair_of_release_and_acquire_is_explained():
    labels = {
        label
        for path in c_files("lib", "pool", "include")
        for label in re.findall(r"SYNC: ([a-z]+(?:-[a-z]+)*)", path.read_text())
    }
    explained = set(re.findall(r"^\| `([a-z]+(?:-[a-z]+)*)`", (TOP / "docs/memory-order.md").read_text(), re.MULTILINE))
    assert labels == explained
