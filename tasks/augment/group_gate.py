"""The gate: groups with few or no real images whose samples do not show what was asked for are not drawn any further.

The first round of such a group decides, by classifiers of label and attributes that are fitted on the real training
images. Where less than `plan.gate` of its candidates show the label, nothing of what is drawn for it is published.
Where the group has no real image at all, as many must show the attributes, too: else the backbone does not compose that
combination. In a group with some real images the verdict on every single image leaves out those that do not show them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Why a candidate of a refused group is not kept.
REFUSED_GROUP = "its group is refused: too few of its samples show what was asked for"
#: Columns that the gate asks for beside group and round.
GATE_COLUMNS = ("shows_label", "shows_attributes")
#: Real images that were worth as much as all drawing in the study (docs/absent_groups.md).
_WORTH_COLLECTING = 5


@dataclass(frozen=True, kw_only=True)
class GroupGate:
    """What the first round of a group with few or no real images showed.

    Attributes:
        group: Its name.
        real: Its real training images.
        candidates: Of the first round.
        shows_label: Share of them that show the label, by a classifier of labels.
        shows_attributes: Share of them that show every attribute value, by classifiers of those.
        floor: `plan.gate`.
    """

    group: str
    real: int
    candidates: int
    shows_label: float
    shows_attributes: float
    floor: float

    @property
    def is_open(self) -> bool:
        """Whether it is drawn: enough samples show the label and, where no image is real, the attributes."""
        return min(self._asked.values()) >= self.floor

    @property
    def _asked(self) -> dict[str, float]:
        """What must reach the floor."""
        return {"label": self.shows_label} | ({} if self.real else {"attributes": self.shows_attributes})

    @property
    def advice(self) -> str:
        """What to do, in a sentence: for a refused group another way."""
        if self.is_open:
            return (
                f"{self.group}, which has {self.real} real images, is drawn: of {self.candidates} samples "
                f"{self.shows_attributes:.0%} show the attributes asked for and {self.shows_label:.0%} the label."
            )
        asked, share = next((asked, share) for asked, share in self._asked.items() if share < self.floor)
        return (
            f"{self.group} is refused: of {self.candidates} samples {share:.0%} show the {asked} asked for, "
            f"{self.floor:.0%} must; collect about {_WORTH_COLLECTING} real images of it and oversample them."
        )


def gates_of(
    rows: pa.Table, *, groups: Sequence[str], sparse: Sequence[bool], real: Mapping[str, int], floor: float
) -> list[GroupGate]:
    """What the first round says of every sparse group that it has candidates of.

    Args:
        rows: Candidates; their group, round and GATE_COLUMNS.
        groups: Names of the groups.
        sparse: Which of them have few or no real images.
        real: Group -> real training images.
        floor: `plan.gate`.
    """
    first = rows["round"].fill_null(0).to_numpy() == 0
    named = np.array(rows["group"].to_pylist(), dtype=object)
    columns = {name: rows[name].fill_null(False).to_numpy() for name in GATE_COLUMNS}
    gates = []
    for group, few in zip(groups, sparse, strict=True):
        members: NDArray[np.bool_] = first & (named == group)
        if few and members.any():
            shares = {name: float(values[members].mean()) for name, values in columns.items()}
            gates.append(
                GroupGate(group=group, real=real.get(group, 0), candidates=int(members.sum()), floor=floor, **shares)
            )
    return gates
