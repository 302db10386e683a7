"""Pages of the reference, made while the site is built: one a room, from its exports and its modules' docstrings."""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("minority", "datasets")


def rooms() -> dict[str, list[str]]:
    """Every room of the two libraries with its modules, dotted; a module that lies in no room is a room of its own."""
    found: dict[str, list[str]] = {}
    for library in LIBRARIES:
        for path in sorted((ROOT / library).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] == "__init__" or any(part.startswith("_") for part in parts):
                continue
            found.setdefault(".".join(parts[:2]), []).append(".".join(parts))
    return found


def sentence(room: str) -> str:
    """The first sentence of a room's own docstring."""
    place = ROOT / Path(*room.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.?])\s", " ".join(text.split()))[0]


def exports(package: str) -> dict[str, str]:
    """What a package hands on: public name -> dotted name where it is defined, in the order of `__all__`."""
    path = ROOT / Path(*package.split(".")) / "__init__.py"
    if not path.exists():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lists = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    return {name: homes.get(name, f"{package}.{name}") for names in lists for name in ast.literal_eval(names)}


def handed_on(package: str) -> list[str]:
    """The exports of a package as lines of a page, each a link."""
    names = exports(package)
    if not names:
        return []
    # Constants have no docstring of their own, and so no anchor.
    links = [f"`{name}`" if name.isupper() else f"[`{name}`][{home}]" for name, home in names.items()]
    return [f"`from {package} import ...`: {', '.join(links)}", ""]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page a room, and one that lists them."""
    listed = ["# Reference", ""]
    for room, modules in rooms().items():
        page = [f"# {room}", "", sentence(room), "", *handed_on(room)]
        page += [line for module in modules for line in (f"::: {module}", "")]
        files.append(File.generated(config, f"reference/{room}.md", content="\n".join(page)))
        listed.append(f"- [{room}]({room}.md): {sentence(room)}")
    for library in LIBRARIES:
        listed += ["", f"## What {library} hands on", "", sentence(library), "", *handed_on(library)]
    files.append(File.generated(config, "reference/index.md", content="\n".join([*listed, ""])))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to files of the checkout become the names of these files: the site holds the pages alone."""
    return re.sub(r"\[([^\]]*)\]\(\.\./([^)#]+)\)", r"\1 (`\2`)", markdown)
