# SPDX-License-Identifier: BSD-3-Clause
"""Compilers, type checkers and linters, one test each."""

import os
import shutil
import sys

import pytest

from tree import BUILD, TOP, run


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_everything_compiles_without_a_warning(compiler):
    """A build directory for each compiler, kept, so that only what changed is compiled again."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    build = BUILD / f"lint-{compiler}"
    build.mkdir(parents=True, exist_ok=True)
    if not (build / "Makefile").exists():
        configure = [TOP / "configure", "-q", "--enable-werror", f"--with-python={sys.executable}", f"CC={compiler}"]
        if compiler == "clang":  # its warnings do not come from the optimizer, as some of gcc's do
            configure.append("CFLAGS=-O0")
        run(*configure, cwd=build)
    make = ("make", "-s", "-k", f"-j{os.cpu_count()}")
    run(*make, "all", "bench-programs", cwd=build)
    run(*make, "check", "TESTS=", cwd=build)


def test_ruff():
    places = ("pool", "tests", "bench", "examples", "docs", "setup.py", "tests/total", ".ci/requirements.py")
    run(sys.executable, "-m", "ruff", "check", "--no-cache", *places)


def test_mypy_strict():
    run(sys.executable, "-m", "mypy", "--cache-dir", BUILD / "mypy")


def test_the_stubs_agree_with_the_extension():
    stubtest = (sys.executable, "-m", "mypy.stubtest")
    # PEP 800's @disjoint_base is for typing_extensions, which a stub of ours should not need.
    switches = ["--ignore-disjoint-bases"] if "--ignore-disjoint-bases" in run(*stubtest, "--help") else []
    run(*stubtest, *switches, "shoal._ext", env={"MYPYPATH": str(TOP / "pool")})


def test_shellcheck():
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck")
    run("shellcheck", "run", ".ci/run", "tests/c/each-doorbell", "tests/fuzz/run")


def test_the_autotools_files_are_accepted_without_a_warning(tmp_path):
    for name in ("configure.ac", "Makefile.am", "m4", "include", "lib", "pool", "tests", "bench", "examples"):
        (tmp_path / name).symlink_to(TOP / name)
    run("aclocal", "-I", "m4", "-Wall", "-Werror", f"--output={tmp_path}/aclocal.m4", cwd=tmp_path)
    run("autoconf", "-Wall", "-Werror", "-Wno-obsolete", "-o", os.devnull, cwd=tmp_path)
