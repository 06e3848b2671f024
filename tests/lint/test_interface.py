# SPDX-License-Identifier: BSD-3-Clause
"""What users see: exported symbols, exported names, one version."""

import ast
import importlib
import inspect
import re
import sysconfig

import pytest

from tree import BUILD, TOP, files, name_of, run


def declared():
    found = {}
    for path in files("*.h", under=("include",)):
        if path.name == "export.h":  # defines SHOAL_API
            continue
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        for declaration in re.findall(r"SHOAL_API([^;{]*)", text):
            match = re.search(r"(\w+)\s*\(", declaration)
            if match:
                found[match[1]] = name_of(path)
    return found


def exported(library):
    lines = run("nm", "-D", "--defined-only", library).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.split()[-2] in "TDBVWR"}


def test_the_library_exports_what_the_headers_declare_and_nothing_else():
    names = exported(BUILD / ".libs/libshoal.so")
    assert names == set(declared())


def test_public_names_of_the_library_begin_with_shoal():
    assert not [name for name in declared() if not re.fullmatch(r"shoal_[a-z0-9][a-z0-9_]*", name)]


def test_the_extension_exports_its_entry_and_nothing_else():
    (module,) = (BUILD / "pool/.libs").glob(f"_ext{sysconfig.get_config_var('EXT_SUFFIX')}")
    assert exported(module) == {"PyInit__ext"}


def test_the_extension_has_no_path_to_libraries_of_its_own():
    (module,) = (BUILD / "pool/.libs").glob(f"_ext{sysconfig.get_config_var('EXT_SUFFIX')}")
    assert not re.search(r"\((RUNPATH|RPATH)\)|libshoal", run("readelf", "-d", module))


@pytest.mark.parametrize("header", [path.name for path in files("*.h", under=("include",))])
@pytest.mark.parametrize("compiler", ["gcc -std=gnu11", "gcc -xc++ -std=gnu++17", "clang -std=gnu11"])
def test_each_public_header_can_be_included_alone(header, compiler, tmp_path):
    if "c++" in compiler and not run("sh", "-c", "command -v g++ || true"):
        pytest.skip("no C++ compiler")
    source = tmp_path / "alone.c"
    source.write_text(f"#include <shoal/{header}>\n")
    run(*compiler.split(), "-Wall", "-Wextra", "-Werror", f"-I{TOP}/include", "-fsyntax-only", source)


def version():
    return re.search(r'^#define SHOAL_VERSION "(.*)"$', (TOP / "include/shoal/shoal.h").read_text(), re.MULTILINE)[1]


def test_the_version_is_one():
    text = (TOP / "include/shoal/shoal.h").read_text()
    numbers = [re.search(rf"#define SHOAL_VERSION_{part} (\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH")]
    assert ".".join(numbers) == version()
    assert f"Version: {version()}\n" in (BUILD / "shoal.pc").read_text()
    assert importlib.import_module("shoal").__version__ == version()


# ---- Python names ----


def public_names():
    try:
        shoal = importlib.import_module("shoal")
    except ImportError:
        return []
    return list(getattr(shoal, "__all__", []))  # its absence is a failure of the next test


def test_the_package_can_be_imported_and_says_what_it_exports():
    shoal = importlib.import_module("shoal")
    assert sorted(set(shoal.__all__)) == sorted(shoal.__all__)
    assert all(hasattr(shoal, name) for name in shoal.__all__)


@pytest.mark.parametrize("name", public_names())
def test_each_exported_name_has_a_docstring(name):
    value = getattr(importlib.import_module("shoal"), name)
    if not callable(value) and not inspect.ismodule(value):
        pytest.skip("a value, which has the docstring of its type")
    assert inspect.getdoc(value), f"shoal.{name} has no docstring"
    if inspect.isclass(value) and value.__module__.startswith("shoal"):
        methods = [method for method in vars(value) if not method.startswith("_") and callable(getattr(value, method))]
        assert not [method for method in methods if not inspect.getdoc(getattr(value, method))]


def test_each_name_of_the_extension_is_in_its_stub():
    extension = importlib.import_module("shoal._ext")
    stub = ast.parse((TOP / "pool/shoal/_ext.pyi").read_text())
    stubbed = {node.name for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    stubbed |= {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    stubbed |= {node.targets[0].id for node in stub.body if isinstance(node, ast.Assign)}
    assert not {name for name in vars(extension) if not name.startswith("_")} - stubbed
