"""Every real set, the whole way: described, split, long-tailed, sharded, verified and read back identical."""

import gc
import gzip
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from datasets.describe import describe
from datasets.readers.cifar10 import read_cifar10
from datasets.readers.fashion_mnist import read_fashion_mnist
from datasets.readers.image_table import read_image_table
from datasets.readers.tables.table_settings import read_table_settings
from datasets.runs.manifest import RunFacts
from datasets.runs.publish import publish
from datasets.runs.verify import verify
from datasets.splits.identity_split import split_set, straddling
from datasets.splits.stratified import SplitSettings
from datasets.storage.store import Store
from datasets.streaming.published import read_published
from datasets.streaming.stream import PublishedStream, StreamSettings
from tests.real_rows import real_rows, real_samples

EXAMPLES = Path(__file__).parents[3] / "examples" / "sets"
PLACE = os.environ.get("MINORITY_DATA", "")

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not PLACE, reason="MINORITY_DATA names no folder with the real image sets"),
]


def by_table(name):
    return lambda folder: read_image_table(folder, read_table_settings(EXAMPLES / f"{name}.yaml"))


#        reader, images, problems, classes, imbalance of the tail, sets of equal pixels, of them in two parts
SETS = {
    "ham10000": (by_table("ham10000"), 7496, 0, 7, 50.0, 0, 0),
    "congress": (by_table("congress"), 6438, 8, 2, 20.0, 51, 18),
    "fairface540": (by_table("fairface540"), 540, 0, 9, 5.0, 0, 0),
    "covid_cxr": (by_table("covid_cxr"), 275, 28, 2, 5.0, 0, 0),
    "fashion_mnist": (read_fashion_mnist, 70_000, 0, 10, 100.0, 0, 0),
    "cifar10": (read_cifar10, 60_000, 0, 10, 100.0, 0, 0),
}


@pytest.fixture(scope="module", params=list(SETS))
def real_set(request):
    folder = Path(PLACE) / request.param
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return request.param, SETS[request.param][0](folder)


@pytest.fixture(scope="module")
def tail(real_set):
    """The set's split with a long tail in training."""
    name, images = real_set
    return split_set(images, SplitSettings(imbalance=SETS[name][4], test_fraction=0.2))


def test_the_set_is_described(real_set):
    name, images = real_set
    _, num_images, num_problems, num_classes, _, num_duplicates, num_leaking = SETS[name]
    split = split_set(images, SplitSettings(imbalance=None, test_fraction=0.2))

    card = describe(images, split)

    assert (card.num_images, len(card.problems), len(card.class_counts)) == (num_images, num_problems, num_classes)
    assert sum(sum(row.values()) for row in card.counts.values()) == num_images
    assert len(card.duplicates) == num_duplicates
    assert sum(len(set(duplicate.parts)) > 1 for duplicate in card.duplicates) == num_leaking
    assert card.straddling == []
    assert card.picture().startswith(b"\x89PNG")
    assert f"# {images.name}" in card.to_markdown()


def on_disk(folder):
    """How many images lie there, counted without the readers."""
    if (folder / "strips.zip").is_file():  # strips of images, one below the other
        with zipfile.ZipFile(folder / "strips.zip") as archive:
            heights = [Image.open(archive.open(name)).height for name in archive.namelist() if name.endswith(".webp")]
        return sum(heights) // 32
    if (folder / "images.zip").is_file():
        with zipfile.ZipFile(folder / "images.zip") as archive:
            return sum(not name.endswith("/") for name in archive.namelist())
    counts = 0
    for path in folder.rglob("*images-idx3-ubyte*"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            counts += int.from_bytes(file.read(8)[4:], "big")
    return counts


def test_every_image_on_disk_is_in_a_part_or_has_a_reason(real_set, tail):
    name, images = real_set

    account = describe(images, tail).account

    assert account.num_images == on_disk(Path(PLACE) / name) > 0
    assert account.parts == {part: len(getattr(tail, part)) for part in ("train", "validation", "test")}
    assert all(entry.reason and entry.images + entry.rows > 0 for entry in account.left_out)
    thinned = next(entry.images for entry in account.left_out if "long tail" in entry.reason)
    assert thinned == len(images) - sum(account.parts.values())


def test_its_parts_are_disjoint_keep_identities_together_and_have_a_tail(real_set, tail):
    name, images = real_set

    together = np.concatenate([tail.train, tail.validation, tail.test])

    assert len(np.unique(together)) == len(together)
    assert images.identities is None or straddling(images.identities, tail) == []
    sizes = np.bincount(images.labels[tail.train], minlength=len(images.class_names))
    assert sizes[0] / sizes[-1] == pytest.approx(SETS[name][4], rel=0.15)
    assert (np.diff(sizes) <= 0).all()
    assert np.bincount(images.labels[tail.test], minlength=len(sizes)).min() > 0


@pytest.mark.slow
def test_its_training_part_is_published_verified_and_read_back_pixel_by_pixel(real_set, tail, tmp_path):
    name, images = real_set
    extension = "webp" if name == "congress" else "png"
    rows = real_rows(images, tail.train)
    facts = RunFacts(
        dataset=name,
        run_id="tail",
        recipe="0",
        config={},
        backbone={},
        versions={},
        class_names=images.class_names,
        provenance="Real images; see their licence.",
    )

    publish(Store(tmp_path), facts=facts, samples=real_samples(images, rows, extension=extension), metadata=rows)

    manifest = f"{tmp_path}/manifest.json"
    assert verify(manifest) == []
    seen = Counter()
    for sample in PublishedStream(manifest, StreamSettings()).samples():
        index = int(sample.key.removeprefix("real-"))
        assert np.array_equal(sample.pixels(), images.image(index)), sample.key
        assert sample.label == images.labels[index]
        assert sample.record["group"] == images.groups[index]
        assert sample.record["source_id"] == images.source_ids[index]
        seen[index] += 1
    assert seen == Counter(tail.train.tolist())
    again = read_published(manifest)
    for place in range(0, len(again), 97):
        np.testing.assert_array_equal(again.image(place), images.image(int(tail.train[place])))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_bare_webdataset_reads_the_same_pixels(real_set, tail, tmp_path):
    _, images = real_set
    rows = real_rows(images, tail.train[:50])
    facts = RunFacts(
        dataset="few", run_id="one", recipe="0", config={}, backbone={}, versions={}, class_names=images.class_names,
        provenance="Real images.",
    )  # fmt: skip
    publish(Store(tmp_path), facts=facts, samples=real_samples(images, rows), metadata=rows)

    count = 0
    for sample in wds.WebDataset(str(tmp_path / "shards/few-000000.tar"), shardshuffle=False).decode("rgb8"):
        expected = images.image(int(sample["__key__"].removeprefix("real-")))
        np.testing.assert_array_equal(sample["png"][..., : expected.shape[2]], expected)
        count += 1
    gc.collect()
    assert count == 50
