"""Reduces a network that was trained on numbered noise levels to the denoiser contract.

Whatever it predicts becomes a noise prediction, in fp32:

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps            (prediction "epsilon" or "sample")
    v   = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0            (Salimans & Ho 2022, appendix D)

Twice as many output as state channels mean a learned variance, by default within a range: the second half v in [-1, 1]
gives the variance fraction (v + 1) / 2 (Nichol & Dhariwal 2021, section 3.1).

Shapes: B samples, C channels, H x W pixels.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from minority.backbones.backbone import BackboneError
from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule

PredictionType = Literal["epsilon", "sample", "v_prediction"]
VarianceType = Literal["learned_range", "learned", "learned_log"]

_LEAST_VARIANCE = 1e-20  # diffusers' own floor
_FP16_INPUT = 1024.0  # standard deviations; the states of a chain stay within some tens


class NetworkDenoiser(nn.Module):
    """A network as a denoiser. Families say in `run` how their network is called.

    Args:
        schedule: All trained noise levels.
        state_shape: (C, H, W) of one state.
        prediction_type: What the first C output channels are.
        variance_type: What C more output channels are: the reverse variance's place in its range, the variance itself
            (as in diffusers), or its logarithm (as in guided-diffusion).
        num_classes: Number of real labels; None where it is unconditional.
        no_label: The label that stands for "no label", used where the label is None; None where there is none.

    Raises:
        BackboneError: For an unknown prediction type.
    """

    sqrt_abar: Tensor
    sqrt_one_minus_abar: Tensor

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        state_shape: tuple[int, int, int],
        prediction_type: PredictionType = "epsilon",
        variance_type: VarianceType = "learned_range",
        num_classes: int | None = None,
        no_label: int | None = None,
    ) -> None:
        super().__init__()
        require_prediction_type(prediction_type)
        self.state_shape, self.prediction_type = state_shape, prediction_type
        self.variance_type, self.num_classes, self.no_label = variance_type, num_classes, no_label
        abar = torch.from_numpy(schedule.abar)
        self.register_buffer("sqrt_abar", abar.sqrt().float(), persistent=False)
        self.register_buffer("sqrt_one_minus_abar", (1.0 - abar).sqrt().float(), persistent=False)

    def run(self, x: Tensor, timestep: Tensor, label: Tensor | None) -> Tensor:
        """Call the network.

        Args:
            x: (B, >= C, H, W) its input, in its own precision.
            timestep: (B,) int64.
            label: (B,) int64, or None where it is unconditional.

        Returns:
            (B, C or 2C, H, W).
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how its network is called.")

    def forward(self, x_t: Tensor, timestep: Tensor, label: Tensor | None = None) -> Prediction:
        """Predict the noise (`minority.diffusion.denoiser.Denoiser`). Raises ValueError where a needed label lacks."""
        return self.predict(x_t, x_t, timestep=timestep, label=label)

    def predict(self, x_t: Tensor, network_input: Tensor, *, timestep: Tensor, label: Tensor | None) -> Prediction:
        """What the network says about x_t when it sees `network_input`: x_t, and what else it was trained to see."""
        labels = self.labels_for(label, batch=len(x_t), device=x_t.device)
        dtype = next((parameter.dtype for parameter in self.parameters()), torch.float32)
        if dtype == torch.float16:
            # A state so far out is ruined already; fp16 would turn it into NaN.
            network_input = network_input.clamp(-_FP16_INPUT, _FP16_INPUT)
        output = self.run(network_input.to(dtype), timestep, labels).float()
        predicted, *variance = output.split(self.state_shape[0], dim=1)
        eps, x0_hat = self._read(predicted, x_t.float(), timestep)
        if not variance:
            return Prediction(eps, x0_hat=x0_hat)
        if self.variance_type == "learned_range":
            return Prediction(eps, (variance[0] + 1) / 2, x0_hat)
        is_log = self.variance_type == "learned_log"
        log_variance = variance[0] if is_log else variance[0].clamp(min=_LEAST_VARIANCE).log()
        return Prediction(eps, x0_hat=x0_hat, log_variance=log_variance)

    def labels_for(self, label: Tensor | None, *, batch: int, device: torch.device) -> Tensor | None:
        """The labels that the network is given: the sample's own, or "no label" where it knows one.

        Raises:
            ValueError: Where a label is missing, or there may be none.
        """
        return labels_for(label, num_classes=self.num_classes, no_label=self.no_label, batch=batch, device=device)

    def _read(self, predicted: Tensor, x_t: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor | None]:
        """The predicted noise, and the clean state where the network predicts it or v."""
        if self.prediction_type == "epsilon":
            return predicted, None
        signal = self.sqrt_abar[timestep].view(-1, 1, 1, 1)
        noise = self.sqrt_one_minus_abar[timestep].view(-1, 1, 1, 1)
        if self.prediction_type == "sample":
            return (x_t - signal * predicted) / noise, predicted
        return signal * predicted + noise * x_t, signal * x_t - noise * predicted


def labels_for(
    label: Tensor | None, *, num_classes: int | None, no_label: int | None, batch: int, device: torch.device
) -> Tensor | None:
    """The labels that a network is called with, (batch,); None where it takes none.

    Raises:
        ValueError: Labels do not fit what the network knows.
    """
    if num_classes is None:
        if label is not None:
            raise ValueError("this backbone is unconditional: it takes no labels, pass None.")
        return None
    if label is not None:
        return label
    if no_label is None:
        raise ValueError(f"this backbone needs a label of 0 ... {num_classes - 1} for every sample, got None.")
    return torch.full((batch,), no_label, dtype=torch.int64, device=device)


def require_prediction_type(name: str) -> None:
    """Refuse an unknown prediction type.

    Raises:
        BackboneError: Naming those that there are.
    """
    if name not in get_args(PredictionType):
        raise BackboneError(f"prediction_type must be epsilon, sample or v_prediction, got {name!r}.")
