"""An example for every setting in a run's form: its default, or one from here where that would show nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any

from pydantic_core import to_jsonable_python

_Schema = dict[str, Any]

#: Section.setting -> example, for settings whose default shows nothing.
_OF_SETTING: dict[str, Any] = {
    "AugmentConfig.run_id": "nightly-2026-11-29",
    "AugmentConfig.units_a_task": 4,
    "AdaptConfig.out": "adapters/t2i-demo",
    "AdapterConfig.path": "adapters/t2i-demo",
    "AdapterConfig.token": "<lesion>",
    "ArmsConfig.arms": ["real", "oversampling", "real+minority"],
    "ArmsConfig.policies": ["clean", "consistent"],
    "BackboneConfig.adapters": [{"path": "adapters/t2i-demo"}],
    "BackboneConfig.distilled": True,
    "BackboneConfig.embedded_guidance": 3.5,
    "BackboneConfig.path": "backbones/digits",
    "BackboneConfig.size": 512,
    "ComposedConditions.separate": [2.0, 1.0],
    "DatasetConfig.classes": ["cat", "dog"],
    "DatasetConfig.colours": "skewed",
    "DatasetConfig.discovered": "runs/celeba/discovered/3b34d8e1a725/discovered.parquet",
    "DatasetConfig.discovered_column": "conflicting",
    "DatasetConfig.folder": "data/celeba",
    "DatasetConfig.image_size": 64,
    "DatasetConfig.max_images": 5000,
    "DatasetConfig.source": "synthetic",
    "DatasetConfig.table": "examples/sets/ham10000.yaml",
    "DownstreamConfig.manifest": "runs/digits/runs/aee4acf8d67d/manifest.json",
    "GroupColumn.column": "sex",
    "GroupColumn.edges": [40, 60],
    "EvaluationFeatures.network": "resnet50",
    "ExtractorSettings.network": "resnet50",
    "NetworkSettings.input_size": 224,
    "PlanConfig.quota": 200,
    "PretrainedOn.what": "ImageNet-1k, 64x64",
    "PromptsConfig.groups": {"blond man": ["a portrait of a man with blond hair"]},
    "PromptsConfig.negative": "blurred, text",
    "PromptsConfig.templates": ["a photo of a {label}"],
    "PromptsConfig.words": {"Male": {"0": "woman", "1": "man"}},
    "SamplerSettings.name": "sgms",
    "ScoreSettings.real_images": 1000,
    "SelectionSettings.label_precision": 0.95,
    "SelfGuidance.scale": 3.0,
    "ShapedNoise.truncate": 2.0,
    "SplitSettings.imbalance": 20,
    "SplitSettings.validation_cap": 60,
    "SplitSettings.validation_each": 10,
    "StageConfig.path": "checkpoints/celeba64.pt",
    "TableSettings.channels": 3,
    "TableSettings.classes": ["nv", "mel"],
    "TableSettings.groups": [{"column": "sex"}],
    "TableSettings.identity_column": "lesion_id",
    "TableSettings.image_column": "image_id",
    "TableSettings.mask_column": "mask",
    "TableSettings.image_prefix": "images/",
    "TableSettings.image_size": 64,
    "TableSettings.image_suffix": ".jpg",
    "TableSettings.label_column": "dx",
    "TableSettings.label_values": {"bcc": "cancer", "mel": "cancer", "nv": "mole"},
    "TableSettings.name": "ham10000",
    "TableSettings.split_column": "part",
    "TableSettings.split_values": {"training": "train", "validation": "validation", "test": "test"},
    "TableSettings.table": "HAM10000_metadata.csv",
    "TarSettings.classes": ["cat", "dog"],
    "TextModelConfig.words": ["photo", "bold", "thin"],
    "TextModelSettings.horizon": 4000,
    "TrainBackboneConfig.conditions": ["label", "sex"],
    "TrainBackboneConfig.published": "FID 4.1 at 64x64 (Dhariwal & Nichol 2021)",
    "TrainBackboneConfig.out": "backbones/digits",
    "TrainBackboneConfig.watch": {"every": 500},
    "TrainingSettings.average_lengths": [0.05, 0.1],
    "TrainingSettings.min_snr_gamma": 5.0,
    "UpsamplerConfig.path": "checkpoints/upsampler.pt",
}
#: The same for settings that mean one thing wherever they stand.
_OF_NAME: dict[str, Any] = {
    "flags": {"preset": "celeba64"},
    "name": "digits",
    "reader": "digits",
    "repository": "checkpoints/dinov2",
    "revision": "main",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "weights": "checkpoints/resnet50.safetensors",
}


def example_of(
    section: str, setting: str, node: _Schema, section_example: Callable[[_Schema], dict[str, Any] | None]
) -> Any:
    """An example for a setting.

    Args:
        section: The class of its section.
        setting: Its name.
        node: Its schema.
        section_example: Gives the least that a section at this place may hold; None where the setting holds no section.

    Returns:
        A JSON value that the setting takes; None where there is none to tell.
    """
    if "examples" in node:
        return node["examples"][0]
    for table, key in ((_OF_SETTING, f"{section}.{setting}"), (_OF_NAME, setting)):
        if key in table and not (table is _OF_NAME and node.get("default")):
            return table[key]
    if node.get("default") not in (None, [], {}):
        return node["default"]
    if (least := section_example(node)) is not None:
        return least
    if "items" in node and (least := section_example(node["items"])) is not None:
        return [least]
    options = [node, *node.get("anyOf", [])]
    return next((option["enum"][0] for option in options if "enum" in option), None)


def example_of_grid(kind: type, setting: str) -> list[Any] | None:
    """An example of the values of a method's setting that a calibration searches: its default alone."""
    declared = next(field for field in dataclasses.fields(kind) if field.name == setting)
    value = _OF_SETTING.get(f"{kind.__name__}.{setting}", declared.default)
    if declared.default_factory is not dataclasses.MISSING:
        value = dataclasses.asdict(declared.default_factory())
    if value is None:
        value = _OF_NAME.get(setting)
    return None if value is None or value is dataclasses.MISSING else [to_jsonable_python(value)]
