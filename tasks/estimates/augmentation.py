"""What a run of augment will cost: candidates, evaluations, minutes and disk, group by group."""

import math
from collections import Counter
from dataclasses import dataclass

from datasets.storage.store import Store
from minority.sampling.cost import expected_cost
from minority.sampling.pace import evaluations_of_scores, seconds_a_call
from tasks.augment.planning import RoundPlan, Tally, plan_baseline, plan_real, plan_round, quotas
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.estimates.comparison import comparison_costs
from tasks.estimates.disk import Amounts, bytes_on_disk
from tasks.execution.capacity import Demand, on_ray, worker_slots
from tasks.inputs.planned_groups import planned_real_data
from tasks.inputs.real_data import RealData
from tasks.inputs.workspace import open_backbone, prepare_device

#: Candidates of a further round, as a share of those before, that disk is reckoned with: groups keep unequal shares, so
#: that some are drawn for again. On the digits it was 0.26, and is none where every group keeps what is expected.
_DRAWN_AGAIN = 0.15


@dataclass(frozen=True, kw_only=True)
class GroupForecast:
    """What one group gets.

    Attributes:
        group: Its name.
        real: Training images.
        wanted: Synthetic images that fill its quota.
        candidates: Candidates in the first round.
    """

    group: str
    real: int
    wanted: int
    candidates: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run will take.

    Attributes:
        groups: Group by group.
        rounds: Candidates of each round, if each keeps what `plan.expected_yield` promises.
        budget: Candidates at most.
        baseline: Plain samples, for comparison.
        evaluations: Denoiser evaluations of those rounds, the baseline and all scores.
        most_evaluations: The same if the whole budget is drawn.
        seconds: What those evaluations take on this machine when it is idle, in all its worker slots; filtering
            candidates, and fitting what filters them, is not in it.
        classifier_seconds: The same of the trainings of classifiers, and of a backbone that classifies images itself.
        slots: Worker slots: how many units or trainings run side by side.
        disk: Bytes of all that the run leaves in the store, with a small further round where there may be one.
        trainings: What is trained on the way, in words.
        warnings: What may go wrong.
    """

    groups: list[GroupForecast]
    rounds: list[int]
    budget: int
    baseline: int
    evaluations: int
    most_evaluations: int
    seconds: float
    classifier_seconds: float
    slots: int
    disk: int
    trainings: list[str]
    warnings: list[str]


def forecast(config: AugmentConfig) -> Forecast:
    """Plan a run without drawing anything: a batch of the backbone and a few training steps are timed.

    Raises:
        InputError: Images or backbone cannot be read, or do not fit together.
    """
    device = prepare_device(config.device)
    real = planned_real_data(config)
    backbone = open_backbone(config.backbone, real)
    wanted = quotas(real, config.plan)
    rounds, baseline = _rounds(config, wanted)
    of_first = Counter(rounds[0].groups.tolist()) if rounds else Counter()
    drawn = sum(plan.num_samples for plan in rounds)
    budget = int(config.plan.candidates_per_image * sum(wanted))
    scoring = evaluations_of_scores(config.scores)
    without = config.sampler.plain(by_prompts=backbone.prompts is not None)
    guided, plain = expected_cost(config.sampler, backbone), expected_cost(without, backbone)
    fixed = baseline * (plain + scoring) + plan_real(config.plan, real).num_samples * scoring
    fixed += min(len(real.validation), config.scores.held_out) * scoring
    batch = min(config.sampler.batch_size, config.plan.unit_size)
    slots = worker_slots(Demand(workers=config.workers, device=config.device))
    # Ray's workers are processes; slots of one process share its interpreter.
    processes, threads = (slots, 1) if on_ray() else (1, slots)
    an_evaluation = seconds_a_call(backbone, batch_size=batch, device=device, side_by_side=threads) / batch
    evaluations = math.ceil(fixed + drawn * (guided + scoring))
    compared = comparison_costs(config, real, backbone, synthetic=sum(wanted), device=device, side_by_side=threads)
    further = [plan.num_samples for plan in rounds]
    if 0 < len(rounds) < config.plan.max_rounds:
        further.append(round(min(_DRAWN_AGAIN * drawn, max(0, budget - drawn))))
    return Forecast(
        groups=[
            GroupForecast(group=name, real=count, wanted=wanted[i], candidates=of_first[i])
            for i, (name, count) in enumerate(_sizes(real).items())
        ],
        rounds=[plan.num_samples for plan in rounds],
        budget=budget,
        baseline=baseline,
        evaluations=evaluations,
        most_evaluations=math.ceil(fixed + budget * (guided + scoring)),
        seconds=evaluations * an_evaluation / processes,
        classifier_seconds=compared.seconds / processes + compared.evaluations * an_evaluation,
        slots=slots,
        disk=bytes_on_disk(
            config,
            real,
            Amounts(
                stages=[plan_real(config.plan, real).num_samples, baseline, *further],
                candidates=sum(further),
                published=sum(wanted) + len(real.train),
                trainings=compared.trainings,
                labelled=_has_labeller(real, backbone.num_classes),
                reading=compared.reading_bytes,
            ),
        ),
        trainings=_trainings(config, real, backbone.num_classes),
        warnings=_warnings(config, real, wanted, rounds, budget=budget),
    )


def _rounds(config: AugmentConfig, wanted: list[int]) -> tuple[list[RoundPlan], int]:
    """The rounds if every one keeps what is expected of it, and the size of the baseline."""
    plans: list[RoundPlan] = []
    baseline = 0
    tallies = [Tally(missing=count) for count in wanted]
    while planned := plan_round(
        config.plan,
        tallies,
        round_number=len(plans),
        first_index=sum(plan.num_samples for plan in plans),
        wanted=wanted,
        particle_group=config.sampler.particle_group,
    ):
        plans.append(planned)
        if len(plans) == 1 and config.plan.baseline:
            baseline = plan_baseline(config.plan, planned, wanted).num_samples
        drawn = Counter(planned.groups.tolist())
        tallies = [_after(tally, drawn[group], config.plan.expected_yield) for group, tally in enumerate(tallies)]
    return plans, baseline


def _after(tally: Tally, drawn: int, expected_yield: float) -> Tally:
    kept = min(tally.missing, round(drawn * expected_yield))
    return Tally(
        missing=tally.missing - kept,
        candidates=tally.candidates + drawn,
        accepted=tally.accepted + round(drawn * expected_yield),
    )


def _sizes(real: RealData) -> dict[str, int]:
    have = Counter(real.train.groups)
    return {group: have[group] for group in real.groups}


def _trainings(config: AugmentConfig, real: RealData, num_classes: int | None) -> list[str]:
    trainings = []
    if config.selection.held_out is not None:
        trainings.append("a discriminator of real and synthetic images (selection.held_out)")
    if _has_labeller(real, num_classes):
        trainings.append(f"a labeller of {len(real.groups)} groups ({config.labeller.steps} steps)")
    if config.downstream is not None and config.downstream.seeds:
        arms = "all" if config.downstream.arms is None else len(config.downstream.arms)
        trainings.append(f"classifiers: {arms} recipes, {config.downstream.seeds} seeds each")
    return trainings


def _has_labeller(real: RealData, num_classes: int | None) -> bool:
    return len(real.groups) > 1 and not (num_classes is not None and real.has_one_group_a_label)


def _warnings(
    config: AugmentConfig, real: RealData, wanted: list[int], rounds: list[RoundPlan], *, budget: int
) -> list[str]:
    warnings = []
    needed = math.ceil(sum(wanted) / config.plan.expected_yield)
    if sum(wanted) == 0:
        warnings.append("every group has its quota already, so nothing is drawn; raise plan.quota.")
    elif needed > budget:
        warnings.append(
            f"at the expected yield {sum(wanted)} images take {needed} candidates, the budget is {budget}; raise "
            f"plan.candidates_per_image to {math.ceil(needed / sum(wanted))}, or lower plan.quota."
        )
    few = [group for group, count in _sizes(real).items() if count < 5]
    if few:
        warnings.append(
            f"{len(few)} groups have fewer than 5 training images ({', '.join(few[:3])}), too few to evaluate what is "
            "drawn for them; collect some first."
        )
    if len(real.validation) == 0:
        warnings.append("there is no validation image; set dataset.split.validation_fraction.")
    try:
        if Store(config.store).child(config.name).exists("latest.json"):
            warnings.append(
                "the store holds a published run of this name; a run of the same recipe is taken from there."
            )
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from error
    return warnings
