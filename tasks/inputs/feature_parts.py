"""The step before the fitting: features of a large real set are made part by part, by all workers."""

from dataclasses import dataclass

from prefect import task

from minority.features import Pixels
from tasks.config.runs import AugmentConfig
from tasks.execution.failures import TRIED_AGAIN
from tasks.inputs.real_features import PART_SIZE, make_part, num_parts
from tasks.inputs.workspace import Models, open_models


@dataclass(frozen=True, kw_only=True)
class FeaturePart:
    """One part of the features of the real training images.

    Attributes:
        number: Which.
        num_images: Images in it.
        mirrored: Of the images mirrored left to right.
    """

    number: int
    num_images: int
    mirrored: bool = False

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"features-{'mirrored-' if self.mirrored else ''}{self.number:05d}"


def feature_parts(models: Models) -> list[FeaturePart]:
    """The parts that are work for several workers; none where the set is one part, which is made when it is asked for.

    Mirrored images have features, too, where the filter's floors are held out (`HeldOutRules.copy_ratio`).
    """
    count, total = num_parts(models.train_images), len(models.train_images)
    if count == 1 or isinstance(models.extract, Pixels):
        return []
    kinds = [False] if models.config.selection.held_out is None else [False, True]
    return [
        FeaturePart(number=number, num_images=min(PART_SIZE, total - number * PART_SIZE), mirrored=mirrored)
        for mirrored in kinds
        for number in range(count)
    ]


@task(task_run_name="{part.name}", **TRIED_AGAIN)
def make_features(part: FeaturePart, config: AugmentConfig) -> str:
    """Make one part of the features, unless it lies in the store. Returns its name."""
    models = open_models(config)
    store = models.run.dataset_store
    make_part(models.extract, models.train_images, part.number, store=store, mirrored=part.mirrored)
    return part.name
