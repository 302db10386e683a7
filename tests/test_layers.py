"""Who may know whom: flows -> tasks -> {minority, datasets}, read from the imports."""

import ast
import importlib.metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("flows", "tasks", "minority", "datasets")

#: What a room may never import, at any depth of its code.
FORBIDDEN = {
    "flows": {"minority", "torch", "diffusers", "numpy", "tests", "benchmarks"},
    "tasks": {"flows", "tests", "benchmarks"},
    "minority": {"flows", "tasks", "datasets", "prefect", "tests", "benchmarks"},
    "datasets": {"flows", "tasks", "minority", "prefect", "tests", "benchmarks"},
}
#: Only these tasks touch torch: to choose a device, set threads, or build the network that is to be trained.
TORCH_TASKS = {"workspace.py", "capacity.py", "doctor.py", "backbone.py"}
#: The command line hands one library call through without a task.
ALLOWED = {("flows/tools.py", "datasets")}


def imports(source):
    """(line, top-level package, whether at module level) of every import in a piece of Python."""
    tree = ast.parse(source)
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for node in ast.walk(f)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "a relative import", True
        for name in names:
            yield node.lineno, name.split(".")[0], id(node) not in inside


def broken_arrows(room, path, source):
    """One line for every import that `room` may not have."""
    wrong = []
    for line, package, at_top in imports(source):
        forbidden = package in FORBIDDEN[room] | {"a relative import"}
        if room == "flows" and package == "datasets":
            forbidden = (path, package) not in ALLOWED
        if room == "datasets" and package == "torch":
            forbidden = at_top
        if room == "tasks" and package == "torch":
            forbidden = Path(path).name not in TORCH_TASKS
        if forbidden:
            wrong.append(f"{path}:{line}: {room}/ may not import {package}")
    return wrong


@pytest.mark.parametrize("room", ROOMS)
def test_no_arrow_is_broken(room):
    files = sorted((ROOT / room).rglob("*.py"))

    wrong = [
        line
        for file in files
        for line in broken_arrows(room, file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]

    assert len(files) > 3
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "source", "package"),
    [
        ("minority", "import datasets.storage.store", "datasets"),
        ("minority", "def f():\n    from prefect import task", "prefect"),
        ("datasets", "import torch", "torch"),
        ("datasets", "try:\n    from minority import score\nexcept ImportError:\n    pass", "minority"),
        ("tasks", "from flows.augment import augment", "flows"),
        ("tasks", "import torch", "torch"),
        ("flows", "from datasets import store", "datasets"),
        ("flows", "from .augment import augment", "a relative import"),
    ],
)
def test_a_broken_arrow_is_named_by_file_and_line(room, source, package):
    (problem,) = broken_arrows(room, f"{room}/new.py", source)

    line = 1 + source[: source.index("import")].count("\n")
    assert problem == f"{room}/new.py:{line}: {room}/ may not import {package}"


def test_torch_inside_a_function_is_borne_in_datasets():
    assert broken_arrows("datasets", "datasets/new.py", "def f():\n    import torch") == []


def test_no_file_is_named_for_a_heap_of_things():
    names = {path.stem for room in ROOMS for path in (ROOT / room).rglob("*.py")}

    assert names & {"utils", "helpers", "common", "misc", "util", "helper"} == set()


def test_no_test_folder_is_a_package():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_other_package_called_datasets_is_installed():
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("datasets")


def test_datasets_is_imported_from_this_project():
    import datasets

    assert Path(datasets.__file__).is_relative_to(ROOT)
