"""The grid of cheap samplers among which benchmarks/cost.py chooses: few steps, a slightly louder start.

A deterministic solver of few steps needs no gradients and no second call; a start a little louder than the noise it was
trained with pushes its samples outwards.
"""

import itertools
from dataclasses import replace

from minority.calibration.outcome import Measured
from minority.calibration.space import Candidate, describe
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.sampling.settings import SamplerSettings
from tasks.calibration.search import measure
from tasks.inputs.workspace import Workspace

STEPS = (5, 6, 8, 10)
BOOST = (1.0, 1.1, 1.2, 1.3)
#: The first sample index of tuning.
FIRST = 2**42


def grid(base: SamplerSettings) -> list[Candidate]:
    """Every combination of steps and boost, all else as `base`."""
    samplers = [
        replace(
            base,
            solver="dpm_solver",
            steps=f"logsnr{steps}",
            boost_and_skip=None if boost == 1 else BoostAndSkip(boost=boost, skip=0.0),
        )
        for steps, boost in itertools.product(STEPS, BOOST)
    ]
    return [Candidate(describe(sampler), sampler) for sampler in samplers]


def tune(
    workspace: Workspace, base: SamplerSettings, *, num: int, validity_floor: float
) -> tuple[Candidate | None, list[dict[str, object]]]:
    """The setting of the grid that keeps most per evaluation, and the whole grid as rows.

    Args:
        workspace: The preset, opened.
        base: Batch size and whatever else is not searched.
        num: Samples a setting.
        validity_floor: Share of valid ones that a setting must reach; None is returned where none does.
    """
    found = {c: measure(workspace, c.sampler, range(FIRST, FIRST + num)) for c in grid(base)}
    able = [c for c, m in found.items() if m.valid_share >= validity_floor and m.passed]
    best = max(able, key=lambda c: found[c].per_1000_evaluations, default=None)
    return best, [_row(c, m, chosen=c is best) for c, m in found.items()]


def _row(candidate: Candidate, measured: Measured, *, chosen: bool) -> dict[str, object]:
    return {
        "setting": candidate.name,
        "kept, %": 100 * measured.kept_share,
        "valid, %": 100 * measured.valid_share,
        "diversity": measured.diversity,
        "kept per 1000 evaluations": measured.per_1000_evaluations,
        "": "chosen" if chosen else "",
    }
