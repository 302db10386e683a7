"""What a kept sample costs, all told: rare, valid, new and of its label, drawn, evaluated and scored.

    .venv/bin/python -m benchmarks.cost --preset digits
    .venv/bin/python -m benchmarks.cost --preset digits --num 1500 --out runs/benchmark/cost
    .venv/bin/python -m benchmarks.cost --preset digits --arm mine solver=dpm_solver steps=logsnr8

Arms, in one run and in turns:

- published: the published settings (w 0.4, s 0.8 T, n 5) through the published loop (benchmarks/published_loop.py);
- plain: what passes of plain ancestral sampling by this project;
- preset: the preset's own sampler;
- tuned: a fast solver from a slightly boosted start (minority/guidance/boost_and_skip.py), the best of a small grid,
  chosen on other seeds (benchmarks/cost_tuning.py), at no less than the given share of valid ones;
- those given by --arm, with sampler settings as `--set sampler.KEY=VALUE` takes them.

All arms are evaluated alike, as the preset does. A denoiser evaluation is one forward pass of one sample; a backward
pass counts as two. Seconds are those of the processor on a CPU and of the wall on a GPU, and include evaluating. The
scores (minority score, negative ELBO) decide nothing, so they are computed for the kept ones; the last columns show
what scoring every candidate would make of it. Intervals are 95 %, from the Beta posterior of the share that is kept;
where chains are pruned, samples of one root ancestor count once in it. Arms share the groups of their samples.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cost_tuning import tune
from benchmarks.machine import clock, describe_machine
from benchmarks.published_loop import FreshNoise, PublishedGuidance, PublishedLoop, as_network
from benchmarks.tables import keep, markdown
from flows import command_line  # noqa: F401 - sets Prefect's environment before Prefect is imported
from minority.backbones import Backbone
from minority.calibration.outcome import Measured, ratio_interval
from minority.calibration.search import whole
from minority.diffusion.pixels import to_pixels
from minority.sampling.draw import draw, score_images
from minority.sampling.settings import SamplerSettings
from tasks.augment.evaluating import evaluate_images
from tasks.calibration.search import round_robin_groups
from tasks.config.presets import load_preset, parse_overrides
from tasks.config.runs import AugmentConfig
from tasks.inputs.workspace import Workspace, open_workspace

PUBLISHED, PLAIN = "published", "plain"
#: The first sample index of the arms; tuning uses others.
FRESH = 2**41

#: Images (B, H, W, C) uint8, evaluations a sample, and how many of the samples are copies of others.
Batch = tuple[NDArray[np.uint8], float, int]
#: Indices and their labels -> a batch.
Draw = Callable[[Sequence[int], list[int] | None], Batch]


@dataclass
class Spent:
    """What an arm has drawn and what that took."""

    samples: int = 0
    valid: int = 0
    kept: int = 0
    copies: int = 0
    evaluations: float = 0.0
    seconds: float = 0.0
    scoring_seconds: float = 0.0


def published_arm(backbone: Backbone, *, steps: int | str, seed: int, device: str) -> Draw:
    """The published loop for any backbone."""
    backbone = backbone.to(device)
    respaced = backbone.schedule.respaced(steps)

    def draw_batch(indices: Sequence[int], labels: list[int] | None) -> Batch:
        loop = PublishedLoop(
            as_network(backbone.denoiser),
            trained_betas=backbone.schedule.beta,
            timesteps=respaced.timesteps,
            guidance=PublishedGuidance(),
        )
        noise = FreshNoise(seed + indices[0], (len(indices), *backbone.image_shape), device=device)
        x = loop.draw(noise, label=None if labels is None else torch.tensor(labels, device=device))
        return to_pixels(x), loop.forwards + 2.0 * loop.backwards, 0

    return draw_batch


def our_arm(workspace: Workspace, settings: SamplerSettings) -> Draw:
    """A sampler of this project."""

    def draw_batch(indices: Sequence[int], labels: list[int] | None) -> Batch:
        drawn = draw(
            workspace.backbone,
            seed=workspace.config.seed,
            indices=indices,
            labels=labels,
            settings=settings,
            reference=workspace.candidate_filter.reference,
            extract=workspace.extract,
            device=workspace.device,
        )
        return drawn.images, drawn.evaluations, drawn.copies

    return draw_batch


def measure(workspace: Workspace, arm: Draw, spent: Spent, *, indices: Sequence[int], particle_group: int) -> None:
    """Draw, evaluate and score a batch of samples, a particle group in a row of one group; adds to what is spent."""
    groups, labels = round_robin_groups(workspace, indices, particle_group=particle_group)
    start = clock(workspace.device)
    images, evaluations, copies = arm(indices, labels)
    verdicts = evaluate_images(workspace, images, groups).verdicts
    evaluated = clock(workspace.device)
    kept = np.flatnonzero(verdicts.passed)
    if len(kept):
        score_images(
            workspace.backbone,
            images[kept],
            seed=workspace.config.seed,
            indices=[indices[i] for i in kept],
            labels=None if labels is None else [labels[i] for i in kept],
            settings=workspace.config.scores,
            batch_size=workspace.config.sampler.batch_size,
            device=workspace.device,
        )
    spent.samples += len(indices)
    spent.valid += int(verdicts.valid.sum())
    spent.kept += len(kept)
    spent.copies += copies
    spent.evaluations += evaluations * len(indices)
    spent.seconds += evaluated - start
    spent.scoring_seconds += clock(workspace.device) - evaluated


def rows_of(spent: dict[str, Spent], *, scoring: int) -> list[dict[str, object]]:
    """One row an arm.

    Args:
        spent: By arm.
        scoring: Evaluations that scoring one image takes.
    """
    seconds = {name: s.seconds + s.scoring_seconds for name, s in spent.items()}
    calls = {name: s.evaluations + scoring * s.kept for name, s in spent.items()}
    everything = {name: s.evaluations + scoring * s.samples for name, s in spent.items()}
    rows = []
    for name, s in spent.items():
        row: dict[str, object] = {
            "sampler": name,
            "samples": s.samples,
            "kept, %": 100 * s.kept / s.samples,
            "valid, %": 100 * s.valid / s.samples,
            "evaluations a sample": s.evaluations / s.samples,
            "evaluations a kept one": calls[name] / s.kept if s.kept else math.inf,
            "seconds a kept one": seconds[name] / s.kept if s.kept else math.inf,
        }
        for title, costs in (("evaluations", calls), ("seconds", seconds), ("evaluations, all scored", everything)):
            for baseline in (PUBLISHED, PLAIN):
                row[f"{title}: {baseline} / this"] = _ratio(spent, costs, name, baseline)
        rows.append(row)
    return rows


def _ratio(spent: dict[str, Spent], costs: dict[str, float], name: str, baseline: str) -> str:
    if name == baseline:
        return "1"
    ours, theirs = (
        Measured(
            samples=spent[arm].samples,
            passed=spent[arm].kept,
            evaluations=costs[arm],
            copies=spent[arm].copies,
        )
        for arm in (name, baseline)
    )
    point, (low, high) = ratio_interval(ours, theirs)
    return f"{point:.1f} ({low:.1f} ... {high:.1f})"


def given_arms(preset: str, arguments: Sequence[Sequence[str]]) -> dict[str, SamplerSettings]:
    """Samplers as --arm names them."""
    arms = {}
    for name, *assignments in arguments:
        settings = {f"sampler.{key}": value for key, value in parse_overrides(assignments).items()}
        arms[name] = load_preset(AugmentConfig, preset, overrides={"sampler": {}} | settings).sampler
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments")
    parser.add_argument("--num", type=int, default=1000, help="samples an arm")
    parser.add_argument("--chain", type=int, default=50, help="steps of the published and the plain chain")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tuning", type=int, default=200, help="samples a setting of the grid; 0 leaves `tuned` out")
    parser.add_argument("--validity-floor", type=float, default=0.8, help="of what may be chosen from the grid")
    parser.add_argument("--arm", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--store", default="runs/benchmark")
    parser.add_argument("--out", type=Path, default=None, help="folder that receives cost.md and cost.json")
    arguments = parser.parse_args()
    overrides = parse_overrides(arguments.assignments) | {"seed": arguments.seed, "store": arguments.store}
    workspace = open_workspace(load_preset(AugmentConfig, arguments.preset, overrides=overrides))
    plain = SamplerSettings(
        steps=arguments.chain, variance=workspace.config.sampler.variance, batch_size=arguments.batch_size
    )
    samplers = {PLAIN: plain, "preset": replace(workspace.config.sampler, batch_size=arguments.batch_size)}
    lines = []
    if arguments.tuning:
        tuned, table = tune(workspace, plain, num=arguments.tuning, validity_floor=arguments.validity_floor)
        lines += [f"\n## The grid, {arguments.tuning} samples a setting, on other seeds\n", markdown(table)]
        samplers |= {} if tuned is None else {f"tuned: {tuned.name}": tuned.sampler}
    samplers |= given_arms(arguments.preset, arguments.arm)
    arms = {
        PUBLISHED: published_arm(
            workspace.backbone, steps=arguments.chain, seed=arguments.seed, device=workspace.device
        )
    } | {name: our_arm(workspace, settings) for name, settings in samplers.items()}
    spent = {name: Spent() for name in arms}
    particle_group = math.lcm(*(settings.particle_group for settings in samplers.values()))
    size, fresh = (
        whole(arguments.batch_size, particle_group=particle_group),
        math.ceil(FRESH / particle_group) * particle_group,
    )
    for first in range(0, arguments.num, size):
        count = min(size, arguments.num - first)
        for name, arm in arms.items():
            measure(
                workspace,
                arm,
                spent[name],
                indices=range(fresh + first, fresh + first + count),
                particle_group=particle_group,
            )
    scores = workspace.config.scores
    rows = rows_of(spent, scoring=scores.draws + scores.elbo_steps)
    machine = describe_machine(workspace.device)
    head = f"## Cost of a kept sample, {arguments.preset}, seed {arguments.seed}\n\n{machine}\n"
    text = "\n".join([head, markdown(rows), *lines])
    print(text)
    keep(arguments.out, "cost", text=text, content={"machine": machine, "rows": rows, "arguments": str(arguments)})


if __name__ == "__main__":
    main()
