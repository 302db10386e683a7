"""What the finished units of a run hold: their rows together, and the choice among them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets.store import Store
from datasets.tables import replace_column
from datasets.units import read_unit
from minority.selection import choose
from tasks.planning import Tally, UnitPlan, tally

_FILTERS = ("rare", "valid", "new", "label_kept")


def read_rows(store: Store, plans: Sequence[UnitPlan]) -> pa.Table | None:
    """The rows of finished units, in the order of the plans; None where there are none."""
    return pa.concat_tables([read_unit(store, plan.unit)[1] for plan in plans]) if plans else None


def choose_candidates(rows: pa.Table, *, groups: Sequence[str], wanted: Sequence[int]) -> pa.Table:
    """Fill in `kept` and `reason`: what passed every filter, in order, up to the quota of its group.

    The choice among the rows of early rounds does not change when later rounds are added.
    """
    verdicts = {name: rows[name].to_numpy() for name in _FILTERS}
    group_index = {name: i for i, name in enumerate(groups)}
    group_of: NDArray[np.int64] = np.array([group_index[name] for name in rows["group"].to_pylist()], dtype=np.int64)
    kept, reasons = choose(verdicts, group_of, quotas=dict(enumerate(wanted)))
    return replace_column(replace_column(rows, "kept", values=kept.tolist()), "reason", values=list(reasons))


def tally_candidates(rows: pa.Table | None, *, groups: Sequence[str], wanted: Sequence[int]) -> list[Tally]:
    """How far every group is after the chosen rows."""
    if rows is None:
        return [Tally(missing=count) for count in wanted]
    passed = np.logical_and.reduce([rows[name].to_numpy() for name in _FILTERS])
    columns = {"group": rows["group"].to_pylist(), "kept": rows["kept"].to_pylist(), "passed": passed.tolist()}
    return tally(wanted, columns, groups)
