"""An export that FiftyOne reads: `data/` and `samples.json`, the layout of its type `LegacyFiftyOneDataset`.

That type is told by plain JSON alone; `FiftyOneDataset` would need a copy of the database's own documents, which
change with FiftyOne's version.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets.export.json_values import json_text, json_value
from datasets.export.opened import ExportImage, OpenedRun

_FIELD = "fiftyone.core.fields."
#: Of a row; `ground_truth` has them.
_OF_GROUND_TRUTH = ("label", "label_name")


def write_fiftyone(run: OpenedRun, folder: Path) -> None:
    """Write a run's images and their samples into an empty folder. Real and synthetic images are tagged so."""
    (folder / "data").mkdir()
    samples = []
    for image in run.images():
        name = f"data/{image.key}.{image.extension}"
        (folder / name).write_bytes(image.data)
        samples.append(json_text(_sample(name, image)))
    (folder / "samples.json").write_text('{"samples": [\n' + ",\n".join(samples) + "]}\n", encoding="utf-8")
    manifest = run.manifest
    about = {
        "media_type": "image",
        "sample_fields": _fields(run.rows.schema),
        "info": {
            "dataset": manifest.dataset,
            "run_id": manifest.run_id,
            "recipe": manifest.recipe,
            "backbone": manifest.backbone,
            "classes": run.class_names,
        },
    }
    (folder / "metadata.json").write_text(json_text(about) + "\n", encoding="utf-8")


def _sample(name: str, image: ExportImage) -> dict[str, Any]:
    fields = {column: json_value(value) for column, value in image.fields.items() if column not in _OF_GROUND_TRUTH}
    label = {"_cls": "Classification", "label": image.fields["label_name"]}
    return {
        "filepath": name,
        "tags": [image.fields["source"]],
        "ground_truth": label,
        "label_index": image.label,
    } | fields


def _fields(schema: pa.Schema) -> dict[str, str]:
    """What each field is, so that those that are empty in the first samples have a type."""
    fields = {
        "filepath": f"{_FIELD}StringField",
        "tags": f"{_FIELD}ListField({_FIELD}StringField)",
        "ground_truth": f"{_FIELD}EmbeddedDocumentField(fiftyone.core.labels.Classification)",
        "label_index": f"{_FIELD}IntField",
    }
    for column in schema:
        if column.name not in _OF_GROUND_TRUTH:
            fields[column.name] = _field_of(column.type)
    return fields


def _field_of(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_FIELD}ListField({_field_of(kind.value_type)})"
    if pa.types.is_boolean(kind):
        return f"{_FIELD}BooleanField"
    if pa.types.is_integer(kind):
        return f"{_FIELD}IntField"
    return f"{_FIELD}{'FloatField' if pa.types.is_floating(kind) else 'StringField'}"
