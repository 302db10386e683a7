"""Other real images are another run: whatever is changed, added or swapped between two commands of the same words."""

import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from datasets.runs.latest import read_latest
from datasets.runs.manifest import Manifest
from datasets.runs.verify import verify
from datasets.storage.store import Store
from datasets.streaming.published import read_published

pytestmark = pytest.mark.system


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes, 24 and 12 grey pictures of 8 x 8 pixels."""
    rng = np.random.default_rng(0)
    for name, count in (("cat", 24), ("dog", 12)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number:03d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def command(pictures, tiny_overrides, as_options, tmp_path):
    """The arguments of a tiny run on the pictures."""
    settings = {
        "dataset": {"reader": "folder", "folder": str(pictures), "split": {"test_fraction": 0.2, "imbalance": None}},
        "plan.unit_size": 12,
        "plan.quota": 20,
        "plan.max_rounds": 1,
        "selection.label_floor": 0,
        "downstream": None,
    }
    kept = {key: value for key, value in tiny_overrides.items() if not key.startswith(("dataset.", "downstream."))}
    return ["augment", "digits", "--store", tmp_path / "store", *as_options(kept | settings)]


def change_a_pixel(pictures):
    path = pictures / "cat" / "003.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[2, 2] ^= 64
    Image.fromarray(pixels).save(path)


def manifests(store):
    return sorted(store.rglob("manifest.json"))


def test_pixels_that_change_between_kill_and_resume_make_another_run(minority, command, pictures, tmp_path):
    store = tmp_path / "store"
    strike = {"kind": "flow process killed", "at": 30, "delay": 0.0, "mark": str(tmp_path / "struck")}
    killed = minority(*command, fault=strike)
    assert killed.code == -signal.SIGKILL
    assert manifests(store) == []
    (begun,) = (store / "digits" / "runs").iterdir()
    change_a_pixel(pictures)

    finished = minority(*command)

    assert (finished.code, finished.stderr) == (0, "")
    (manifest,) = manifests(store)
    assert manifest.parent.name != begun.name
    assert verify(str(manifest)) == []
    published = read_published(str(manifest), source="real")
    in_folder = {np.asarray(Image.open(path)).tobytes() for path in pictures.rglob("*.png")}
    assert {image.tobytes() for image in published.images(range(len(published)))} <= in_folder


def test_a_run_of_ones_own_name_is_refused_with_other_images_and_goes_on_with_the_old(
    minority, command, pictures, as_options, tmp_path
):
    named = [*command, *as_options({"run_id": "mine"})]
    strike = {"kind": "flow process killed", "at": 30, "delay": 0.0, "mark": str(tmp_path / "struck")}
    assert minority(*named, fault=strike).code == -signal.SIGKILL
    shutil.copytree(pictures, tmp_path / "copy")
    change_a_pixel(pictures)

    refused = minority(*named)

    assert refused.code == 2
    assert "the real images are not those that it was begun with; choose another run id" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert manifests(tmp_path / "store") == []
    shutil.rmtree(pictures)
    shutil.copytree(tmp_path / "copy", pictures)
    assert minority(*named).code == 0


def test_images_that_are_added_after_publishing_make_another_run_and_touch_no_byte_of_the_first(
    minority, command, pictures, contents, tmp_path
):
    store = tmp_path / "store"
    assert minority(*command).code == 0
    (first,) = manifests(store)
    before = contents(first.parent)
    Image.fromarray(np.full((8, 8), 77, dtype=np.uint8)).save(pictures / "dog" / "900.png")

    again = minority(*command)

    assert (again.code, again.stderr) == (0, "")
    assert contents(first.parent) == before
    (second,) = set(manifests(store)) - {first}
    assert read_latest(Store(store), "digits").run_id == second.parent.name
    told = [Manifest.from_json(path.read_bytes()).real_digest for path in (first, second)]
    assert None not in told
    assert told[0] != told[1]


def test_a_published_run_is_compared_on_with_the_images_that_made_it_alone(
    minority, command, pictures, as_options, tmp_path
):
    assert minority(*command).code == 0
    (manifest,) = manifests(tmp_path / "store")
    change_a_pixel(pictures)

    refused = minority("downstream", "digits", *as_options({"manifest": str(manifest), "downstream.seeds": 1}))

    assert refused.code == 2
    assert "was made from real images of the same names" in refused.stderr
    assert "bring back the images as they were" in refused.stderr
