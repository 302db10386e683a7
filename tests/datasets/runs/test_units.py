import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from datasets.runs import units
from datasets.runs.shards import read_tar
from datasets.runs.units import open_unit, read_encoded_unit, read_receipt, read_unit, write_unit
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store

RECIPE = "0123456789ab"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def written(store, small_run):
    """A store with the sound unit r0-u0 of six samples, its images and its receipt."""
    images = small_run["images"](6)
    return store, images, write_unit(store, "r0-u0", images, small_run["rows"](6), recipe=RECIPE)


def test_a_unit_comes_back_as_it_went_in(written, small_run):
    store, images, receipt = written

    stored, rows = read_unit(store, "r0-u0")

    np.testing.assert_array_equal(stored, images)
    assert rows["key"].to_pylist() == small_run["rows"](6)["key"].to_pylist()
    assert read_receipt(store, "r0-u0", recipe=RECIPE, num_samples=6) == receipt


def test_rows_carry_the_checksum_of_their_image_and_the_tar_their_label(written):
    store, _, _ = written

    _, rows = read_unit(store, "r0-u0")
    samples = list(read_tar(store.read("units/r0-u0.tar")))

    assert rows["image_sha256"].to_pylist() == [sha256_hex(sample.png()) for sample in samples]
    assert rows["label"].to_pylist() == [sample.label for sample in samples]
    assert samples[1].record == {"label_name": "dog", "group": "class=dog", "unit": "r0-u0"}


def test_rows_need_not_be_in_the_order_of_their_keys(store, small_run):
    rows, images = small_run["rows"](5), small_run["images"](5, channels=3)
    order = [3, 1, 4, 0, 2]

    write_unit(store, "u", images[order], rows.take(order), recipe=RECIPE)
    stored, stored_rows = read_unit(store, "u")

    np.testing.assert_array_equal(stored, images[order])
    assert stored_rows["key"].to_pylist() == rows["key"].take(order).to_pylist()


def test_the_files_of_a_unit_are_those_that_its_rows_tell(store, small_run):
    rows, images = small_run["rows"](5), small_run["images"](5, channels=3)
    order = [3, 1, 4, 0, 2]
    write_unit(store, "u", images[order], rows.take(order), recipe=RECIPE)

    encoded, stored_rows = read_encoded_unit(store, "u")

    assert [sha256_hex(png) for png in encoded] == stored_rows["image_sha256"].to_pylist()


def test_an_image_of_a_unit_is_decoded_when_it_is_asked_for(written, monkeypatch):
    store, images, _ = written
    decoded = []
    decode = units.decode_png
    monkeypatch.setattr(units, "decode_png", lambda png, **name: decoded.append(png) or decode(png, **name))

    by_key = open_unit(store, "r0-u0")

    keys = list(by_key)
    assert len(by_key) == 6 == len(set(keys))
    assert decoded == []
    np.testing.assert_array_equal(by_key[keys[4]], images[4])
    assert len(decoded) == 1
    with pytest.raises(KeyError):
        by_key["another"]


def test_two_writings_are_equal_bytes(tmp_path, small_run):
    for folder in "ab":
        write_unit(Store(tmp_path / folder), "u", small_run["images"](4), small_run["rows"](4), recipe=RECIPE)

    assert small_run["bytes_below"](tmp_path / "a") == small_run["bytes_below"](tmp_path / "b")


def test_a_sound_unit_is_not_written_again(written, small_run):
    store, images, receipt = written

    again = write_unit(store, "r0-u0", small_run["images"](6, seed=9), small_run["rows"](6), recipe=RECIPE)

    assert again == receipt
    np.testing.assert_array_equal(read_unit(store, "r0-u0")[0], images)


@pytest.mark.parametrize("suffix", ["tar", "parquet", "json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty"])
def test_a_torn_unit_has_no_receipt_and_is_mended_by_writing_it_again(written, small_run, suffix, damage):
    store, images, receipt = written
    path = f"units/r0-u0.{suffix}"
    content = store.read(path)
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    if damage == "gone":
        store.remove(path)
    else:
        store.write(path, {"cut": content[:middle], "flipped": flipped, "empty": b""}[damage])

    assert read_receipt(store, "r0-u0", recipe=RECIPE, num_samples=6) is None
    with pytest.raises(ValueError, match=r"units/r0-u0\.json: unit r0-u0 is missing or torn; make it again"):
        read_unit(store, "r0-u0")

    assert write_unit(store, "r0-u0", images, small_run["rows"](6), recipe=RECIPE) == receipt
    assert store.read(path) == content


