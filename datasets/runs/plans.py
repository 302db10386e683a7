"""The plan of a round in the run's store: which sample is drawn for which group, written once, before any unit of it.

A plan that lies there stands, whoever makes it again: the units of one round never mix two plans.
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets.runs.tables import parse_table
from datasets.storage.canonical import sha256_hex
from datasets.storage.names import require_name
from datasets.storage.store import Store

PLAN_SCHEMA = pa.schema([pa.field("index", pa.int64(), nullable=False), pa.field("group", pa.int32(), nullable=False)])
_DIGEST = b"sha256"


def keep_plan(
    store: Store, name: str, *, indices: NDArray[np.int64], groups: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Store a round's plan unless a sound one lies there.

    Args:
        store: The run's store.
        name: The round's name: small letters, digits, dot, _ and -.
        indices: (N,) sample indices in the order of the units.
        groups: (N,) the group that each is drawn for.

    Returns:
        (N,) indices and (N,) groups that hold: those given, or those of the plan that was there.

    Raises:
        StoreError: The store cannot be read or written.
    """
    data = _plan_bytes(indices, groups)
    if not store.create(_path(name), data):
        stored = read_plan(store, name)
        if stored is not None:
            return stored
        store.write(_path(name), data)
    return indices, groups


def read_plan(store: Store, name: str) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
    """The (N,) indices and (N,) groups of a stored plan; None where there is none, or a damaged one.

    Raises:
        StoreError: The store cannot be read.
    """
    try:
        table = parse_table(store.read(_path(name)), name=name)
    except (FileNotFoundError, ValueError):
        return None
    if table.schema != PLAN_SCHEMA or any(column.null_count for column in table.columns):
        return None
    indices, groups = table["index"].to_numpy(), table["group"].to_numpy()
    said = (table.schema.metadata or {}).get(_DIGEST)
    return (indices, groups) if said == _digest(indices, groups) else None


def _path(name: str) -> str:
    require_name("plan", name)
    return f"plans/{name}.parquet"


def _plan_bytes(indices: NDArray[np.int64], groups: NDArray[np.int32]) -> bytes:
    schema = PLAN_SCHEMA.with_metadata({_DIGEST: _digest(indices, groups)})
    table = pa.table([pa.array(indices, pa.int64()), pa.array(groups, pa.int32())], schema=schema)
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=["group"],
        column_encoding={"index": "DELTA_BINARY_PACKED"},  # indices mostly count up
    )
    return sink.getvalue()


def _digest(indices: NDArray[np.int64], groups: NDArray[np.int32]) -> bytes:
    return sha256_hex(indices.astype("<i8").tobytes() + groups.astype("<i4").tobytes()).encode()
