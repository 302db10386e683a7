"""Reads an export by pycocotools, and prints every row: coco.py FOLDER"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools.coco import COCO

folder = Path(sys.argv[1])
coco = COCO(folder / "annotations.json")
rows = []
for number in coco.getImgIds():
    (entry,) = coco.loadImgs(number)
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=number))
    (category,) = coco.loadCats(annotation["category_id"])
    pixels = np.asarray(Image.open(folder / "images" / entry["file_name"]))
    assert coco.annToMask(annotation).all(), "the annotation is about the whole image"
    assert pixels.shape[:2] == (entry["height"], entry["width"])
    rows.append(
        {
            "key": entry["key"],
            "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "shape": list(pixels.shape),
            "fields": entry | {"label": category["id"] - 1, "label_name": category["name"]},
        }
    )
sys.stdout.write(
    json.dumps({"rows": rows, "names": [category["name"] for category in coco.loadCats(coco.getCatIds())]})
)
