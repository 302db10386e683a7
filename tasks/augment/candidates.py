"""What the finished units of a run hold: their rows, a few columns at a time, and the choice among the candidates."""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets.runs.tables import replace_column
from datasets.runs.units import read_unit_rows
from datasets.storage.store import Store
from minority.selection.choice import Spread, choose
from minority.selection.diversity import look_alikes
from minority.selection.policy import Policy, asked_columns, passed
from tasks.augment.planning import RoundPlan, Tally, UnitPlan, quotas, tally
from tasks.inputs.workspace import Workspace

#: What the choice asks of a candidate, beside what the policy asks.
_ASKED = ("key", "group", "round", "random_projection")
_UNITS_AT_ONCE = 64


class Candidates:
    """The candidates of the rounds drawn so far: of each only what the choice asks, read once."""

    def __init__(self, workspace: Workspace, store: Store) -> None:
        self._workspace = workspace
        self._store = store
        self._rows: pa.Table | None = None

    @property
    def num_samples(self) -> int:
        """Candidates so far."""
        return 0 if self._rows is None else self._rows.num_rows

    def add(self, plan: RoundPlan) -> None:
        """Read the candidates of a finished round."""
        rows = read_rows(self._store, plan, columns=(*_ASKED, *asked_columns(self._policy)))
        assert rows is not None, "a round has units"
        self._rows = rows if self._rows is None else pa.concat_tables([self._rows, rows])

    def choose(self) -> pa.Table | None:
        """Their key, `kept`, `reason` and `near_duplicate_group`, in the order of the plans; None before a round."""
        if self._rows is None:
            return None
        rows = name_near_duplicates(
            self._chosen(self._rows), radius=self._workspace.candidate_filter.thresholds["nearest_distance"]
        )
        return rows.select(["key", "kept", "reason", "near_duplicate_group"])

    def tallies(self) -> list[Tally]:
        """How far every group is."""
        rows = None if self._rows is None else self._chosen(self._rows)
        return tally_candidates(rows, groups=self._workspace.real.groups, wanted=self._wanted, policy=self._policy)

    @property
    def _policy(self) -> Policy:
        return self._workspace.config.selection.policy

    @property
    def _wanted(self) -> list[int]:
        return quotas(self._workspace.real, self._workspace.config.plan)

    def _chosen(self, rows: pa.Table) -> pa.Table:
        return choose_candidates(
            rows,
            groups=self._workspace.real.groups,
            wanted=self._wanted,
            policy=self._policy,
            spacing=self._workspace.spacing,
        )


def read_rows(store: Store, units: Iterable[UnitPlan], *, columns: Sequence[str] | None = None) -> pa.Table | None:
    """The rows of finished units, in the order of the units; None where there are none.

    Args:
        store: The run's store.
        units: A round's plan, or any units.
        columns: What to read of them; None: everything.
    """
    parts, left = [], iter(units)
    while some := list(islice(left, _UNITS_AT_ONCE)):
        rows = [read_unit_rows(store, plan.unit, columns=columns) for plan in some]
        parts.append(pa.concat_tables(rows).combine_chunks())  # many small pieces would weigh more than their rows
    return pa.concat_tables(parts) if parts else None


def choose_candidates(
    rows: pa.Table,
    *,
    groups: Sequence[str],
    wanted: Sequence[int],
    policy: Policy = "rare",
    spacing: float | None = None,
) -> pa.Table:
    """Fill in `kept` and `reason`: what the policy lets through, up to the quota of its group.

    The choice among the rows of early rounds does not change when later rounds are added.

    Args:
        rows: The candidates, round by round.
        groups: Names of the groups.
        wanted: Images wanted for each.
        policy: Which verdicts a kept candidate must have.
        spacing: None keeps them in order. Otherwise those that differ most come first, and what is this near to a kept
            one is a look-alike.
    """
    group_index = {name: i for i, name in enumerate(groups)}
    group_of: NDArray[np.int64] = np.array([group_index[name] for name in rows["group"].to_pylist()], dtype=np.int64)
    spread = None if spacing is None else _spread(rows, spacing)
    kept, reasons = choose(
        _asked(rows, policy),
        group_of,
        quotas=dict(enumerate(wanted)),
        policy=policy,
        rounds=_rounds(rows),
        spread=spread,
    )
    return replace_column(replace_column(rows, "kept", values=kept.tolist()), "reason", values=list(reasons))


def name_near_duplicates(rows: pa.Table, *, radius: float) -> pa.Table:
    """Fill in `near_duplicate_group`: the key of the first candidate of each chain of near-duplicates.

    Args:
        rows: Candidates with random projections.
        radius: Distance up to which two of them are near-duplicates.
    """
    first = look_alikes(_projections(rows), radius=radius)
    return replace_column(rows, "near_duplicate_group", values=rows["key"].take(pa.array(first)))


def _spread(rows: pa.Table, spacing: float) -> Spread:
    return Spread(_projections(rows), rounds=_rounds(rows), spacing=spacing)


def _projections(rows: pa.Table) -> NDArray[np.float32]:
    column = rows["random_projection"].combine_chunks()
    values: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def tally_candidates(
    rows: pa.Table | None, *, groups: Sequence[str], wanted: Sequence[int], policy: Policy = "rare"
) -> list[Tally]:
    """How far every group is after the chosen rows."""
    if rows is None:
        return [Tally(missing=count) for count in wanted]
    let_through = passed_policy(rows, policy).tolist()
    columns = {"group": rows["group"].to_pylist(), "kept": rows["kept"].to_pylist(), "passed": let_through}
    return tally(wanted, columns, groups)


def passed_policy(rows: pa.Table, policy: Policy) -> NDArray[np.bool_]:
    """(N,) whether the policy lets each candidate through, among the candidates given."""
    groups = np.unique(np.array(rows["group"].to_pylist(), dtype=object), return_inverse=True)[1]
    return passed(policy, _asked(rows, policy), groups.astype(np.int64), rounds=_rounds(rows))


def _asked(rows: pa.Table, policy: Policy) -> dict[str, NDArray[np.generic]]:
    return {name: rows[name].to_numpy() for name in asked_columns(policy)}


def _rounds(rows: pa.Table) -> NDArray[np.int64]:
    rounds: NDArray[np.int64] = rows["round"].fill_null(0).to_numpy().astype(np.int64)
    return rounds
