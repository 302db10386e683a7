"""The files of every export against the description of its format, and what an export refuses."""

import hashlib
import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from datasets.export.hf_parquet import write_hf_parquet
from datasets.export.imagefolder import class_folders
from datasets.export.layouts import LAYOUTS, export_run
from datasets.export.opened import open_run_folder
from datasets.runs.latest import move_latest
from datasets.storage.store import Store
from flows.command_line import app
from tests.datasets.export.conftest import CLASSES, COUNT, publish_odd, rows_of


def exported(odd_run, tmp_path, layout):
    folder, pixels = odd_run
    export_run(str(folder), str(tmp_path / "out"), layout=layout)
    return tmp_path / "out", pixels


def same_pixels(data, image):
    return np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)


def strict_json(path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_an_image_folder_has_a_folder_a_class_in_the_order_of_labels_and_a_row_an_image(odd_run, tmp_path):
    out, pixels = exported(odd_run, tmp_path, "imagefolder")

    table = pd.read_parquet(out / "train" / "metadata.parquet")
    assert len(table) == COUNT == len(list((out / "train").rglob("*.png")))
    assert sorted(path.name for path in (out / "train").iterdir() if path.is_dir()) == [
        "0_class",
        "1_Ärzte_innen",
        "2_cat",
    ]
    for row in table.itertuples():
        label, image = pixels[row.key]
        assert row.file_name.startswith(f"{label}_")
        assert same_pixels((out / "train" / row.file_name).read_bytes(), image)
        assert (row.label, row.label_name) == (label, CLASSES[label])
    assert set(table["file_name"]) == {str(path.relative_to(out / "train")) for path in (out / "train").rglob("*.png")}


def test_hugging_face_s_parquet_says_which_column_is_an_image_and_what_labels_mean(odd_run, tmp_path):
    folder, pixels = odd_run
    run = open_run_folder(str(folder / "manifest.json"))
    write_hf_parquet(run, tmp_path, bytes_a_file=1)
    (file,) = (tmp_path / "data").glob("*.parquet")

    assert file.name == "train-00000-of-00001.parquet"
    table = pq.read_table(file)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": CLASSES}}
    for row in table.to_pylist():
        assert same_pixels(row["image"]["bytes"], pixels[row["key"]][1])


def test_parquet_goes_on_in_another_file_where_one_is_full(odd_run, tmp_path, monkeypatch):
    import datasets.export.hf_parquet as module

    monkeypatch.setattr(module, "_ROWS_A_GROUP", 10)
    run = open_run_folder(str(odd_run[0] / "manifest.json"))
    write_hf_parquet(run, tmp_path, bytes_a_file=1)

    files = sorted((tmp_path / "data").iterdir())
    assert [file.name for file in files] == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    assert [pq.read_metadata(file).num_rows for file in files] == [10, 10, 4]
    keys = [key for file in files for key in pq.read_table(file)["key"].to_pylist()]
    assert keys == run.rows["key"].to_pylist()


def test_coco_has_one_annotation_an_image_with_the_fields_that_the_format_asks_for(odd_run, tmp_path):
    out, pixels = exported(odd_run, tmp_path, "coco")

    coco = strict_json(out / "annotations.json")
    assert [category["name"] for category in coco["categories"]] == CLASSES
    assert len(coco["images"]) == len(coco["annotations"]) == COUNT
    images = {image["id"]: image for image in coco["images"]}
    for annotation in coco["annotations"]:
        assert {"id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd"} <= annotation.keys()
        image = images[annotation["image_id"]]
        label, expected = pixels[image["key"]]
        assert annotation["category_id"] == label + 1
        assert annotation["bbox"] == [0, 0, image["width"], image["height"]] == [0, 0, 7, 9]
        assert same_pixels((out / "images" / image["file_name"]).read_bytes(), expected)


def test_fiftyone_s_samples_are_tagged_and_their_fields_typed(odd_run, tmp_path):
    out, pixels = exported(odd_run, tmp_path, "fiftyone")

    samples = strict_json(out / "samples.json")["samples"]
    kinds = strict_json(out / "metadata.json")["sample_fields"]
    assert kinds["rarity_score"] == "fiftyone.core.fields.FloatField"
    assert kinds["random_projection"] == "fiftyone.core.fields.ListField(fiftyone.core.fields.FloatField)"
    assert len(samples) == COUNT
    for sample in samples:
        assert sample.keys() == kinds.keys()
        label, image = pixels[sample["key"]]
        assert sample["ground_truth"] == {"_cls": "Classification", "label": CLASSES[label]}
        assert sample["tags"] == [sample["source"]]
        assert same_pixels((out / sample["filepath"]).read_bytes(), image)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_export_has_a_card_that_says_what_is_synthetic_and_the_same_bytes_each_time(odd_run, tmp_path, layout):
    folder, _ = odd_run
    for name in ("one", "two"):
        export_run(str(folder / "manifest.json"), str(tmp_path / name), layout=layout)

    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    card = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert "**8 images are real, 16 are synthetic**" in card
    assert "Drawn by a random number generator; CC0." in card
    if layout in ("imagefolder", "hf-parquet"):
        front = yaml.safe_load(card.split("---")[1])
        assert front["license"] == "cc0-1.0"
        assert front["size_categories"] == ["n<1K"]
    assert not list(tmp_path.glob(".*.partial-*"))


def test_images_are_the_published_bytes(odd_run, tmp_path):
    out, _ = exported(odd_run, tmp_path, "coco")
    table = pd.read_parquet(odd_run[0] / "metadata.parquet").set_index("key")

    for path in (out / "images").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == table.loc[path.stem, "image_sha256"]


def test_grey_images_stay_grey(tmp_path):
    folder, pixels = publish_odd(tmp_path / "grey", channels=1)
    export_run(str(folder), str(tmp_path / "out"), layout="coco")

    for path in (tmp_path / "out" / "images").iterdir():
        with Image.open(path) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), pixels[path.stem][1][:, :, 0])


