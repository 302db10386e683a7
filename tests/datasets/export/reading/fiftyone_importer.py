"""Reads an export by FiftyOne, and prints every row: fiftyone_importer.py FOLDER

FiftyOne keeps datasets in MongoDB. Where FIFTYONE_DATABASE_URI names a server, the export becomes a dataset there and
is read from it; else FiftyOne's own importer gives its samples, and its own fields validate their values.
"""

import hashlib
import json
import os
import sys

import numpy as np
from PIL import Image

has_server = "FIFTYONE_DATABASE_URI" in os.environ
if not has_server:
    os.environ["FIFTYONE_DATABASE_URI"] = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
    os.environ["FIFTYONE_DATABASE_VALIDATION"] = "false"

import fiftyone as fo  # noqa: E402
import fiftyone.core.odm as odm  # noqa: E402
from fiftyone.utils.data.importers import LegacyFiftyOneDatasetImporter  # noqa: E402

folder = sys.argv[1]
if has_server:
    samples = fo.Dataset.from_dir(dataset_dir=folder, dataset_type=fo.types.LegacyFiftyOneDataset)
    names = samples.info["classes"]
    columns = list(samples.get_field_schema())
else:
    importer = LegacyFiftyOneDatasetImporter(folder)
    importer.setup()
    samples, names = importer, importer.get_dataset_info()["classes"]
    columns = list(importer.get_sample_field_schema())
    kinds = importer.get_sample_field_schema().items()
    fields = {name: odm.create_field(name, **odm.get_field_kwargs(kind)) for name, kind in kinds}
rows = []
for sample in samples:
    pixels = np.asarray(Image.open(sample.filepath))
    for name in () if has_server else columns:
        if sample[name] is not None:
            fields[name].validate(sample[name])
    values = {name: sample[name] for name in columns if name not in ("id", "filepath", "ground_truth", "metadata")}
    rows.append(
        {
            "key": sample.key,
            "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "shape": list(pixels.shape),
            "fields": values | {"label": sample.label_index, "label_name": sample.ground_truth.label},
        }
    )
sys.stdout.write(json.dumps({"rows": rows, "names": names, "server": has_server}, default=str))
