"""Presets: the deployments of prefect.yaml, and how single settings of them are overridden.

A preset is read, overridden and checked in the same way by the command line and by a deployed flow.
"""

import copy
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from datasets.storage.yaml_text import load_yaml, plain
from tasks.config.preset_files import entries, entries_in, flow_of, named_file, options, worded
from tasks.config.renamed import new_name, under_new_names
from tasks.config.runs import (
    AdaptConfig,
    AugmentConfig,
    CalibrateConfig,
    DiscoverConfig,
    DownstreamConfig,
    TrainBackboneConfig,
)
from tasks.config.written import as_declared, as_declared_at
from tasks.errors import InputError

#: Flow name -> the model of its config.
FLOWS: dict[str, type[BaseModel]] = {
    "augment": AugmentConfig,
    "backbone": TrainBackboneConfig,
    "adapt": AdaptConfig,
    "calibrate": CalibrateConfig,
    "discover": DiscoverConfig,
    "downstream": DownstreamConfig,
}

Config = TypeVar("Config", bound=BaseModel)


def load_preset(kind: type[Config], name: str, *, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config of a preset.

    Args:
        kind: AugmentConfig, TrainBackboneConfig or CalibrateConfig: which flow's presets are meant.
        name: The preset's name, e.g. "digits"; "augment/digits" is understood too.
        overrides: Dotted keys and their values, e.g. {"sampler.self_guidance.scale": 3}.

    Raises:
        InputError: No such preset, or a key or value that the config does not know.
    """
    flow = next(flow for flow, model in FLOWS.items() if model is kind)
    wanted = name.removeprefix(f"{flow}/")
    presets = {entry["name"]: entry for entry in _deployments() if flow_of(entry) == flow}
    if wanted not in presets:
        raise InputError(f"there is no preset {flow}/{wanted}; {options(wanted, sorted(presets))}.")
    return validate(kind, presets[wanted]["parameters"]["config"], overrides=overrides or {})


def load_discovery(name: str, *, overrides: Mapping[str, Any] | None = None) -> DiscoverConfig:
    """The search for hidden groups of a preset: one of its own, else on the images and backbone of an augment preset.

    Args:
        name: E.g. "celeba"; "discover/celeba" and "augment/celeba" are understood too.
        overrides: Dotted keys of the search and their values.

    Raises:
        InputError: There is neither, or a key or value is wrong.
    """
    wanted = name.removeprefix("discover/")
    if any(flow_of(entry) == "discover" and entry["name"] == wanted for entry in _deployments()):
        return load_preset(DiscoverConfig, wanted, overrides=overrides)
    augment = load_preset(AugmentConfig, wanted)
    shared = ("name", "dataset", "backbone", "store", "device", "workers")
    values = {key: value for key, value in augment.model_dump(mode="json").items() if key in shared}
    return validate(DiscoverConfig, values, overrides=overrides or {})


def validate(kind: type[Config], values: Mapping[str, Any], *, overrides: Mapping[str, Any]) -> Config:
    """Check config values after overriding some of them.

    Raises:
        InputError: In one line, every key that is wrong, the value found and what is wrong with it.
    """
    try:
        tree = as_declared(under_new_names(values), kind)
        for key, value in overrides.items():
            _set(tree, new_name(key), copy.deepcopy(value))
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError("; ".join(_problem(kind, problem) for problem in error.errors()) + ".") from error


def command_of(config: BaseModel, *, exclude: Sequence[str] = ()) -> str:
    """The command that gives this very config: the preset of its name, and every setting that differs from it.

    Args:
        config: Of any flow.
        exclude: Settings at the top that do not matter, such as places of this machine.

    Raises:
        InputError: There is no preset of its name.
    """
    flow = next(flow for flow, model in FLOWS.items() if model is type(config))
    name: str = config.name  # type: ignore[attr-defined]
    preset = load_preset(type(config), name)
    settings, of_preset = (part.model_dump(mode="json", exclude=set(exclude)) for part in (config, preset))
    changes = [f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in _differences(settings, of_preset)]
    verb = {"backbone": "train-backbone"}.get(flow, flow)
    return " ".join(["minority", verb, name, *_named_file(), *changes])


def _named_file() -> list[str]:
    """How a command names the file of its preset, where it is none of the project's."""
    named = named_file()
    return [] if named is None else [f"--config {shlex.quote(str(named))}"]


def _differences(
    settings: Mapping[str, Any], of_preset: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        other, dotted = of_preset.get(key), f"{path}{key}"
        if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
            yield from _differences(value, other, f"{dotted}.")
        elif value != other:
            yield dotted, value


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Read "key=value" texts; the value is YAML, so that 3, 0.5, true, null and "text" are what they look like.

    Where a flow's config has a setting of that name which takes texts, the value is the text as it was written:
    `dataset.table.classes=[no, 01]` are two words.

    Raises:
        InputError: A text without "=" or with an unreadable value.
    """
    overrides = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set takes key=value, got {assignment!r}; e.g. --set sampler.steps=25.")
        try:
            overrides[key.strip()] = _of_setting(new_name(key.strip()), load_yaml(value))
        except ValueError as error:
            raise InputError(f"the value of {key.strip()} is not readable: {value!r}.") from error
    return overrides


def _of_setting(key: str, value: Any) -> Any:
    """The value as the first flow with such a setting wants it; as YAML takes it where none has."""
    for kind in FLOWS.values():
        known, declared = as_declared_at(value, key, kind)
        if known:
            return declared
    return plain(value)


def training_of(backbone: str) -> str | None:
    """The command that trains a backbone: that of the preset whose `out` names its folder; None where there is none."""
    for entry in _deployments():
        if flow_of(entry) == "backbone" and entry["parameters"]["config"].get("out") == backbone:
            return " ".join(["minority train-backbone", entry["name"], *_named_file()])
    return None


def presets_in(text: str, *, source: str) -> list[tuple[str, dict[str, Any]]]:
    """Every preset of a file's content, as (flow, deployment), with the texts of its config as they were written.

    Args:
        text: YAML with a list `deployments`, as `prefect deploy` takes it.
        source: What messages call the file.

    Raises:
        InputError: It is no such YAML.
    """
    return [(flow_of(entry), _in_words(entry)) for entry in entries_in(text, source=source)]


def _in_words(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A deployment of plain values: names and the texts of its config are what was written, quoted or not."""
    words = {key: worded(entry, key) for key in ("name", "description")}
    parameters = plain(entry["parameters"])
    if isinstance(parameters, dict) and "config" in parameters:
        parameters["config"] = as_declared(entry["parameters"]["config"], FLOWS[flow_of(entry)])
    return {**plain(entry), **words, "parameters": parameters}


def _deployments() -> list[dict[str, Any]]:
    """Of prefect.yaml, then of the user's own files."""
    return [_in_words(entry) for entry in entries()]


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        below = node.get(parent)
        if below is None:
            below = node[parent] = {}
        if not isinstance(below, dict):
            raise InputError(f"{key} cannot be set: {parent} is a single value, {below!r}.")
        node = below
    node[last] = value


def _problem(kind: type[BaseModel], problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("function-"))
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{path} is not a setting; {options(problem['loc'][-1], _settings_beside(kind, problem['loc']))}"
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    # Our own rules name the value themselves, and those about a whole config the setting too.
    if problem["type"] == "value_error":
        return f"{path}: {message}" if path else message
    return f"{path}: {message}, got {problem['input']!r}"


def _settings_beside(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    schema = kind.model_json_schema()
    node = schema
    for part in location[:-1]:
        node = _resolve(schema, node).get("properties", {}).get(part, node)
    return sorted(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in [node, *node.get("anyOf", []), *node.get("allOf", [])]:
        if "$ref" in option:
            definition: dict[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[1]]
            return definition
    return node
