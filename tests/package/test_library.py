# SPDX-License-Identifier: BSD-3-Clause
"""The C library as `make install` lays it down: found by pkg-config, linked from outside, with a stable interface."""

import re
import shutil

import pytest

from package_tree import BUILD, TOP, run


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    top = tmp_path_factory.mktemp("installed")
    run("make", "-s", "install", f"DESTDIR={top}", cwd=BUILD)
    (config,) = top.rglob("shoal.pc")
    return config.parents[2]  # the prefix


@pytest.fixture
def flags(installed):
    def ask(*words):
        pkg_config = ("pkg-config", f"--define-variable=prefix={installed}", *words, "shoal")
        return run(*pkg_config, env={"PKG_CONFIG_PATH": str(installed / "lib/pkgconfig")}).split()

    return ask


def test_the_library_has_a_name_for_its_interface(installed):
    dynamic = run("readelf", "-d", installed / "lib/libshoal.so")
    assert re.search(r"\(SONAME\).*\[libshoal\.so\.0\]", dynamic)
    assert (installed / "lib/libshoal.so.0").exists()


def test_every_symbol_has_the_version_of_the_interface(installed):
    lines = run("objdump", "-T", installed / "lib/libshoal.so").splitlines()
    exported = [line.split() for line in lines if re.search(r"\bg +DF? +\.text", line)]
    assert len(exported) > 50
    assert {words[-2].strip("()") for words in exported} == {"SHOAL_0"}


def test_a_program_elsewhere_builds_and_runs_against_it(installed, flags, tmp_path):
    shutil.copy(TOP / "examples/two_processes.c", tmp_path / "program.c")
    run("gcc", "-Wall", "-Werror", *flags("--cflags"), "program.c", "-o", "program", *flags("--libs"), cwd=tmp_path)
    said = run("./program", cwd=tmp_path, env={"LD_LIBRARY_PATH": str(installed / "lib")})
    assert said.count("checksum agrees") == 3
    assert "libshoal.so.0" in run("readelf", "-d", "program", cwd=tmp_path)
    used = re.findall(r"\bshoal_\w+@(\w+)", run("readelf", "-W", "--dyn-syms", "program", cwd=tmp_path))
    assert set(used) == {"SHOAL_0"}


def test_a_program_elsewhere_links_the_static_library(installed, flags, tmp_path):
    shutil.copy(TOP / "examples/two_processes.c", tmp_path / "program.c")
    static = [installed / "lib/libshoal.a", *[flag for flag in flags("--static", "--libs-only-l") if flag != "-lshoal"]]
    run("gcc", *flags("--cflags"), "program.c", "-o", "program", *static, cwd=tmp_path)
    assert run("./program", cwd=tmp_path).count("checksum agrees") == 3


def test_all_public_headers_are_installed(installed):
    public = {path.name for path in (TOP / "include/shoal").glob("*.h")} - {"killpoint.h"}
    assert {path.name for path in (installed / "include/shoal").iterdir()} == public


def test_the_version_is_that_of_the_header(flags):
    version = re.search(r'^#define SHOAL_VERSION "(.*)"$', (TOP / "include/shoal/shoal.h").read_text(), re.MULTILINE)[1]
    assert flags("--modversion") == [version]


def test_nothing_that_is_not_to_be_installed_is(installed):
    names = [str(path) for path in installed.rglob("*")]
    assert not [name for name in names if re.search(r"_ext\.la$|killpoint|two_processes", name)]
