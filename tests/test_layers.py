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
TORCH_TASKS = {
    "tasks/inputs/workspace.py",
    "tasks/execution/capacity.py",
    "tasks/commands/doctor.py",
    "tasks/backbone/network.py",
    "tasks/backbone/train.py",
}
#: The rooms inside the libraries, floor by floor from the ground: a room imports from the floors below it alone.
FLOORS = {
    "minority": (
        {"_exports"},
        {"weights", "runtime", "neighbours"},
        {"diffusion", "classifier"},
        {"backbones", "solvers", "downstream"},
        {"features", "engine", "discovery"},
        {"guidance", "selection"},
        {"sampling"},
        {"evaluation"},
        {"calibration", "training"},
    ),
    "tasks": (
        {"errors"},
        {"execution"},
        {"config"},
        {"inputs"},
        {"augment", "backbone", "downstream", "commands", "discovery"},
        {"calibration", "checks"},
        {"report"},
        {"estimates", "review"},
    ),
    "datasets": (
        {"_exports"},
        {"storage", "contact_sheet"},
        {"readers"},
        {"splits"},
        {"runs", "describe", "survey"},
        {"streaming", "export"},
    ),
    "datasets.readers": ({"imageset", "names"}, {"images", "tables", "tars"}),
}
#: Rooms in which whatever has no floor of its own stands on top: the readers, a file each.
OPEN_ON_TOP = {"datasets.readers"}
#: The command line hands one library call through without a task, and escapes what it prints.
ALLOWED = {(f"flows/{name}.py", "datasets") for name in ("tools", "shell", "output", "result_table")}


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
            forbidden = path not in TORCH_TASKS
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


def room_imports(library, source):
    """(line, room) of every import of a room of the same library, dotted, at any depth of the code."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inside = node.module == library
            names = [f"{library}.{alias.name}" for alias in node.names] if inside else [node.module]
        for name in names:
            if name.startswith(f"{library}."):
                yield node.lineno, name.removeprefix(f"{library}.").split(".")[0]


def climbing_imports(library, path, source):
    """One line for every import that does not lead to a floor below."""
    floors = {room: floor for floor, rooms in enumerate(FLOORS[library]) for room in rooms}
    place = library.replace(".", "/")
    own = path.removeprefix(f"{place}/").removesuffix(".py").split("/")[0]
    if own == "__init__" or (own not in floors and library in OPEN_ON_TOP):
        return []
    if own not in floors:
        return [f"{path}: {place}/ has no floor for {own}; give it one in FLOORS"]
    return [
        f"{path}:{line}: {place}/{own} may not import {place}/{room}"
        for line, room in room_imports(library, source)
        if room != own and floors.get(room, len(floors)) >= floors[own]
    ]


@pytest.mark.parametrize("library", sorted(FLOORS))
def test_rooms_of_a_library_import_from_the_floors_below_alone(library):
    files = sorted((ROOT / library.replace(".", "/")).rglob("*.py"))

    wrong = [
        line
        for file in files
        for line in climbing_imports(library, file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]

    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(FLOORS))
def test_every_floor_names_rooms_that_are_there(library):
    rooms = {path.stem for path in (ROOT / library.replace(".", "/")).iterdir()}

    assert set().union(*FLOORS[library]) - rooms == set()


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        (
            "minority/backbones/new.py",
            "import torch\nfrom minority.sampling.draw import draw",
            "minority/backbones/new.py:2: minority/backbones may not import minority/sampling",
        ),
        (
            "minority/guidance/new.py",
            "def f():\n    import minority.selection.filter_building",
            "minority/guidance/new.py:2: minority/guidance may not import minority/selection",
        ),
        (
            "tasks/inputs/new.py",
            "from tasks import report",
            "tasks/inputs/new.py:1: tasks/inputs may not import tasks/report",
        ),
        ("datasets/attic/new.py", "", "datasets/attic/new.py: datasets/ has no floor for attic; give it one in FLOORS"),
    ],
)
def test_a_climbing_import_is_named_by_file_and_line(path, source, problem):
    assert climbing_imports(path.split("/")[0], path, source) == [problem]


def test_what_readers_stand_on_imports_no_reader():
    code = "from datasets.readers.tables.table_cells import read_cells\nfrom datasets.readers.folder import read_folder"

    assert climbing_imports("datasets.readers", "datasets/readers/new.py", code) == []
    assert climbing_imports("datasets.readers", "datasets/readers/images/new.py", code) == [
        "datasets/readers/images/new.py:1: datasets/readers/images may not import datasets/readers/tables",
        "datasets/readers/images/new.py:2: datasets/readers/images may not import datasets/readers/folder",
    ]


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
