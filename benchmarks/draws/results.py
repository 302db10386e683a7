"""What one draw left: what every arm said of the test images, and how it did on validation images.

Shapes: S seeds, N test images.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.draws.kept_files import load_arrays, save_arrays
from benchmarks.draws.verdict_over_draws import DrawAnswers
from minority.downstream.cost import ArmCost
from minority.downstream.data import Int64


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawResult:
    """One training draw, done.

    Attributes:
        draw: Its number.
        sizes: Training images a class, commonest first.
        parts: (N,) the test images' classes, or cells.
        answers: Arm -> what it said of the test images.
        validated: Arm -> balanced accuracy on validation images of the trial that was chosen, mean over tuning seeds.
        costs: Arm -> multiply-adds.
    """

    draw: int
    sizes: tuple[int, ...]
    parts: Int64
    answers: Mapping[str, DrawAnswers]
    validated: Mapping[str, float]
    costs: Mapping[str, ArmCost]

    def write(self, path: Path) -> None:
        """Keep it in one file, whole or not at all."""
        facts = {
            "draw": self.draw,
            "sizes": self.sizes,
            "validated": dict(self.validated),
            "costs": {arm: asdict(cost) for arm, cost in self.costs.items()},
        }
        arrays = {f"right/{arm}": found.right for arm, found in self.answers.items()}
        content = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        save_arrays(path, {**arrays, "parts": self.parts, "facts": content})

    @classmethod
    def read(cls, path: Path) -> "DrawResult | None":
        """Read what `write` wrote; None where there is nothing."""
        if not path.is_file():
            return None
        arrays = load_arrays(path)
        facts = json.loads(arrays.pop("facts").tobytes())
        parts = arrays.pop("parts").astype(np.int64)
        answers = {
            name.partition("/")[2]: DrawAnswers(right=right.astype(bool), parts=parts) for name, right in arrays.items()
        }
        return cls(
            draw=facts["draw"],
            sizes=tuple(facts["sizes"]),
            parts=parts,
            answers=answers,
            validated=facts["validated"],
            costs={arm: ArmCost(**cost) for arm, cost in facts["costs"].items()},
        )
