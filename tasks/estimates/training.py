"""How long a preset's backbone trains on this machine."""

from minority.training.pace import seconds_a_step
from tasks.backbone.network import build_network
from tasks.config.runs import TrainBackboneConfig
from tasks.inputs.real_data import load_real_data
from tasks.inputs.workspace import prepare_device


def training_seconds(config: TrainBackboneConfig) -> float:
    """Seconds of the training itself, from a few steps; evaluating the result comes on top.

    Raises:
        InputError: The data cannot be read, or the architecture does not fit them.
    """
    device = prepare_device(config.device)
    real = load_real_data(config.dataset)
    network, settings = build_network(config, real)
    height, width, channels = real.train.image_shape
    step = seconds_a_step(
        network,
        image_shape=(channels, height, width),
        num_classes=settings.num_classes,
        settings=config.training,
        device=device,
    )
    return step * config.training.steps
