"""Pages of the reference, made while the site is built: one a room, from the docstrings of its public modules."""

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


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page a room, and one that lists them."""
    listed = ["# Reference", ""]
    for room, modules in rooms().items():
        page = [f"# {room}", "", sentence(room), ""]
        page += [line for module in modules for line in (f"::: {module}", "")]
        files.append(File.generated(config, f"reference/{room}.md", content="\n".join(page)))
        listed.append(f"- [{room}]({room}.md): {sentence(room)}")
    files.append(File.generated(config, "reference/index.md", content="\n".join([*listed, ""])))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to files of the checkout become the names of these files: the site holds the pages alone."""
    return re.sub(r"\[([^\]]*)\]\(\.\./([^)#]+)\)", r"\1 (`\2`)", markdown)
