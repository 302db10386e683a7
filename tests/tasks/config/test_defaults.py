"""Settings at their defaults are not in the recipe, so a default that changes must raise RECIPE_VERSION.

defaults.json holds the defaults of the present version. Where RECIPE_VERSION was raised, write it anew:

    python -m pytest tests/tasks/config/test_defaults.py    # says what changed
    PYTHONPATH=. python tests/tasks/config/test_defaults.py
"""

import dataclasses
import json
import typing
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from tasks.config.runs import RECIPE_VERSION, AugmentConfig, CalibrateConfig

FILE = Path(__file__).with_name("defaults.json")


def is_section(kind):
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel))


def sections_in(annotation):
    """The sections that a setting may hold, by its annotation."""
    found = [annotation] if is_section(annotation) else []
    return found + [kind for part in typing.get_args(annotation) for kind in sections_in(part)]


def own_defaults(kind):
    """Every setting of a section with its default; those that have one."""
    if issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if default is not PydanticUndefined:
                yield name, default
        return
    for field in dataclasses.fields(kind):
        if field.default_factory is not dataclasses.MISSING:
            yield field.name, field.default_factory()
        elif field.default is not dataclasses.MISSING:
            yield field.name, field.default


def all_defaults(kind, path=""):
    """Dotted setting -> default, in sections that are none by default too."""
    hints = typing.get_type_hints(kind)
    found = {}
    for name, default in own_defaults(kind):
        if not sections_in(hints[name]) or default is None or isinstance(default, tuple):
            found[f"{path}{name}"] = to_jsonable_python(default)
    for name, annotation in hints.items():
        for section in sections_in(annotation):
            found |= all_defaults(section, f"{path}{name}.")
    return found


def defaults():
    """What a recipe leaves out, by the kind of run."""
    return {kind.__name__: all_defaults(kind) for kind in (AugmentConfig, CalibrateConfig)}


def test_a_default_that_changes_raises_the_version_of_recipes():
    written = json.loads(FILE.read_text())

    assert written["version"] == RECIPE_VERSION, "RECIPE_VERSION was raised: write defaults.json anew, as above"
    for kind, now in defaults().items():
        before = written["defaults"][kind]
        assert len(before) > 80
        changed = {name: (before[name], now[name]) for name in before.keys() & now.keys() if before[name] != now[name]}
        assert changed == {}, "runs at this default would keep their name, but not their images: raise RECIPE_VERSION"


if __name__ == "__main__":
    content = {"version": RECIPE_VERSION, "defaults": defaults()}
    FILE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
