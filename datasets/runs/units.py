"""Units in the run's store: one tar of candidates, one table of their rows, and a receipt that is written last.

A unit without a sound receipt counts as not done. Writing a unit again, or by two writers at once, is harmless: the
contents are a function of the plan, each file appears whole, and the receipt holds the checksums of both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets.runs.shards import Sample, decode_png, encode_png, read_members, tar_bytes
from datasets.runs.tables import conform_rows, parse_table, replace_column, table_bytes
from datasets.storage.canonical import canonical_json, parse_json, sha256_hex
from datasets.storage.names import require_name
from datasets.storage.store import Store


@dataclass(frozen=True)
class UnitReceipt:
    """The proof that a unit is whole.

    Attributes:
        unit: The unit's name.
        num_samples: Candidates in it.
        recipe: What made them.
        tar_sha256: Of `units/<unit>.tar`.
        table_sha256: Of `units/<unit>.parquet`.
    """

    unit: str
    num_samples: int
    recipe: str
    tar_sha256: str
    table_sha256: str


def write_unit(store: Store, unit: str, images: NDArray[np.uint8], rows: pa.Table, *, recipe: str) -> UnitReceipt:
    """Store a unit's candidates; the rows' `image_sha256` is filled in. A sound unit of this recipe is left alone.

    Args:
        store: The run's store.
        unit: The unit's name: small letters, digits, dot, _ and -.
        images: (N, H, W, C) uint8, C = 1 or 3.
        rows: N rows of METADATA_SCHEMA in the order of the images; nullable columns may be absent.
        recipe: What made the images.

    Raises:
        ValueError: Images and rows do not belong together, or a row breaks the schema.
        StoreError: The store cannot be written; the unit then counts as not done.
    """
    require_name("unit", unit)
    if images.ndim != 4 or len(images) == 0 or len(images) != rows.num_rows:
        raise ValueError(
            f"unit {unit} got images {images.shape} and {rows.num_rows} rows; "
            "give at least one (N, H, W, C) image and one row for each."
        )
    encoded = [encode_png(image) for image in images]
    table = conform_rows(rows, name=f"unit {unit}")
    table = replace_column(table, "image_sha256", values=[sha256_hex(png) for png in encoded])
    tar = tar_bytes(_samples(table, encoded=encoded, unit=unit))
    parquet = table_bytes(table)
    receipt = UnitReceipt(
        unit=unit,
        num_samples=len(images),
        recipe=recipe,
        tar_sha256=sha256_hex(tar),
        table_sha256=sha256_hex(parquet),
    )
    with store.locked("units"):
        stored = read_receipt(store, unit, recipe=recipe, num_samples=len(images))
        if stored is not None:
            return stored
        store.write(f"units/{unit}.tar", tar)
        store.write(f"units/{unit}.parquet", parquet)
        store.write(f"units/{unit}.json", canonical_json(asdict(receipt)))
    return receipt


def read_receipt(store: Store, unit: str, *, recipe: str, num_samples: int) -> UnitReceipt | None:
    """The receipt of a unit that is whole and as planned.

    Args:
        store: The run's store.
        unit: The unit's name.
        recipe: The plan's recipe.
        num_samples: The plan's size.

    Returns:
        None where the unit has to be made (again): a file is missing or damaged, or size or recipe is not the plan's.

    Raises:
        StoreError: The store cannot be read.
    """
    require_name("unit", unit)
    receipt = _stored_receipt(store, unit)
    if receipt is None or (receipt.recipe, receipt.num_samples) != (recipe, num_samples):
        return None
    return receipt if _checked_files(store, receipt) is not None else None


def read_unit(store: Store, unit: str) -> tuple[NDArray[np.uint8], pa.Table]:
    """Read a unit back. Returns its images (N, H, W, C) uint8 and its N rows, in the order of the rows.

    Args:
        store: The run's store.
        unit: The unit's name.

    Raises:
        ValueError: The unit is missing, torn or damaged.
        StoreError: The store cannot be read.
    """
    encoded, table = read_encoded_unit(store, unit)
    keys = table["key"].to_pylist()
    images = ImagesByKey(unit, dict(zip(keys, encoded, strict=True)))
    return np.stack([images[key] for key in keys]), table


def read_encoded_unit(store: Store, unit: str) -> tuple[list[bytes], pa.Table]:
    """The same with the images as the PNG files that they are in the unit; raises as `read_unit`."""
    tar, table = _read_whole(store, unit)
    members = read_members(tar, name=f"units/{unit}.tar")
    keys = table["key"].to_pylist()
    if sorted(members) != sorted(keys) or not all("png" in fields for fields in members.values()):
        raise ValueError(f"units/{unit}.tar and its table hold different keys; remove the unit and make it again.")
    return [members[key]["png"] for key in keys], table


def open_unit(store: Store, unit: str) -> "ImagesByKey":
    """The images of a unit by key, each decoded when it is asked for; raises as `read_unit`."""
    encoded, table = read_encoded_unit(store, unit)
    return ImagesByKey(unit, dict(zip(table["key"].to_pylist(), encoded, strict=True)))


class ImagesByKey(Mapping[str, NDArray[np.uint8]]):
    """Images by key, uint8 (H, W, C), held as PNG files.

    Args:
        unit: The unit's name, for errors.
        encoded: The files by key.
    """

    def __init__(self, unit: str, encoded: Mapping[str, bytes]) -> None:
        self._unit, self._encoded = unit, encoded

    def __getitem__(self, key: str) -> NDArray[np.uint8]:
        return decode_png(self._encoded[key], name=f"units/{self._unit}.tar: {key}.png")

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def __len__(self) -> int:
        return len(self._encoded)


def read_unit_rows(store: Store, unit: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a unit's rows alone: its tar is not opened.

    Args:
        store: The run's store.
        unit: The unit's name.
        columns: Those that are wanted, in this order; None: all.

    Raises:
        ValueError: The unit's table is missing, torn or damaged.
        StoreError: The store cannot be read.
    """
    receipt = receipt_of(store, unit)
    try:
        parquet = store.read(f"units/{unit}.parquet")
    except FileNotFoundError:
        parquet = b""
    if sha256_hex(parquet) != receipt.table_sha256:
        raise _torn(store, unit)
    table = _parse_rows(parquet, unit=unit)
    return table if columns is None else table.select(list(columns))


