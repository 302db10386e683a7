"""The form of a run in Prefect, and what Prefect's server checks by it before a run is created.

Prefect makes a JSON schema of a flow's parameters. Here every setting of it gets its text and an example, a deployment
of one reader loses the settings of the others, and `overrides`, which would take anything, takes the dotted names of
settings with the values that these take.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from minority.sampling.named_samplers import NAMED_SAMPLERS
from tasks.config.form_bounds import bounds_of
from tasks.config.form_examples import example_of, example_of_grid
from tasks.config.form_texts import sections_of, text_of_section, texts_of_settings
from tasks.config.limits import largest
from tasks.config.renamed import names_of
from tasks.config.sections import DatasetConfig, settings_of_reader

_Schema = dict[str, Any]
#: What a schema says for people alone.
_FOR_PEOPLE = ("title", "description", "default", "examples", "position")
_GRID = "Grid"
#: How the schema of a number tells its range.
_ENDS = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}
#: Pattern of a name that people choose, e.g. of a flag.
_ANY_NAME = "[^.]+"


@dataclass(frozen=True)
class ConfigForm:
    """Annotation of a flow's parameter `config`: the form shows text and example of every setting.

    Attributes:
        kind: The config.
        reader: The only reader whose settings are shown; None shows those of all.
    """

    kind: type[BaseModel]
    reader: str | None = None

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> _Schema:
        """The schema that Prefect shows and checks by."""
        schema = handler(core)
        editor = _Editor(handler, self)
        editor.edit(schema)
        return schema | {"examples": [editor.least(schema)]}


@dataclass(frozen=True)
class OverridesForm:
    """Annotation of a flow's parameter `overrides`: it takes the settings of a config by their dotted names.

    Attributes:
        config: The form of the config whose settings they are.
    """

    config: ConfigForm

    def __get_pydantic_json_schema__(self, _core: CoreSchema, handler: GetJsonSchemaHandler) -> _Schema:
        """The schema that Prefect shows and checks by."""
        schema = handler(self.config.kind.__pydantic_core_schema__)
        editor = _Editor(handler, self.config)
        editor.edit(schema)
        settings: _Schema = {}
        for path, node in editor.settings(schema, ()):
            kept = {key: value for key, value in node.items() if key not in _FOR_PEOPLE}
            for name in names_of(path):
                settings["^" + r"\.".join(name) + "$"] = kept
        # By patterns, so that the form has one field for it, and no second copy of all the others.
        taken = {"type": "object", "patternProperties": settings, "unevaluatedProperties": False}
        example = {"seed": 3} if "seed" in self.config.kind.model_fields else {"device": "cpu"}
        return {"anyOf": [taken, {"type": "null"}], "examples": [example]}


class _Editor:
    """Edits the definitions of one schema where they stand."""

    def __init__(self, handler: GetJsonSchemaHandler, form: ConfigForm) -> None:
        self._handler, self._form = handler, form
        self._sections = sections_of(form.kind)
        self._seen: set[int] = set()

    def edit(self, node: _Schema) -> None:
        """Give every setting below a node its text and example, once."""
        for section in self._options(node):
            if id(section) in self._seen:
                continue
            self._seen.add(id(section))
            for below in _below(section):
                self.edit(below)
            name = section.get("title", "")
            if name in self._sections and "properties" in section:
                self._edit_section(name, section)

    def settings(self, node: _Schema, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Schema]]:
        """Every setting below a node: a pattern for each part of its dotted name, and its schema."""
        for section in self._options(node):
            below = dict(section.get("properties", {}))
            others = section.get("additionalProperties", False)
            if others is not False:
                below[_ANY_NAME] = others if isinstance(others, dict) else {}
            for name, setting in below.items():
                yield (*path, name), setting
                yield from self.settings(setting, (*path, name))

    def _options(self, node: _Schema) -> Iterator[_Schema]:
        """What a node may be: the definition that it refers to, its alternatives, or itself."""
        if "$ref" in node:
            yield from self._options(self._handler.resolve_ref_schema({"$ref": node["$ref"]}))
        elif "anyOf" in node:
            for option in node["anyOf"]:
                yield from self._options(option)
        else:
            yield node

    def _edit_section(self, name: str, section: _Schema) -> None:
        kind = self._sections[name]
        section["description"] = text_of_section(kind)
        if kind is DatasetConfig and self._form.reader is not None:
            _keep_reader(section, self._form.reader)
        method = self._sections.get(name.removesuffix(_GRID)) if name.endswith(_GRID) else None
        texts = texts_of_settings(method or kind)
        for setting, node in section["properties"].items():
            text = texts.get(setting) or next(map(text_of_section, self._sections_at(node)), "")
            node.setdefault("description", f"Values to search. {text}" if method else text)
            example = example_of_grid(method, setting) if method else example_of(name, setting, node, self.least)
            if example is not None:
                node.setdefault("examples", [example])
            if method is None:
                self._bound(kind, setting, node, section)
            _limit(node, setting)
            _close(node)
        if name == "SamplerSettings":
            self._take_names(section)

    def _bound(self, kind: type, setting: str, node: _Schema, section: _Schema) -> None:
        """Put the ends of its range at a number that has none yet."""
        for option in [node, *node.get("anyOf", [])]:
            if option.get("type") in ("integer", "number") and not _ENDS & option.keys():
                given = {name: section["properties"][name]["examples"][0] for name in section.get("required", [])}
                option |= bounds_of(kind, setting, given=given, whole=option["type"] == "integer")

    def _sections_at(self, node: _Schema) -> Iterator[type]:
        """The sections that a setting may hold, by itself or in a list."""
        for part in [node, *_below(node)]:
            for option in self._options(part):
                if option.get("title") in self._sections:
                    yield self._sections[option["title"]]

    def least(self, node: _Schema) -> dict[str, Any] | None:
        """Examples of what a section must have that a setting may hold; None where it holds none."""
        for option in self._options(node):
            title = option.get("title")
            if title in self._sections and "properties" in option:
                settings = option["properties"]
                return {
                    name: example_of(title, name, settings[name], self.least) for name in option.get("required", [])
                }
        return None

    def _take_names(self, section: _Schema) -> None:
        """A sampler may be named, and then need not have what its methods need."""
        for node in section["properties"].values():
            for option in self._options(node):
                option.pop("required", None)
        section["properties"]["name"] = {
            "description": "A named sampler (`minority sample --list`), whose settings those beside it change.",
            "enum": sorted(NAMED_SAMPLERS),
            "examples": ["sgms"],
            "title": "Name",
        }


def _keep_reader(section: _Schema, reader: str) -> None:
    settings = settings_of_reader(reader)  # type: ignore[arg-type]
    section["properties"] = {name: node for name, node in section["properties"].items() if name in settings}
    section["properties"]["reader"] |= {"enum": [reader], "examples": [reader]}


def _close(node: _Schema) -> None:
    """Where a sampler may stand, only its settings and the names that there are may."""
    free = {"additionalProperties": True, "type": "object"}
    if free in node.get("anyOf", []):
        named = {"enum": sorted(NAMED_SAMPLERS), "type": "string"}
        node["anyOf"] = [named if option == {"type": "string"} else option for option in node["anyOf"]]
        node["anyOf"].remove(free)


def _below(section: _Schema) -> Iterator[_Schema]:
    """The schemas that stand directly below one."""
    yield from section.get("properties", {}).values()
    for key in ("items", "additionalProperties"):
        if isinstance(section.get(key), dict):
            yield section[key]


def _limit(node: _Schema, setting: str) -> None:
    """Put the largest number that makes sense at every number of a setting."""
    most = largest(setting)
    for option in [node, *node.get("anyOf", []), *_below(node)]:
        is_number = option.get("type") in ("integer", "number")
        if is_number and most is not None and not {"maximum", "exclusiveMaximum"} & option.keys():
            option["maximum"] = most
        if option is not node and ("items" in option or "anyOf" in option):
            _limit(option, setting)
