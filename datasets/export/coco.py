"""An export in COCO's layout: `images/` and one `annotations.json`, with one annotation an image.

COCO describes objects by boxes; what is known here is the class of a whole image. The annotation is therefore a box
around all of it, and says so (`"whole_image": true`). The fields of a row stand in the image's entry.
"""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from datasets.export.json_values import json_text, json_value
from datasets.export.opened import ExportImage, OpenedRun

IMAGES, ANNOTATIONS_FILE = "images", "annotations.json"
#: Of a row; the annotation has them.
_OF_ANNOTATIONS = ("label", "label_name")


def write_coco(run: OpenedRun, folder: Path) -> None:
    """Write a run's images and their annotations into an empty folder.

    Ids of categories are labels + 1, since some readers take 0 for the background.
    """
    (folder / IMAGES).mkdir()
    images, annotations = [], []
    for number, image in enumerate(run.images(), start=1):
        name = f"{image.key}.{image.extension}"
        (folder / IMAGES / name).write_bytes(image.data)
        entry, annotation = _entries(number, name, image)
        images.append(json_text(entry))
        annotations.append(json_text(annotation))
    manifest = run.manifest
    head = {
        "description": f"{manifest.dataset}, run {manifest.run_id}: see README.md",
        "version": manifest.recipe,
    }
    categories = [{"id": label + 1, "name": name, "supercategory": ""} for label, name in enumerate(run.class_names)]
    licences = [{"id": 1, "name": "see README.md", "url": ""}]
    with (folder / ANNOTATIONS_FILE).open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {json_text(head)},\n"licenses": {json_text(licences)},\n')
        file.write(f'"categories": {json_text(categories)},\n')
        file.write('"images": [\n' + ",\n".join(images) + "],\n")
        file.write('"annotations": [\n' + ",\n".join(annotations) + "]}\n")


def _entries(number: int, name: str, image: ExportImage) -> tuple[dict[str, Any], dict[str, Any]]:
    """An image, and its annotation."""
    with Image.open(io.BytesIO(image.data)) as opened:
        width, height = opened.size
    fields = {column: json_value(value) for column, value in image.fields.items() if column not in _OF_ANNOTATIONS}
    entry = {"id": number, "file_name": name, "width": width, "height": height, "license": 1} | fields
    annotation = {
        "id": number,
        "image_id": number,
        "category_id": image.label + 1,
        "bbox": [0, 0, width, height],
        "area": width * height,
        "segmentation": [[0, 0, width, 0, width, height, 0, height]],
        "iscrowd": 0,
        "whole_image": True,
    }
    return entry, annotation
