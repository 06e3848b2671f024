# SPDX-License-Identifier: BSD-3-Clause
"""Nothing public is forgotten: every name has a docstring, the stub names what the extension has, and no more."""

import ast
import importlib
import inspect
import pathlib
import pickle

import pytest

import shoal
from shoal import _ext

PACKAGE = pathlib.Path(shoal.__file__).parent
STUB = PACKAGE / "_ext.pyi"
NO_DOCSTRING = {"__version__"}


def stub_tree():
    return ast.parse(STUB.read_text())


def stub_names(body):
    """Public names that the body of a module or class of the stub defines."""
    names = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets)
    return {name for name in names if not name.startswith("_") or name in ("__version__", "_begin", "_settle")}


def public_names(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(shoal.__all__))
def test_every_public_name_is_there_and_has_a_docstring(name):
    thing = getattr(shoal, name)
    if name not in NO_DOCSTRING:
        assert inspect.getdoc(thing), f"shoal.{name} has no docstring"


@pytest.mark.parametrize("name", sorted(name for name in shoal.__all__ if inspect.isclass(getattr(shoal, name))))
def test_every_public_method_has_a_docstring(name):
    cls = getattr(shoal, name)
    undocumented = [
        method
        for method, value in vars(cls).items()
        if not method.startswith("_") and callable(value) and not inspect.getdoc(value)
    ]
    assert not undocumented


def test_all_is_sorted_and_complete():
    assert list(shoal.__all__) == sorted(shoal.__all__)
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    public = {name for name in public_names(shoal) if name not in modules | {"annotations"}}
    assert public <= set(shoal.__all__)


def test_the_exceptions_are_of_the_kinds_that_others_catch():
    import concurrent.futures.process
    import multiprocessing.pool

    assert issubclass(shoal.WorkerLost, concurrent.futures.process.BrokenProcessPool)
    assert issubclass(shoal.WorkerLost, RuntimeError)
    assert issubclass(shoal.PoolBroken, concurrent.futures.process.BrokenProcessPool)
    assert issubclass(shoal.ResultEncodingError, multiprocessing.pool.MaybeEncodingError)
    assert issubclass(shoal.ResultEncodingError, pickle.PicklingError)
    assert issubclass(shoal.PicklingError, pickle.PicklingError)
    assert issubclass(shoal.UnpicklingError, pickle.UnpicklingError)
    assert issubclass(shoal.ArgumentDecodingError, pickle.UnpicklingError)


def test_the_stub_names_what_the_extension_has():
    assert public_names(_ext) | {"__version__"} == stub_names(stub_tree().body)


@pytest.mark.parametrize(
    "cls", [node for node in stub_tree().body if isinstance(node, ast.ClassDef)], ids=lambda n: n.name
)
def test_the_stub_names_what_each_class_has(cls):
    if cls.name.startswith("_"):
        pytest.skip("a protocol of the stub's own")
    real = {name for name in public_names(getattr(_ext, cls.name))}
    named = {name for name in stub_names(cls.body) if not name.startswith("_")}
    instance_only = {"memo", "dispatch_table", "fast", "reducer_override"}  # set on instances
    assert real - named - instance_only == set(), "missing in the stub"
    assert named - real - instance_only == set(), "in the stub only"


@pytest.mark.parametrize("name", sorted(name for name in public_names(_ext) if callable(getattr(_ext, name))))
def test_everything_in_the_extension_has_a_docstring(name):
    thing = getattr(_ext, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing) and thing.__module__ == "shoal._ext":
        for method, value in vars(thing).items():
            if not method.startswith("_") and callable(value):
                assert inspect.getdoc(value), f"{name}.{method}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py*")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_says_its_licence(path):
    if path.suffix in (".py", ".pyi"):
        assert path.read_text().startswith("# SPDX-License-Identifier: BSD-3-Clause\n")


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert STUB.exists()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_can_be_imported_and_has_a_docstring(path):
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    assert importlib.import_module(name.removesuffix(".__init__")).__doc__
