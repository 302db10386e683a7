"""What the finished units of a run hold: their rows, a few columns at a time, and the choice among the candidates."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datasets.runs.tables import replace_column
from datasets.runs.units import read_unit_rows
from datasets.storage.store import Store
from minority.selection.choice import Reviewed, Spread, choose
from minority.selection.look_alikes import look_alikes
from minority.selection.policy import Policy, asked_columns, passed
from tasks.augment.decisions import Decisions
from tasks.augment.group_gate import GATE_COLUMNS, REFUSED_GROUP, GroupGate, gates_of
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
        gate = () if self._workspace.factor_filter is None else GATE_COLUMNS
        rows = read_rows(self._store, plan, columns=(*_ASKED, *asked_columns(self._policy), *gate))
        assert rows is not None, "a round has units"
        self._rows = rows if self._rows is None else pa.concat_tables([self._rows, rows])

    def choose(self, decisions: Decisions | None = None) -> pa.Table | None:
        """Their key, `kept`, `reason` and `near_duplicate_group`, in the order of the plans; None before a round.

        Args:
            decisions: What people said of them; None: nobody looked.
        """
        if self._rows is None:
            return None
        rows = self._chosen(self._rows)
        if decisions is not None:
            rows = self._chosen(rows, reviewed=review_of(rows, decisions))
        rows = name_near_duplicates(rows, radius=self._workspace.candidate_filter.thresholds["nearest_distance"])
        return rows.select(["key", "kept", "reason", "near_duplicate_group"])

    def tallies(self) -> list[Tally]:
        """How far every group is."""
        rows = None if self._rows is None else self._chosen(self._rows)
        return tally_candidates(rows, groups=self._workspace.real.groups, wanted=self._wanted, policy=self._policy)

    def gates(self) -> list[GroupGate]:
        """What the first round says of the groups with few or no real images; none where no classifier tells them."""
        workspace = self._workspace
        if self._rows is None or workspace.factor_filter is None:
            return []
        return gates_of(
            self._rows,
            groups=workspace.real.groups,
            sparse=workspace.factor_filter.sparse.tolist(),
            real=Counter(workspace.real.train.groups),
            floor=workspace.config.plan.gate,
        )

    @property
    def _policy(self) -> Policy:
        return self._workspace.config.selection.policy

    @property
    def _wanted(self) -> list[int]:
        wanted = quotas(self._workspace.real, self._workspace.config.plan)
        refused = self._refused
        return [
            0 if group in refused else count for group, count in zip(self._workspace.real.groups, wanted, strict=True)
        ]

    @property
    def _refused(self) -> set[str]:
        return {gate.group for gate in self.gates() if not gate.is_open}

    def _chosen(self, rows: pa.Table, *, reviewed: Reviewed | None = None) -> pa.Table:
        chosen = self._choice(rows, reviewed=reviewed)
        refused = self._refused
        if not refused:
            return chosen
        reasons = [
            REFUSED_GROUP if group in refused else reason
            for group, reason in zip(rows["group"].to_pylist(), chosen["reason"].to_pylist(), strict=True)
        ]
        return replace_column(chosen, "reason", values=reasons)

    def _choice(self, rows: pa.Table, *, reviewed: Reviewed | None) -> pa.Table:
        return choose_candidates(
            rows,
            groups=self._workspace.real.groups,
            wanted=self._wanted,
            policy=self._policy,
            spacing=self._workspace.spacing,
            reviewed=reviewed,
        )


def review_of(rows: pa.Table, decisions: Decisions) -> Reviewed:
    """What decisions mean for the choice: what was kept and is not refused stays, then comes what was called good.

    Args:
        rows: Candidates, `kept` as it was before the review.
        decisions: What people said of them.
    """
    kept = rows["kept"].to_numpy()
    refused, good = (_among(rows, decisions.keys(word)) for word in ("bad", "good"))
    return Reviewed(refused=refused, stages=np.where(kept & ~refused, 0, np.where(good, 1, 2)))


def _among(rows: pa.Table, keys: Collection[str]) -> NDArray[np.bool_]:
    return np.array([key in keys for key in rows["key"].to_pylist()], dtype=bool)


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
    reviewed: Reviewed | None = None,
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
        reviewed: What people said of them.
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
        reviewed=reviewed,
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
