"""DiT (Peebles & Xie, ICCV 2023) as diffusers' DiTTransformer2DModel behind the denoiser contract."""

from diffusers import DiTTransformer2DModel
from torch import Tensor

from minority.backbones.backbone import BackboneError
from minority.backbones.network import NetworkDenoiser
from minority.backbones.scheduler import TrainedNoise


class DiTDenoiser(NetworkDenoiser):
    """A diffusion transformer as a denoiser of latents, class-conditional.

    Args:
        transformer: Is set to evaluation.
        trained: The noise that it was trained on.
        num_classes: Number of real labels; None takes that of the transformer. One label more stands for none.

    Raises:
        BackboneError: Where channels, labels or noise do not fit.
    """

    def __init__(
        self, transformer: DiTTransformer2DModel, trained: TrainedNoise, *, num_classes: int | None = None
    ) -> None:
        config = transformer.config
        known = config.num_embeds_ada_norm
        if trained.family != "numbered":
            raise BackboneError(f"a DiT of the {trained.family} family is not supported; it must have numbered steps.")
        if num_classes not in (None, known):
            raise BackboneError(f"the DiT knows {known} classes, it cannot have num_classes = {num_classes}.")
        if transformer.out_channels not in (config.in_channels, 2 * config.in_channels):
            raise BackboneError(
                f"a DiT for {config.in_channels} channels must have as many output channels, or twice as many where it "
                f"learns its variance; it has {transformer.out_channels}."
            )
        super().__init__(
            trained.schedule,
            state_shape=(config.in_channels, config.sample_size, config.sample_size),
            prediction_type=trained.prediction_type,
            variance_type=trained.variance_type,
            num_classes=known,
            no_label=known,
        )
        self.transformer = transformer.eval()

    def run(self, x: Tensor, timestep: Tensor, label: Tensor | None) -> Tensor:
        """The transformer's output; see `NetworkDenoiser.run`."""
        output: Tensor = self.transformer(x, timestep=timestep, class_labels=label, return_dict=False)[0]
        return output
