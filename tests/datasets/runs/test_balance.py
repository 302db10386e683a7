import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from datasets.runs.balance import balance, group_weights, synthetic_quotas
from datasets.runs.manifest import Manifest
from datasets.runs.publish import PublishedRunError, publish
from datasets.runs.real_rows import real_rows, real_samples
from datasets.runs.records import METADATA_SCHEMA
from datasets.runs.verify import verify
from datasets.storage.store import Store
from datasets.streaming.published import read_published

SIZES = {("cat", "cat,fur=1"): 12, ("cat", "cat,fur=0"): 3, ("dog", "dog,fur=1"): 7}


@pytest.fixture
def rows(make_image_set):
    """22 real rows in three groups, and ten acceptable synthetic ones and two refused of every group."""
    real = real_rows(make_image_set(SIZES))
    groups = [group for _, group in SIZES for _ in range(12)]
    count = len(groups)
    passed = [number % 12 < 10 for number in range(count)]
    synthetic = pa.table(
        {
            "key": [f"s{number:03d}" for number in range(count)],
            "source": ["synthetic"] * count,
            "sampler": ["minority"] * count,
            "label": [int(group.startswith("dog")) for group in groups],
            "label_name": [group[:3] for group in groups],
            "group": groups,
            "kept": passed,
            "reason": ["kept" if good else "common" for good in passed],
        }
    )
    return real, synthetic


def kept_by(table):
    kept = table.filter(table["kept"])
    pairs = list(zip(kept["group"].to_pylist(), kept["source"].to_pylist(), strict=True))
    return {pair: pairs.count(pair) for pair in pairs}


def test_balanced_fills_every_group_up_to_the_commonest(rows):
    table = balance(*rows)

    assert kept_by(table) == {
        ("cat,fur=1", "real"): 12,
        ("cat,fur=0", "real"): 3,
        ("cat,fur=0", "synthetic"): 9,
        ("dog,fur=1", "real"): 7,
        ("dog,fur=1", "synthetic"): 5,
    }
    reasons = dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))
    assert reasons["s000"] == "quota full"
    assert reasons["s010"] == "common"
    # The first acceptable candidates are taken: the best first.
    assert [key for key in reasons if reasons[key] == "kept" and key.startswith("s")][:3] == ["s012", "s013", "s014"]
    assert synthetic_quotas(rows[0]) == {"cat,fur=0": 9, "cat,fur=1": 0, "dog,fur=1": 5}


def test_quotas_can_be_given_and_a_shortfall_shows(rows):
    table = balance(*rows, quotas={"cat,fur=0": 20, "dog,fur=1": 8})

    assert kept_by(table)["cat,fur=0", "synthetic"] == 10
    assert kept_by(table)["dog,fur=1", "synthetic"] == 1


def test_synthetic_only_publishes_no_real_image(rows):
    table = balance(*rows, mode="synthetic", quotas={"cat,fur=1": 4, "cat,fur=0": 4, "dog,fur=1": 4})

    assert kept_by(table) == {(group, "synthetic"): 4 for _, group in SIZES}
    assert "synthetic only" in table["reason"].to_pylist()


def test_weights_make_every_group_count_alike(rows):
    table = balance(*rows, mode="weights")

    weights = group_weights(table)

    assert kept_by(table) == {(group, "real"): size for (_, group), size in SIZES.items()}
    sums = {group: 0.0 for _, group in SIZES}
    for group, weight in zip(weights["group"].to_pylist(), weights["weight"].to_pylist(), strict=True):
        sums[group] += weight
    assert list(sums.values()) == pytest.approx([22 / 3] * 3)
    assert np.mean(weights["weight"].to_pylist()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "fair"}, "mode must be one of balanced, synthetic, weights, got 'fair'"),
        ({"quotas": {"cat,fur=0": -1}}, "quotas must name groups and be at least 0"),
        ({"quotas": {}}, "quotas must name groups"),
    ],
)
def test_settings_that_make_no_sense_are_refused(rows, changes, message):
    with pytest.raises(ValueError, match=message):
        balance(*rows, **changes)


@pytest.fixture
def weighted(tmp_path, make_image_set, small_run):
    """A published run with a table of weights."""
    images = make_image_set(SIZES)
    rows = real_rows(images)
    facts = small_run["facts"]
    publish(
        Store(tmp_path), facts=facts, samples=real_samples(images, rows), metadata=rows, weights=group_weights(rows)
    )
    return tmp_path, images, facts


