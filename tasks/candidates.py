"""What the finished units of a run hold: their rows together, and the choice among them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets.store import Store
from datasets.tables import replace_column
from datasets.units import read_unit_rows
from minority.diversity import look_alikes
from minority.selection import Spread, choose
from tasks.planning import Tally, UnitPlan, tally

_FILTERS = ("rare", "valid", "new", "label_kept")


def read_rows(store: Store, plans: Sequence[UnitPlan]) -> pa.Table | None:
    """The rows of finished units, in the order of the plans; None where there are none."""
    return pa.concat_tables([read_unit_rows(store, plan.unit) for plan in plans]) if plans else None


def choose_candidates(
    rows: pa.Table, *, groups: Sequence[str], wanted: Sequence[int], spacing: float | None = None
) -> pa.Table:
    """Fill in `kept` and `reason`: what passed every filter, up to the quota of its group.

    The choice among the rows of early rounds does not change when later rounds are added.

    Args:
        rows: The candidates, round by round.
        groups: Names of the groups.
        wanted: Images wanted for each.
        spacing: None keeps them in order. Otherwise those that differ most come first, and what is this near to a kept
            one is a look-alike.
    """
    verdicts = {name: rows[name].to_numpy() for name in _FILTERS}
    group_index = {name: i for i, name in enumerate(groups)}
    group_of: NDArray[np.int64] = np.array([group_index[name] for name in rows["group"].to_pylist()], dtype=np.int64)
    spread = None if spacing is None else _spread(rows, spacing)
    kept, reasons = choose(verdicts, group_of, quotas=dict(enumerate(wanted)), spread=spread)
    return replace_column(replace_column(rows, "kept", values=kept.tolist()), "reason", values=list(reasons))


def name_near_duplicates(rows: pa.Table, *, radius: float) -> pa.Table:
    """Fill in `near_duplicate_group`: the key of the first candidate of each chain of near-duplicates.

    Args:
        rows: Candidates with fingerprints.
        radius: Distance up to which two of them are near-duplicates.
    """
    keys = rows["key"].to_pylist()
    first = look_alikes(_fingerprints(rows), radius=radius)
    return replace_column(rows, "near_duplicate_group", values=[keys[i] for i in first.tolist()])


def _spread(rows: pa.Table, spacing: float) -> Spread:
    return Spread(_fingerprints(rows), rounds=rows["round"].to_numpy().astype(np.int64), spacing=spacing)


def _fingerprints(rows: pa.Table) -> NDArray[np.float32]:
    return np.array(rows["fingerprint"].to_pylist(), dtype=np.float32)


def tally_candidates(rows: pa.Table | None, *, groups: Sequence[str], wanted: Sequence[int]) -> list[Tally]:
    """How far every group is after the chosen rows."""
    if rows is None:
        return [Tally(missing=count) for count in wanted]
    passed = passed_filters(rows).tolist()
    columns = {"group": rows["group"].to_pylist(), "kept": rows["kept"].to_pylist(), "passed": passed}
    return tally(wanted, columns, groups)


def passed_filters(rows: pa.Table) -> NDArray[np.bool_]:
    """(N,) whether every filter let the candidate through."""
    passed: NDArray[np.bool_] = np.logical_and.reduce([rows[name].to_numpy() for name in _FILTERS])
    return passed