def test_a_unit_of_another_size_recipe_or_name_does_not_count(written):
    store, _, _ = written
    for suffix in ("tar", "parquet", "json"):
        store.write(f"units/other.{suffix}", store.read(f"units/r0-u0.{suffix}"))

    assert read_receipt(store, "r0-u0", recipe=RECIPE, num_samples=7) is None
    assert read_receipt(store, "r0-u0", recipe="ba9876543210", num_samples=6) is None
    assert read_receipt(store, "other", recipe=RECIPE, num_samples=6) is None
    assert read_receipt(store, "absent", recipe=RECIPE, num_samples=6) is None


def test_a_receipt_that_says_something_else_does_not_count(written):
    store, _, _ = written
    content = json.loads(store.read("units/r0-u0.json"))

    store.write("units/r0-u0.json", json.dumps(content | {"extra": 1}).encode())

    assert read_receipt(store, "r0-u0", recipe=RECIPE, num_samples=6) is None


@pytest.mark.parametrize("budget", [0, 1, 2])
def test_a_writer_that_dies_leaves_the_unit_undone(tmp_path, small_run, budget):
    dying = small_run["dying_store"](tmp_path, [budget])
    images, rows = small_run["images"](4), small_run["rows"](4)

    with pytest.raises(small_run["killed"]):
        write_unit(dying, "u", images, rows, recipe=RECIPE)

    store = Store(tmp_path)
    assert len(store.list()) == budget
    assert read_receipt(store, "u", recipe=RECIPE, num_samples=4) is None
    assert write_unit(store, "u", images, rows, recipe=RECIPE).num_samples == 4


def test_threads_that_write_one_unit_differently_leave_one_of_them_whole(tmp_path, small_run):
    # What two kinds of device may do to each other: images that differ in the last bit.
    store = Store(tmp_path)

    def write(seed):
        return write_unit(store, "u", small_run["images"](6, seed=seed), small_run["rows"](6), recipe=RECIPE)

    with ThreadPoolExecutor(4) as pool:
        receipts = set(pool.map(write, range(12)))

    assert len(receipts) == 1
    assert {read_receipt(store, "u", recipe=RECIPE, num_samples=6)} == receipts


def test_processes_that_write_the_same_units_do_no_harm(tmp_path, small_run):
    program = (
        "import sys; import numpy as np; import pyarrow.parquet as pq; from datasets.storage.store import Store\n"
        "from datasets.runs.units import write_unit\n"
        "rows = pq.read_table(sys.argv[2]); images = np.load(sys.argv[3])\n"
        f"for n in range(20): write_unit(Store(sys.argv[1]), f'u{{n}}', images, rows, recipe={RECIPE!r})\n"
    )
    pq.write_table(small_run["rows"](4), tmp_path / "rows.parquet")
    np.save(tmp_path / "images.npy", small_run["images"](4))
    arguments = [str(tmp_path / name) for name in ("store", "rows.parquet", "images.npy")]
    writers = [subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT) for _ in range(2)]

    assert [writer.wait(60) for writer in writers] == [0, 0]
    store = Store(tmp_path / "store")
    assert all(read_receipt(store, f"u{n}", recipe=RECIPE, num_samples=4) for n in range(20))
    assert len(store.list()) == 60


@pytest.mark.parametrize("unit", ["", "../u", "U", "a/b", "x" * 65])
def test_a_unit_name_that_is_no_file_name_is_refused(store, small_run, unit):
    with pytest.raises(ValueError, match=r"unit '.*' is not allowed"):
        write_unit(store, unit, small_run["images"](1), small_run["rows"](1), recipe=RECIPE)


def test_images_and_rows_must_belong_together(store, small_run):
    with pytest.raises(ValueError, match=r"unit u got images \(3, 8, 8, 1\) and 4 rows"):
        write_unit(store, "u", small_run["images"](3), small_run["rows"](4), recipe=RECIPE)
    with pytest.raises(ValueError, match=r"unit u got images \(0, 8, 8, 1\) and 0 rows"):
        write_unit(store, "u", small_run["images"](0), small_run["rows"](0), recipe=RECIPE)
    assert store.list() == []
