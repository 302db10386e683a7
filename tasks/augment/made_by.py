"""What made a run's synthetic images, in their rows and in their own bytes (publish.provenance)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from datasets.runs.provenance import Provenance, with_provenance
from datasets.runs.records import PROVENANCE_FIELDS
from datasets.runs.tables import replace_column
from tasks.config.runs import AugmentConfig


@dataclass(frozen=True, kw_only=True)
class MadeBy:
    """What is the same for all synthetic images of a run.

    Attributes:
        dataset: The dataset's name.
        recipe: The run's.
        backbone: The diffusion model's name.
        backbone_sha256: Of its weights.
    """

    dataset: str
    recipe: str
    backbone: str
    backbone_sha256: str

    @classmethod
    def told(cls, config: AugmentConfig, *, recipe: str, backbone: Mapping[str, str]) -> Self | None:
        """Of a run; None where it is not to be told.

        Args:
            config: The run's.
            recipe: The run's.
            backbone: As the manifest has it.
        """
        if not config.publish.provenance:
            return None
        return cls(dataset=config.name, recipe=recipe, backbone=backbone["name"], backbone_sha256=backbone["sha256"])

    def told_in(self, png: bytes, row: Mapping[str, Any]) -> bytes:
        """A synthetic image's PNG file that says what made it."""
        said = Provenance(
            dataset=self.dataset,
            recipe=self.recipe,
            backbone=self.backbone,
            backbone_sha256=self.backbone_sha256,
            seed=row["seed"],
            sample_index=row["sample_index"],
            edited_source_id=row["edited_source_id"],
        )
        return with_provenance(png, said)

    def add_columns(self, rows: pa.Table) -> pa.Table:
        """The rows with what made the synthetic ones; null in those of real images."""
        synthetic = pc.equal(rows["source"], "synthetic")
        for field in PROVENANCE_FIELDS:
            value = pa.scalar(getattr(self, field.name), field.type)
            column = pc.if_else(synthetic, value, pa.scalar(None, field.type))
            rows = replace_column(rows, field.name, values=column)
        return rows
