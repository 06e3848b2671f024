# SPDX-License-Identifier: BSD-3-Clause
"""A wheel from `pip wheel .`: what is in it, where it runs, and that it is the same wherever it is built.

SHOAL_PACKAGE=few builds it once and without optimisation: for one more version of Python.
"""

import os
import re
import sys
import tarfile
import zipfile

import pytest

from package_tree import TOP, copy_of_the_tree, pip, run

FEW = os.environ.get("SHOAL_PACKAGE") == "few"
FLAGS = {"CFLAGS": "-O0"} if FEW else {}


def make_wheel(source):
    # No compiler cache: what an earlier build left in it would be compared with itself.
    pip(
        *("wheel", "--no-build-isolation", "--no-deps", "-q", "-w", source / "dist", "."),
        cwd=source,
        env={"SOURCE_DATE_EPOCH": "1700000000", "CCACHE_DISABLE": "1", **FLAGS},
    )
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copy_of_the_tree(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def wheel(tree):
    return make_wheel(tree)


@pytest.fixture(scope="module")
def extension(wheel, tmp_path_factory):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if re.fullmatch(r"shoal/_ext\..*\.so", name)]
        return archive.extract(name, tmp_path_factory.mktemp("extension"))


@pytest.fixture(scope="module")
def sdist(tree):
    run(sys.executable, "-c", "from setuptools.build_meta import build_sdist; build_sdist('dist')", cwd=tree)
    (sdist,) = (tree / "dist").glob("*.tar.gz")
    return sdist


def test_it_is_a_manylinux_wheel_that_auditwheel_accepts(wheel):
    named = re.search(r"-manylinux_2_(\d+)_\w+\.whl$", wheel.name)
    assert named, wheel.name
    said = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel).split())
    possible = re.search(r'is consistent with the following platform tag: "manylinux_2_(\d+)_', said)
    assert possible, said
    assert int(possible[1]) <= int(named[1])


def test_it_needs_no_library_but_libc(extension):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", extension))
    assert not [name for name in needed if not re.match(r"libc\.so|libm\.so|ld-linux", name)]


def test_it_runs_on_any_processor_of_its_architecture(extension):
    if os.uname().machine != "x86_64":
        pytest.skip("of x86-64 it is known which registers newer processors brought")
    assert not re.search(r"%[yz]mm\d", run("objdump", "-d", "--no-show-raw-insn", extension))


def test_it_has_all_of_the_package_and_the_licences(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = (TOP / "pool").rglob("*.py*")
    wanted = {str(path.relative_to(TOP / "pool")) for path in package if path.suffix in (".py", ".pyi")}
    assert wanted | {"shoal/py.typed"} <= names
    assert not [name for name in names if name.endswith((".c", ".h", ".pyc"))]
    assert {name.rpartition("/")[2] for name in names} >= {"LICENSE", "LICENSE.liburing"}


def test_it_has_no_paths_of_the_machine_that_built_it(wheel, tree):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            assert str(tree).encode() not in archive.read(name), name


def test_it_installs_without_a_compiler_and_the_readmes_examples_run(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    bare = {"PATH": str(tmp_path / "venv/bin"), "HOME": str(tmp_path)}
    run(python, "-m", "pip", "install", "-q", "--no-index", wheel, cwd=tmp_path, env=bare, only=True)
    blocks = re.findall(r"^```python\n(.*?)^```", (TOP / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    blocks = [block for block in blocks if "numpy" not in block]
    assert len(blocks) > 3
    for number, block in enumerate(blocks):
        (tmp_path / f"example{number}.py").write_text(block)
        said = run(python, f"example{number}.py", cwd=tmp_path, env=bare, only=True)
        assert said.splitlines() == re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)


@pytest.mark.skipif(FEW, reason="SHOAL_PACKAGE=few")
def test_a_wheel_of_the_sdist_built_elsewhere_without_autotools_is_the_same_byte_for_byte(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (source,) = tmp_path.iterdir()
    source = source.rename(tmp_path / "a-longer-name-than-before")
    for tool in ("aclocal", "autoconf", "autoheader", "automake", "autoreconf"):
        (tmp_path / tool).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        second = make_wheel(source)
    assert second.name == wheel.name
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(second) as other:
        assert one.namelist() == other.namelist()
        assert not [name for name in one.namelist() if one.read(name) != other.read(name)]
    assert second.read_bytes() == wheel.read_bytes()


@pytest.fixture
def free_threaded(tmp_path):
    """An interpreter that says of itself that it is a free-threaded build."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sysconfig\n"
        "real = sysconfig.get_config_var\n"
        "sysconfig.get_config_var = lambda name: 1 if name == 'Py_GIL_DISABLED' else real(name)\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_pip_says_that_free_threaded_builds_are_not_supported(free_threaded):
    said = run(free_threaded, "setup.py", "--version", fails=True).splitlines()[-1]
    assert said == "Shoal does not support free-threaded builds of Python: install it for one with the GIL."


def test_configure_says_that_free_threaded_builds_are_not_supported(free_threaded, tmp_path):
    said = run(TOP / "configure", "-q", "--without-cunit", f"--with-python={free_threaded}", cwd=tmp_path, fails=True)
    assert "is a free-threaded build, which Shoal does not support" in said
