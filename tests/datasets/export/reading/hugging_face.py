"""Reads an export or a run by Hugging Face's datasets, and prints every row: hugging_face.py BUILDER PLACE [full]"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from datasets import ClassLabel, Features, Image, Value, load_dataset

builder, place = sys.argv[1:3]
where = {
    "imagefolder": {"data_dir": place},
    "parquet": {"data_files": f"{place}/data/*.parquet"},
    "webdataset": {"data_files": f"{place}/shards/*.tar"},
}.get(builder, {})
if sys.argv[3:]:
    record = {"source": Value("string"), "group": Value("string")}
    record |= {"seed": Value("int64"), "sample_index": Value("int64")}
    where["features"] = Features({"__key__": Value("string"), "cls": Value("int64"), "png": Image(), "json": record})
read = load_dataset(
    place if builder == "folder" else builder, split="train", cache_dir=str(Path("cache").absolute()), **where
)
label = read.features.get("label")
rows = []
for row in read:
    image = row.pop("png" if "png" in row else "image")
    pixels = np.asarray(image)
    rows.append(
        {
            "key": row.get("__key__", row.get("key")),
            "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "shape": list(pixels.shape),
            "fields": {name: value for name, value in row.items() if name != "__url__"},
        }
    )
names = label.names if isinstance(label, ClassLabel) else None
sys.stdout.write(json.dumps({"rows": rows, "names": names}, default=str))