def test_a_run_with_weights_is_verified_with_them(weighted):
    folder, images, facts = weighted
    manifest = f"{folder}/manifest.json"
    assert verify(manifest) == []
    assert Manifest.from_json((folder / "manifest.json").read_bytes()).weights.num_rows == 22
    assert "`weights.parquet` has a row an image" in (folder / "README.md").read_text()

    content = bytearray((folder / "weights.parquet").read_bytes())
    content[50] ^= 1
    (folder / "weights.parquet").write_bytes(content)
    assert any(problem.startswith("weights.parquet: has SHA-256") for problem in verify(manifest))
    (folder / "weights.parquet").unlink()
    assert verify(manifest) == ["weights.parquet: is missing"]

    rows = real_rows(images)
    order = {"facts": facts, "metadata": rows}
    with pytest.raises(PublishedRunError, match="other weights"):
        publish(Store(folder), **order, samples=real_samples(images, rows))
    publish(Store(folder), **order, samples=real_samples(images, rows), weights=group_weights(rows))
    assert verify(manifest) == []


def test_weights_of_other_images_are_found(tmp_path, make_image_set, small_run):
    images = make_image_set(SIZES)
    rows = real_rows(images)
    weights = group_weights(rows)[:-1]
    publish(
        Store(tmp_path), facts=small_run["facts"], samples=real_samples(images, rows), metadata=rows, weights=weights
    )

    assert verify(f"{tmp_path}/manifest.json") == [
        "weights.parquet: and the published images differ in 1 keys, first real-00000021"
    ]


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_lossless_shards_read_as_a_set_give_every_pixel_back(tmp_path, make_image_set, make_published, extension):
    images = make_image_set(SIZES, channels=3)
    manifest = make_published(tmp_path, images, num_synthetic={"cat,fur=0": 5}, extension=extension)

    real, synthetic = (read_published(manifest, source=source) for source in ("real", "synthetic"))

    assert (len(real), len(synthetic), len(read_published(manifest))) == (22, 5, 27)
    np.testing.assert_array_equal(real.images(range(22)), images.images(range(22)))
    assert real.groups == images.groups
    assert verify(manifest) == []


def test_jpeg_shards_are_small_and_near(tmp_path, make_image_set, make_published):
    images = make_image_set(SIZES, channels=3)
    manifest = make_published(tmp_path, images, extension="jpg")

    assert verify(manifest) == []
    error = read_published(manifest).images(range(22)).astype(int) - images.images(range(22))
    assert np.abs(error).mean() < 12  # noise is the worst that a JPEG of quality 95 can meet


def test_a_published_image_that_was_changed_is_named_when_it_is_read(tmp_path, make_image_set, make_published):
    manifest = make_published(tmp_path, make_image_set(SIZES))
    path = tmp_path / "shards" / "toy-000000.tar"
    content = path.read_bytes()
    found = read_published(manifest)
    path.write_bytes(content.replace(b"IDAT", b"IDAX"))

    with pytest.raises(ValueError, match=r"toy-000000\.tar: real-\d+ is not the image whose SHA-256 its row gives"):
        found.images(range(22))


def test_the_table_can_be_filtered_by_pandas_pyarrow_and_duckdb_and_has_statistics(
    tmp_path, make_image_set, make_published
):
    make_published(tmp_path, make_image_set(SIZES), num_synthetic={"cat,fur=0": 5})
    path = tmp_path / "metadata.parquet"
    duckdb = pytest.importorskip("duckdb")

    by_pyarrow = pads.dataset(path).to_table(filter=(pads.field("source") == "synthetic")).num_rows
    ((by_duckdb,),) = duckdb.sql(f"select count(*) from '{path}' where source = 'synthetic'").fetchall()

    assert by_pyarrow == by_duckdb == 5
    with pq.ParquetFile(path) as file:
        assert file.schema_arrow.equals(METADATA_SCHEMA)
        group = file.metadata.row_group(0)
        columns = [group.column(number) for number in range(group.num_columns)]
    statistics = {column.path_in_schema: column.statistics for column in columns}
    assert all(column.has_offset_index and column.has_column_index for column in columns)
    assert (statistics["key"].min, statistics["key"].max) == ("real-00000000", "s000004")
    assert statistics["minority_score"].null_count == 27
