"""Any fsspec URL as a store, and the names of files in it."""

from typing import TYPE_CHECKING

from datasets._exports import exported_from

if TYPE_CHECKING:
    from datasets.storage.canonical import canonical_json, sha256_hex
    from datasets.storage.checked import DamagedError
    from datasets.storage.store import Store, StoreError

__all__ = ["DamagedError", "Store", "StoreError", "canonical_json", "sha256_hex"]

__getattr__ = exported_from(__file__)
