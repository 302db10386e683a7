"""What Hugging Face's reader is told of a table's columns: which are images, and what labels mean."""

import json
from collections.abc import Sequence

import pyarrow as pa


def with_features(rows: pa.Table, class_names: Sequence[str], *, image_column: str | None = None) -> pa.Table:
    """The table with labels as 64-bit numbers, and a note in its schema that `datasets` reads features from.

    Args:
        rows: With a column `label`.
        class_names: What each label means.
        image_column: A column of structs of bytes and path that holds images, if there is one.
    """
    place = rows.schema.get_field_index("label")
    rows = rows.set_column(place, "label", rows["label"].cast(pa.int64()))
    features: dict[str, object] = {"label": {"names": list(class_names), "_type": "ClassLabel"}}
    if image_column is not None:
        features[image_column] = {"_type": "Image"}
    # A reader that compares the note with a column's field wants it nullable.
    schema = pa.schema([field.with_nullable(True) for field in rows.schema])
    note = json.dumps({"info": {"features": features}})
    return rows.cast(schema).replace_schema_metadata({"huggingface": note})
