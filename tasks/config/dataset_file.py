"""A set of images that stands in a YAML file of its own, as in examples/sets/, without a preset around it."""

from collections.abc import Mapping
from typing import Any

from datasets.storage.yaml_text import load_yaml, plain
from tasks.config.paths import project_path
from tasks.config.presets import load_preset, validate
from tasks.config.runs import AugmentConfig
from tasks.config.sections import DatasetConfig, Section
from tasks.errors import InputError


class _WithDataset(Section):
    """So that single settings have the names that they have in a run: dataset.split.seed."""

    dataset: DatasetConfig


def load_dataset(source: str, *, overrides: Mapping[str, Any]) -> DatasetConfig:
    """The dataset section of an augment preset, or one in a file.

    Args:
        source: A preset's name; or a YAML file that holds a dataset section (`reader: cifar10`, `folder: ...`) or the
            settings of a table, whose images are then looked for in data/<the set's name>.
        overrides: Dotted keys and their values, e.g. {"dataset.folder": "/data/skin"}.

    Raises:
        InputError: There is no such preset or file, or it is wrong.
    """
    if not source.endswith((".yaml", ".yml")):
        return load_preset(AugmentConfig, source, overrides=overrides).dataset
    try:
        content = load_yaml(project_path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source} cannot be read as YAML ({str(error).splitlines()[0]}); look at the file."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{source} must hold keys and values, e.g. `reader: cifar10`; got {plain(content)!r:.60}.")
    if "reader" not in content:
        folder = f"data/{plain(content.get('name', ''))}"
        content = {"reader": "image_table", "folder": folder, "table": source}
    return validate(_WithDataset, {"dataset": content}, overrides=overrides).dataset