def _read_whole(store: Store, unit: str) -> tuple[bytes, pa.Table]:
    """The tar's bytes and the rows of a unit that is what its receipt says."""
    files = _checked_files(store, receipt_of(store, unit))
    if files is None:
        raise _torn(store, unit)
    tar, parquet = files
    return tar, _parse_rows(parquet, unit=unit)


def receipt_of(store: Store, unit: str) -> UnitReceipt:
    """A unit's receipt; its files are not looked at.

    Raises:
        ValueError: It is missing or damaged.
        StoreError: The store cannot be read.
    """
    require_name("unit", unit)
    receipt = _stored_receipt(store, unit)
    if receipt is None:
        raise _torn(store, unit)
    return receipt


def _torn(store: Store, unit: str) -> ValueError:
    return ValueError(f"{store.url(f'units/{unit}.json')}: unit {unit} is missing or torn; make it again.")


def _parse_rows(parquet: bytes, *, unit: str) -> pa.Table:
    name = f"units/{unit}.parquet"
    return conform_rows(parse_table(parquet, name=name), name=name)


def _samples(table: pa.Table, *, encoded: list[bytes], unit: str) -> list[Sample]:
    columns = [table[name].to_pylist() for name in ("key", "label", "label_name", "group")]
    return [
        Sample(key=key, image=png, label=label, record={"label_name": label_name, "group": group, "unit": unit})
        for key, label, label_name, group, png in zip(*columns, encoded, strict=True)
    ]


def _stored_receipt(store: Store, unit: str) -> UnitReceipt | None:
    try:
        content = parse_json(store.read(f"units/{unit}.json"), name=f"units/{unit}.json")
        receipt = UnitReceipt(**content)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return receipt if receipt.unit == unit else None


def _checked_files(store: Store, receipt: UnitReceipt) -> tuple[bytes, bytes] | None:
    """The unit's tar and table, or None where one is missing or is not what the receipt says."""
    try:
        tar = store.read(f"units/{receipt.unit}.tar")
        parquet = store.read(f"units/{receipt.unit}.parquet")
    except FileNotFoundError:
        return None
    sound = sha256_hex(tar) == receipt.tar_sha256 and sha256_hex(parquet) == receipt.table_sha256
    return (tar, parquet) if sound else None
