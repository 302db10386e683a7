"""A published run, opened from its manifest alone: what flows find that come after it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from datasets.runs.latest import read_latest
from datasets.runs.manifest import Manifest
from datasets.runs.tables import conform_rows, parse_table
from datasets.runs.units import open_unit
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store
from tasks.config.presets import validate
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.planned_groups import planned_real_data
from tasks.inputs.real_data import RealData

_opening = threading.RLock()


@dataclass(frozen=True, eq=False)
class PublishedRun:
    """A run that is published.

    Attributes:
        url: Its manifest's.
        store: The run's own store.
        manifest: What it says.
        config: The settings that made it; places of this machine are the defaults.
        real: The real images that it was made from.
        unit_store: The store of the run whose units hold the images: its own, or that of the run which it is a version
            of.
    """

    url: str
    store: Store
    manifest: Manifest
    config: AugmentConfig
    real: RealData
    unit_store: Store

    @property
    def dataset_store(self) -> Store:
        """The dataset's own part of the store: a run lies in `runs/<run id>` of it."""
        return Store(self.store.root.rsplit("/", 2)[0])

    @cached_property
    def metadata(self) -> pd.DataFrame:
        """A row for every real image and candidate.

        Raises:
            InputError: The table is not the one that the manifest names.
        """
        rows: pd.DataFrame = self.table().to_pandas()
        return rows

    def table(self) -> pa.Table:
        """The same as a table, read anew.

        Raises:
            InputError: The table is not the one that the manifest names.
        """
        entry = self.manifest.metadata
        data, name = self.store.read(entry.path), self.store.url(entry.path)
        if sha256_hex(data) != entry.sha256:
            raise InputError(f"{name} is not the table that the manifest names; verify the run.")
        return conform_rows(parse_table(data, name=name), name=name)

    def images(self, keys: Sequence[str]) -> NDArray[np.uint8]:
        """The images of some rows, kept or not, from the units that hold them: (N, H, W, C)."""
        found = np.zeros((len(keys), *self.real.train.image_shape), dtype=np.uint8)
        rows_of: dict[str, list[int]] = {}
        for row, key in enumerate(keys):
            rows_of.setdefault(self._unit_of[key], []).append(row)
        for unit, rows in sorted(rows_of.items()):
            by_key = self.unit_images(unit)
            for row in rows:
                found[row] = by_key[keys[row]]
        return found

    def unit_images(self, unit: str) -> Mapping[str, NDArray[np.uint8]]:
        """The images of a unit by key, each (H, W, C), decoded when they are asked for.

        Raises:
            InputError: The unit is not there, or is damaged.
        """
        try:
            return open_unit(self.unit_store, unit)
        except ValueError as error:
            raise InputError(
                f"{error} The candidates of a published run are gone once `minority clean` has removed its staging."
            ) from error

    @cached_property
    def _unit_of(self) -> dict[str, str]:
        return dict(zip(self.metadata["key"], self.metadata["unit"], strict=True))


def latest_manifest(store: str, dataset: str) -> str:
    """URL of the manifest of a dataset's latest published run.

    Raises:
        InputError: Nothing is published.
    """
    latest = read_latest(Store(store), dataset)
    if latest is None:
        raise InputError(
            f"nothing of {dataset} is published in {Store(store).root}; run augment/{dataset} first, or set manifest."
        )
    return Store(store).url(f"{dataset}/{latest.manifest}")


def open_published(url: str) -> PublishedRun:
    """Open a run, or return it from this process's memory.

    Raises:
        InputError: The manifest is missing or damaged, or the real images are not those that the run was made from.
    """
    with _opening:
        return _open(url)


@lru_cache(maxsize=2)
def _open(url: str) -> PublishedRun:
    folder, _, file_name = url.rpartition("/")
    store = Store(folder or ("/" if url.startswith("/") else "."))
    try:
        manifest = Manifest.from_json(store.read(file_name), name=url)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error
    config = validate(AugmentConfig, manifest.config, overrides={})
    run = PublishedRun(url, store, manifest, config, planned_real_data(config), _unit_store(store, manifest))
    rows = run.metadata
    made_from = set(rows.loc[rows["source"] == "real", "source_id"])
    if made_from != set(run.real.train.source_ids):
        raise InputError(
            f"{url} was made from {len(made_from)} real training images, {config.dataset.folder or 'the reader'} now "
            f"gives {len(run.real.train)}, which are not the same; bring back the images as they were."
        )
    if manifest.real_digest is not None and manifest.real_digest != run.real.digest:
        raise InputError(
            f"{url} was made from real images of the same names as those of {config.dataset.folder or 'the reader'}, "
            "but with other pixels, labels, groups or parts; bring back the images as they were."
        )
    return run


def _unit_store(store: Store, manifest: Manifest) -> Store:
    """The store of the run whose units a run was published from; runs of a dataset lie beside one another."""
    review = manifest.review
    if review is None or review.units_of == manifest.run_id:
        return store
    return Store(f"{store.root.rpartition('/')[0]}/{review.units_of}")
