import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from datasets.runs.manifest import Manifest
from datasets.runs.publish import PublishedRunError, publish
from datasets.runs.records import METADATA_SCHEMA, WEIGHTS_SCHEMA
from datasets.runs.verify import verify
from datasets.storage.store import Store
from datasets.streaming.published import read_published
from tests.real_rows import real_rows, real_samples

SIZES = {("cat", "cat,fur=1"): 12, ("cat", "cat,fur=0"): 3, ("dog", "dog,fur=1"): 7}


def even_weights(rows):
    """A table of weights that gives every published row the weight 1."""
    kept = rows.filter(rows["kept"])
    columns = [kept["key"], kept["source_id"], kept["group"], pa.array([1.0] * kept.num_rows, pa.float64())]
    return pa.Table.from_arrays(columns, schema=WEIGHTS_SCHEMA)


@pytest.fixture
def weighted(tmp_path, make_image_set, small_run):
    """A published run with a table of weights."""
    images = make_image_set(SIZES)
    rows = real_rows(images)
    facts = small_run["facts"]
    publish(Store(tmp_path), facts=facts, samples=real_samples(images, rows), metadata=rows, weights=even_weights(rows))
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
    publish(Store(folder), **order, samples=real_samples(images, rows), weights=even_weights(rows))
    assert verify(manifest) == []


def test_weights_of_other_images_are_found(tmp_path, make_image_set, small_run):
    images = make_image_set(SIZES)
    rows = real_rows(images)
    weights = even_weights(rows)[:-1]
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
