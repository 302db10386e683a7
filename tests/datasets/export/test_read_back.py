"""Every export, and a run as it is, read by the tools that they are for, image by image and label by label.

The tools live in environments of their own: Hugging Face's `datasets` has the name of a folder of this project. Each
test says which variable names an environment's Python, and how to make it.
"""

import hashlib
import math

import pytest

from datasets.export.layouts import export_run
from tests.datasets.export.conftest import CLASSES, rows_of

HUGGING_FACE = {"variable": "MINORITY_HF_PYTHON", "script": "hugging_face.py", "install": "datasets pillow"}
COCO = {"variable": "MINORITY_COCO_PYTHON", "script": "coco.py", "install": "pycocotools pillow"}
FIFTYONE = {"variable": "MINORITY_FIFTYONE_PYTHON", "script": "fiftyone_importer.py", "install": "fiftyone"}


def in_json(value):
    """As layouts have it that know no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_same(read, pixels, *, strict=True):
    """Every image, label, score and origin is that of the run."""
    expected = {row["key"]: row for row in rows_of().to_pylist()}
    found = {row["key"]: row for row in read["rows"]}
    assert len(found) == len(read["rows"])
    assert found.keys() == expected.keys() == pixels.keys()
    for key, row in found.items():
        label, image = pixels[key]
        assert row["pixels"] == hashlib.sha256(image.tobytes()).hexdigest()
        assert row["shape"] == list(image.shape)
        fields, want = row["fields"], expected[key]
        assert (fields["label"], fields["label_name"]) == (label, CLASSES[label])
        for name in ("group", "source", "reason", "kept", "rare", "minority_score", "seed", "sample_index"):
            assert fields[name] == want[name], (key, name)
        assert fields["rarity_score"] == (want["rarity_score"] if strict else in_json(want["rarity_score"]))
        assert fields["random_projection"] == want["random_projection"]
        made_by = ("toy", "ab" * 32, "0123456789ab") if want["source"] == "synthetic" else (None, None, None)
        assert (fields["backbone"], fields["backbone_sha256"], fields["recipe"]) == made_by
        assert not {"shard", "unit"} & fields.keys()
    assert read["names"] == CLASSES


@pytest.mark.parametrize(
    ("layout", "builder"),
    [("imagefolder", "imagefolder"), ("imagefolder", "folder"), ("hf-parquet", "parquet"), ("hf-parquet", "folder")],
)
def test_hugging_face_reads_what_is_exported_for_it(tmp_path, odd_run, read_elsewhere, layout, builder):
    folder, pixels = odd_run
    export_run(str(folder), str(tmp_path / "out"), layout=layout)

    arguments = (HUGGING_FACE["variable"], HUGGING_FACE["script"], builder, tmp_path / "out")
    require_same(read_elsewhere(*arguments, install=HUGGING_FACE["install"]), pixels)


@pytest.mark.parametrize("builder", ["webdataset", "folder"])
@pytest.mark.parametrize("how", [[], ["full"]], ids=["by itself", "with its fields named"])
def test_hugging_face_reads_a_run_as_it_is_published(odd_run, read_elsewhere, builder, how):
    folder, pixels = odd_run
    arguments = (HUGGING_FACE["variable"], HUGGING_FACE["script"], builder, folder, *how)
    read = read_elsewhere(*arguments, install=HUGGING_FACE["install"])

    found = {row["key"]: row for row in read["rows"]}
    expected = {row["key"]: row for row in rows_of().to_pylist()}
    assert len(read["rows"]) == len(pixels)
    for key, (label, image) in pixels.items():
        assert found[key]["pixels"] == hashlib.sha256(image.tobytes()).hexdigest()
        assert found[key]["fields"]["cls"] == label
        record = found[key]["fields"]["json"]
        assert (record["source"], record["group"]) == (expected[key]["source"], expected[key]["group"])
        if how:  # by itself the reader goes by the first five images, which are real and have no seed
            assert (record["seed"], record["sample_index"]) == (expected[key]["seed"], expected[key]["sample_index"])


def test_pycocotools_reads_coco(tmp_path, odd_run, read_elsewhere):
    folder, pixels = odd_run
    export_run(str(folder), str(tmp_path / "out"), layout="coco")

    read = read_elsewhere(COCO["variable"], COCO["script"], tmp_path / "out", install=COCO["install"])
    require_same(read, pixels, strict=False)


def test_fiftyone_reads_its_samples(tmp_path, odd_run, read_elsewhere):
    folder, pixels = odd_run
    export_run(str(folder), str(tmp_path / "out"), layout="fiftyone")

    read = read_elsewhere(FIFTYONE["variable"], FIFTYONE["script"], tmp_path / "out", install=FIFTYONE["install"])
    require_same(read, pixels, strict=False)
    assert {row["key"] for row in read["rows"] if "synthetic" in row["fields"]["tags"]} == {
        row["key"] for row in rows_of().to_pylist() if row["source"] == "synthetic"
    }
