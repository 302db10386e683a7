"""U-Nets that were trained by standard deviation instead of numbered noise levels, behind the denoiser contract.

Each becomes a denoiser D of an image with noise of standard deviation sigma on top (Karras et al. 2022, table 1), which
`KarrasDenoiser` puts on the chain. F is the U-Net.

    ve    D = x + sigma^2 / 2 F((x + 1) / 2, sigma / 2)              F is the score of images in [0, 1]
    vp    D = x - sigma F(x / sqrt(1 + sigma^2), (T - 1) t)          F is the noise, t when sigma is reached
    edm   D = c_skip x + c_out F(c_in x, ln(sigma) / 4)              c_out changes its sign where F predicts v

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from diffusers import UNet2DModel
from torch import Tensor, nn

from minority.backbones.backbone import BackboneError
from minority.backbones.karras import KarrasDenoiser, precondition
from minority.backbones.network import labels_for
from minority.backbones.scheduler import TrainedNoise
from minority.backbones.unet import no_label_of, unet_shape


class SigmaUNetDenoiser(KarrasDenoiser):
    """A U-Net of the families "ve", "vp" or "edm".

    Args:
        unet: Takes (B, C, H, W), (B,) noise conditions, class_labels; is set to evaluation.
        trained: The noise that it was trained on.
        num_classes: Number of real labels; None where it is unconditional.

    Raises:
        BackboneError: Where its labels do not fit, or it learns its variance or predicts what its family does not.
    """

    def __init__(self, unet: UNet2DModel, trained: TrainedNoise, *, num_classes: int | None = None) -> None:
        no_label = no_label_of(unet, num_classes)
        if unet.config.out_channels != unet.config.in_channels:
            raise BackboneError(
                f"a U-Net of the {trained.family} family must have as many output as input channels, it has "
                f"{unet.config.out_channels} and {unet.config.in_channels}."
            )
        if trained.prediction_type == "sample" or (trained.family != "edm" and trained.prediction_type != "epsilon"):
            raise BackboneError(f"a U-Net of the {trained.family} family cannot predict {trained.prediction_type}.")
        super().__init__(
            _CleanEstimate(unet.eval(), trained, num_classes=num_classes, no_label=no_label), trained.schedule
        )
        self.state_shape, self.num_classes, self.no_label = unet_shape(unet), num_classes, no_label


class _CleanEstimate(nn.Module):
    """D(x, sigma, label)."""

    def __init__(
        self, unet: UNet2DModel, trained: TrainedNoise, *, num_classes: int | None, no_label: int | None
    ) -> None:
        super().__init__()
        self.unet, self.family, self.config = unet, trained.family, trained.config
        self.num_classes, self.no_label = num_classes, no_label
        self.sign = -1.0 if trained.prediction_type == "v_prediction" else 1.0

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        wide = sigma.view(-1, 1, 1, 1)
        if self.family == "ve":
            return x + wide.square() / 2 * self._network((x + 1) / 2, sigma / 2, label)
        if self.family == "vp":
            time = (int(self.config["num_train_timesteps"]) - 1) * self._time(sigma)
            return x - wide * self._network(x / (1 + wide.square()).sqrt(), time, label)

        def signed(scaled: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
            return self.sign * self._network(scaled, condition, label)

        return precondition(signed, sigma_data=float(self.config["sigma_data"]))(x, sigma, label)

    def _network(self, x: Tensor, condition: Tensor, label: Tensor | None) -> Tensor:
        labels = labels_for(label, num_classes=self.num_classes, no_label=self.no_label, batch=len(x), device=x.device)
        output: Tensor = self.unet(x.to(self.unet.dtype), condition, class_labels=labels, return_dict=False)[0]
        return output.float()

    def _time(self, sigma: Tensor) -> Tensor:
        """When the variance preserving process has reached sigma: ln(1 + sigma^2) = t low + t^2 / 2 span."""
        low, span = float(self.config["beta_min"]), float(self.config["beta_max"]) - float(self.config["beta_min"])
        return ((low**2 + 2 * span * (1 + sigma.square()).log()).sqrt() - low) / span
