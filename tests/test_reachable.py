"""Nothing lies about unused: every module is reached by imports from what a user or a machine starts."""

import ast
from collections.abc import Iterable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("flows", "tasks", "minority", "datasets")
#: Folders whose every module is imported by the one that looks through them, or by entrypoints of people's presets.
SCANNED = {"minority.guidance.registry": "minority.guidance", "flows.reader_forms": "flows.reader_forms"}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_modules() -> dict[str, str]:
    """The source of every module of the libraries, by its name."""
    files = [file for library in LIBRARIES for file in sorted((ROOT / library).rglob("*.py"))]
    return {module_name(file): file.read_text(encoding="utf-8") for file in files}


def imported(source: str, *, handed_on: bool = False) -> set[str]:
    """Every name that a piece of Python may import, at any depth of the code.

    Args:
        source: The code.
        handed_on: Whether what a package only hands on (`if TYPE_CHECKING:`) counts too.
    """
    found, tree = set(), ast.parse(source)
    passed_over = {
        id(below)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not handed_on
        for part in node.body
        for below in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in passed_over:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def started(modules: dict[str, str]) -> set[str]:
    """The modules that are started: the command line, deployments, `python -m`, and the libraries' public faces."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    found = {"flows.command_line", *LIBRARIES, *(entry["entrypoint"].split(":")[0] for entry in deployments)}
    found |= {name for name in modules if name.startswith("flows.checkout")}  # named by the pull step of prefect.yaml
    for source in modules.values():
        texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
        if "-m" in texts:
            found |= {text for text in texts if isinstance(text, str)} & modules.keys()
    return found


def unreached(modules: dict[str, str], roots: Iterable[str], scanned: dict[str, str]) -> list[str]:
    """The modules that no chain of imports leads to."""
    reached: set[str] = set()
    waiting = [name for name in roots if name in modules]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        found = imported(modules[name], handed_on=name in LIBRARIES)
        if name in scanned:
            found |= {other for other in modules if other.startswith(f"{scanned[name]}.")}
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        waiting += [other for other in (found | parents) & modules.keys() if other not in reached]
    return sorted(modules.keys() - reached)


def test_every_module_is_reached_from_what_is_started():
    modules = all_modules()

    lost = unreached(modules, started(modules), SCANNED)

    assert len(modules) > 100
    assert lost == [], "nothing that is started reaches " + ", ".join(lost)


def test_a_module_that_nothing_imports_is_named():
    modules = {
        "flows.start": "def run():\n    from tasks.used import work",
        "flows": "",
        "tasks": "",
        "tasks.used": "import minority.deep.one",
        "tasks.forgotten": "import tasks.used",
        "minority": "",
        "minority.deep": "",
        "minority.deep.one": "",
        "minority.deep.two": "",
    }

    assert unreached(modules, ["flows.start"], {}) == ["minority.deep.two", "tasks.forgotten"]
    assert unreached(modules, ["flows.start"], {"minority.deep.one": "minority.deep"}) == ["tasks.forgotten"]


def test_what_is_started_by_name_counts():
    modules = all_modules()

    assert {"flows.command_line", "flows.reader_forms.digits", "tasks.backbone.train_process", "datasets"} <= started(
        modules
    )
