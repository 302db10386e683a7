"""Public names of a package that are imported when they are first asked for, so that a package costs what is used."""

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def exported_from(init_file: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562) whose public names are what its `if TYPE_CHECKING:` imports.

    Args:
        init_file: The `__init__.py` of the package, which type checkers and readers see that block in.

    Returns:
        A function that takes a name and gives what it stands for; AttributeError where there is no such name.
    """

    @cache
    def homes() -> dict[str, str]:
        tree = ast.parse(Path(init_file).read_text(encoding="utf-8"))
        blocks = [node.body for node in tree.body if isinstance(node, ast.If)]
        lines = [line for block in blocks for line in block if isinstance(line, ast.ImportFrom)]
        return {alias.name: str(line.module) for line in lines for alias in line.names}

    def find(name: str) -> Any:
        if name not in homes():
            package = ".".join(Path(init_file).parent.parts[-2:])
            raise AttributeError(f"{package} has no public name {name!r}.")
        return getattr(import_module(homes()[name]), name)

    return find
