"""A column that was found, joined to a set's images."""

import numpy as np
import pandas as pd
import pytest

from datasets.readers.imageset import ImageSet
from datasets.readers.tables.added_column import with_column


@pytest.fixture
def images():
    return ImageSet(
        name="set",
        labels=np.array([0, 0, 1]),
        groups=["kind=a,sex=f", "kind=a,sex=m", "kind=b,sex=f"],
        source_ids=["set/1", "set/2", "set/3"],
        class_names=["a", "b"],
        image_shape=(4, 4, 1),
        load=lambda index: np.zeros((4, 4, 1), dtype=np.uint8),
        attributes={"sex": ["f", "m", "f"]},
    )


def rows(**changes):
    return pd.DataFrame(
        {"source_id": ["other/9", "set/3", "set/1", "set/2"], "cluster": ["x", "taken for a, b", "typical", "typical"]}
        | changes
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_column_is_joined_by_the_images_names(suffix, images, tmp_path):
    table = tmp_path / f"found{suffix}"
    rows().to_parquet(table) if suffix == ".parquet" else rows().to_csv(table, index=False)

    found = with_column(images, table, column="cluster")

    assert found.groups == ["kind=a,cluster=typical", "kind=a,cluster=typical", "kind=b,cluster=taken for a; b"]
    assert found.attributes == {"sex": ["f", "m", "f"], "cluster": ["typical", "typical", "taken for a, b"]}


@pytest.mark.parametrize(
    ("changes", "column", "problem"),
    [
        ({}, "colour", "has no column colour; it has source_id, cluster"),
        ({"source_id": ["other/9", "set/3", "set/1", "set/1"]}, "cluster", "names the image set/1 twice"),
        (
            {"source_id": ["other/9", "set/3", "set/1", "set/4"]},
            "cluster",
            "no cluster for 1 of 3 images, the first set/2",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changes, column, problem, images, tmp_path):
    rows(**changes).to_csv(tmp_path / "found.csv", index=False)

    with pytest.raises(ValueError, match=problem):
        with_column(images, tmp_path / "found.csv", column=column)


def test_a_table_that_is_missing_or_none_is_refused(images, tmp_path):
    with pytest.raises(FileNotFoundError, match="name the table that `minority discover` wrote"):
        with_column(images, tmp_path / "nothing.parquet", column="cluster")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        with_column(images, tmp_path / "bad.parquet", column="cluster")
