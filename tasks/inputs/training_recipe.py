"""What decides a training, as a name for its run."""

from tasks.config.recipe import differing, recipe_of
from tasks.config.runs import AdaptConfig, TrainBackboneConfig
from tasks.inputs.real_data import load_real_data

#: Settings that change no weight.
_BESIDE_THE_WEIGHTS = ("name", "out", "device", "processes", "quality", "watch", "published")


def training_recipe(config: TrainBackboneConfig | AdaptConfig) -> str:
    """12 hex digits over the settings that decide what is learned, and the training images.

    It names runs and nothing else: where a training goes on is told by its checkpoint.
    """
    settings = differing(config, exclude=_BESIDE_THE_WEIGHTS)
    return recipe_of({"settings": settings, "real_digest": load_real_data(config.dataset).digest})
