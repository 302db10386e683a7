"""What the comparison of classifiers at the end of a run will cost: trainings, and a backbone that reads images."""

import math
from dataclasses import dataclass

from minority.backbones import Backbone
from minority.downstream.pace import seconds_a_training
from minority.evaluation.backbone_reading import features_an_image
from tasks.config.runs import AugmentConfig
from tasks.config.sections import ArmsConfig
from tasks.downstream.backbone_outputs import pretrained_kind
from tasks.downstream.data import PLAIN, SELECTED, labelled
from tasks.downstream.trainings import arms_of
from tasks.inputs.real_data import RealData

#: Recipes whose time is the backbone's, and not that of trainings.
_READ_A_BACKBONE = ("linear_probe", "zero_shot")
_BYTES_A_NUMBER = 4


@dataclass(frozen=True, kw_only=True)
class ComparisonCosts:
    """What comparing takes; nothing where classifiers are not compared.

    Attributes:
        trainings: Every recipe's trials, and its tested seeds.
        seconds: What those that train a network take.
        evaluations: Of the backbone, where recipes ask it to classify images.
        reading_bytes: Of what it makes of the compared images, which is kept.
    """

    trainings: int = 0
    seconds: float = 0.0
    evaluations: int = 0
    reading_bytes: int = 0


def comparison_costs(
    config: AugmentConfig, real: RealData, backbone: Backbone, *, synthetic: int, device: str, side_by_side: int
) -> ComparisonCosts:
    """Time a few training steps, and count the rest.

    Args:
        config: The run.
        real: Its real images.
        backbone: The run's.
        synthetic: Images of each source of synthetic ones.
        device: Where to compute.
        side_by_side: Trainings at once, in threads.
    """
    arms_config = config.downstream
    if arms_config is None or not arms_config.seeds:
        return ComparisonCosts()
    kind = pretrained_kind(config, real)
    arms = arms_of(arms_config, sources=[SELECTED, *([PLAIN] if config.plan.baseline else [])], pretrained=kind)
    tuned = arms_config.budget.trials * arms_config.budget.tuning_seeds
    an_arm = tuned + arms_config.seeds
    networks = sum(arm.learner not in _READ_A_BACKBONE for arm in arms)
    seconds = 0.0
    if networks:
        seconds = (networks * an_arm) * seconds_a_training(
            labelled(real.train, real.groups),
            class_names=real.train.class_names,
            group_names=real.groups,
            evaluated=round((tuned * len(real.validation) + arms_config.seeds * len(real.test)) / an_arm),
            settings=arms_config.budget,
            device=device,
            side_by_side=side_by_side,
        )
    evaluations, reading_bytes = 0, 0
    if any(arm.learner != "network" for arm in arms):
        sources = {arm.source for arm in arms if arm.source is not None}
        evaluations, reading_bytes = _reading(
            arms_config,
            real,
            classifies=kind == "conditional",
            synthetic=len(sources) * synthetic,
            width=features_an_image(backbone, arms_config.reading, device=device),
        )
    return ComparisonCosts(
        trainings=len(arms) * an_arm, seconds=seconds, evaluations=evaluations, reading_bytes=reading_bytes
    )


def _reading(config: ArmsConfig, real: RealData, *, classifies: bool, synthetic: int, width: int) -> tuple[int, int]:
    """Evaluations, and bytes, of a backbone that gives `width` features an image and may classify them."""
    settings, others = config.reading, len(real.validation) + len(real.test)
    numbers = width * (len(real.train) + others + synthetic)
    if not classifies:
        return 0, _BYTES_A_NUMBER * numbers
    copies = settings.copies * len(real.train)
    asked = (others + copies) * len(real.train.class_names)
    numbers += asked * settings.zero_shot.levels
    return asked * settings.zero_shot.evaluations, _BYTES_A_NUMBER * numbers + copies * math.prod(
        real.train.image_shape
    )