def test_what_is_known_of_classifiers_goes_along(odd_run, tmp_path):
    folder, _ = odd_run
    (folder / "report").mkdir()
    (folder / "report" / "fairness.md").write_text("# What it does to classifiers\n\n## Accuracy by group\n\nmuch\n")
    out, _ = exported(odd_run, tmp_path, "coco")

    card = (out / "README.md").read_text(encoding="utf-8")
    assert "## What it does to classifiers\n\n### Accuracy by group\n\nmuch" in card


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["0", "1", "2"], ["0", "1", "2"]),
        (["nv", "bkl"], ["0_nv", "1_bkl"]),
        (["a/b", "a:b"], ["0_a_b", "1_a_b"]),
        (["Cat", "cat"], ["0_Cat", "1_cat"]),
        (["..", " "], ["0_class", "1_class"]),
        (["train", "val"], ["0_class", "1_class"]),
        ([f"c{number}" for number in range(11)], [f"{number:02d}_c{number}" for number in range(11)]),
    ],
)
def test_class_folders_are_plain_names_in_the_order_of_labels(names, folders):
    assert class_folders(names) == folders
    assert sorted(folders) == folders


def run_command(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_a_dataset_s_name_means_its_latest_run(odd_run, tmp_path):
    store = odd_run[0].parents[2]
    move_latest(Store(store), "pets", "first")
    done = run_command("pets", "--to", "coco", "--out", tmp_path / "out", "--store", store, "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"] == {"real": 8, "synthetic": 16}
    assert (tmp_path / "out" / "annotations.json").exists()


def test_nothing_is_overwritten(odd_run, tmp_path):
    (tmp_path / "out").mkdir()
    done = run_command(odd_run[0], "--to", "coco", "--out", tmp_path / "out")

    assert done.exit_code == 2
    assert "is there already, and an export never overwrites" in done.output
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-set", "--to", "coco", "--out", "out"], "nothing of no-such-set is published"),
        (["no/such/folder", "--to", "coco", "--out", "out"], "has no manifest.json"),
        (["no/such/manifest.json", "--to", "coco", "--out", "out"], "does not exist"),
        (["RUN", "--to", "voc", "--out", "out"], "no layout 'voc'"),
        (["RUN", "--to", "coco", "--out", "s3://bucket/out"], "is a URL"),
    ],
)
def test_bad_input_is_refused_in_one_line(odd_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = run_command(*(str(odd_run[0]) if argument == "RUN" else argument for argument in arguments))

    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damaged", ["shards/pets-000001.tar", "metadata.parquet", "README.md", "manifest.json"])
def test_a_damaged_run_leaves_no_export(odd_run, tmp_path, damaged):
    file = odd_run[0] / damaged
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    done = run_command(odd_run[0], "--to", "imagefolder", "--out", tmp_path / "out")

    assert done.exit_code == 2, done.output
    assert len(done.output.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets"]


def test_a_run_on_s3_is_exported_by_folder_and_by_name(bucket, tmp_path):
    publish_odd(f"{bucket}/pets/runs/first")
    move_latest(Store(bucket), "pets", "first")

    for number, run in enumerate((f"{bucket}/pets/runs/first", f"{bucket}/pets/runs/first/manifest.json", "pets")):
        done = export_run(run, str(tmp_path / str(number)), layout="imagefolder", store=bucket)
        assert done.images == {"real": 8, "synthetic": 16}
        assert len(list((tmp_path / str(number)).rglob("*.png"))) == COUNT


def test_the_card_of_a_run_can_be_followed_without_this_project(odd_run, tmp_path):
    """Its code runs in an isolated Python that cannot import this project."""
    folder, _ = odd_run
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-c", _WITHOUT_PROJECT + code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == COUNT
    expected = {row["key"]: row for row in rows_of().to_pylist()}
    for line in lines:
        row = expected[line.split()[0]]
        assert line.endswith(f"{row['label']} {row['label_name']} {row['group']} {row['source']}")


#: Nothing of this project can be imported, not even where it is installed in editable mode.
_WITHOUT_PROJECT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("datasets", "tasks", "flows", "minority"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
"""
