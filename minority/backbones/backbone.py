"""What a loaded backbone is.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from minority.backbones.codec import Codec
from minority.backbones.factors import Factors
from minority.backbones.text.prompts import Prompts
from minority.diffusion.denoiser import Denoiser
from minority.diffusion.finite import require_finite
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.space import StateSpace
from minority.weights import WeightsError, joint_sha256

Precision = Literal["fp32", "bf16", "fp16"]
#: What of a text-to-image backbone is on the device at a time: one model, or one layer.
Offload = Literal["model", "sequential"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


#: A backbone cannot be loaded or saved; one line that names the file, the reason and the remedy.
BackboneError = WeightsError


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained diffusion model, ready to be sampled from.

    Attributes:
        name: What messages and manifests call it: the name of its file or folder.
        denoiser: Predicts the noise.
        schedule: The noise levels it was trained on, one for every trained timestep.
        image_shape: (C, H, W) of one finished image.
        num_classes: How many labels it knows, 0 ... num_classes - 1; None where it is unconditional.
        sha256: 64 hex digits, the checksum of its weights' file, or of all its parts where it has several.
        settings_sha256: The same of the files beside the weights that decide what they mean.
        bound: Largest absolute value of a clean state, to which samplers clip; None where nothing is clipped.
        codec: Between images and the states of the chain; None where these are the images.
        facts: What was found in its files, one line a thing, for people: "family: ...", "weights: ...".
        prompts: What its labels stand for, of a text-to-image backbone; None of others.
        distilled: Why its clean estimates are no means but ends of samples, as of models distilled to a few steps, so
            that it has no likelihood bound and takes no classifier-free guidance; None of others.
        licence: As the model's card states it; None where it states none.
        factors: Label and attributes where they are separate conditions: its labels are then rows of
            minority/backbones/factors.py, of which the first `num_classes` tell the label alone. None of others.
        offload: How a text-to-image backbone's weights are moved to the device while they compute and back to the CPU;
            None where they stay on the device.
    """

    name: str
    denoiser: Denoiser
    schedule: NoiseSchedule
    image_shape: tuple[int, int, int]
    num_classes: int | None
    sha256: str
    settings_sha256: str = ""
    bound: float | None = 1.0
    codec: Codec | None = None
    facts: tuple[str, ...] = ()
    prompts: Prompts | None = None
    distilled: str | None = None
    licence: str | None = None
    factors: Factors | None = None
    offload: Offload | None = None

    @property
    def identity(self) -> str:
        """64 hex digits over all that decides what it predicts; what recipes name."""
        return joint_sha256({"weights": self.sha256, "settings": self.settings_sha256})

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the states of the chain, and of its noise."""
        return self.image_shape if self.codec is None else self.codec.state_shape

    @property
    def space(self) -> StateSpace:
        """Where its clean states lie."""
        if self.codec is None:
            return StateSpace(bound=self.bound)
        return StateSpace(bound=self.bound, to_images=self.codec.decode, discretised=self.codec.discretised)

    def condition(self, seed: int, indices: Sequence[int], label: Tensor | None) -> Tensor | None:
        """What the network is told of samples: their labels, or the rows of their prompts.

        Args:
            seed: The run's seed.
            indices: (B,) sample indices.
            label: (B,) int64 labels, or None.

        Returns:
            (B,) int64, or None.
        """
        if self.prompts is None or label is None:
            return label
        rows = self.prompts.rows(seed, indices, label.tolist())
        return torch.tensor(rows, dtype=torch.int64, device=label.device)

    def encode(self, images: Tensor) -> Tensor:
        """The clean states (B, *state_shape) that stand for images (B, *image_shape)."""
        return images if self.codec is None else self.codec.encode(images)

    def finish(
        self, states: Tensor, *, seed: int, indices: Sequence[int], label: Tensor | None
    ) -> tuple[Tensor, float]:
        """Turn drawn states into images.

        Args:
            states: (B, *state_shape) where the chains ended.
            seed: The run's seed.
            indices: (B,) sample indices; each decides what noise its image still needs.
            label: (B,) int64 labels, or None.

        Returns:
            (B, *image_shape), and the network calls a sample that it took.
        """
        return (states, 0.0) if self.codec is None else self.codec.finish(states, seed, indices, label)

    @property
    def finish_evaluations(self) -> float:
        """The network calls a sample that `finish` takes."""
        return 0.0 if self.codec is None else self.codec.finish_evaluations

    def to(self, device: torch.device | str) -> "Backbone":
        """The same backbone on a device. This one stays where it is, so that workers can share it.

        One that is offloaded stays on the CPU; `minority.engine.prepare.prepared` has its weights moved as they are
        needed.
        """
        if not isinstance(self.denoiser, nn.Module) or self.offload is not None:
            return self
        device = torch.device(device)
        tensors = (*self.denoiser.parameters(), *self.denoiser.buffers())
        if all(tensor.device == device for tensor in tensors):
            return self
        codec = None if self.codec is None else self.codec.to(device)
        return replace(self, denoiser=copy.deepcopy(self.denoiser).to(device), codec=codec)

    def in_precision(self, precision: Precision) -> "Backbone":
        """The same backbone with its network's parameters in bf16 or fp16; the schedule's arithmetic stays fp32.

        Raises:
            BackboneError: Where a parameter is too large for the precision.
        """
        dtype = _DTYPES[precision]
        if not isinstance(self.denoiser, nn.Module) or all(p.dtype == dtype for p in self.denoiser.parameters()):
            return self
        denoiser = copy.deepcopy(self.denoiser)
        for name, parameter in denoiser.named_parameters():
            parameter.data = parameter.data.to(dtype)
            if not torch.isfinite(parameter).all():
                raise BackboneError(
                    f"backbone {self.name}: {name} holds numbers beyond the {torch.finfo(dtype).max:g} of {precision}; "
                    "set precision to bf16 or fp32."
                )
        codec = None if self.codec is None else self.codec.in_precision(precision)
        return replace(self, denoiser=denoiser, codec=codec)


def learned_variance(backbone: Backbone) -> str | None:
    """How a backbone learned its reverse variance, by what its network says of one empty state.

    Returns:
        "within a range", "freely", or None where it learned none; there scores take "fixed_large".

    Raises:
        ValueError: What it says is NaN or infinite, or it is an upsampler, which needs an image.
    """
    network = backbone.denoiser
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    label = None if backbone.num_classes is None else torch.zeros(1, dtype=torch.int64, device=device)
    empty = torch.zeros((1, *backbone.state_shape), device=device)
    with torch.no_grad():
        said = backbone.denoiser(empty, torch.zeros(1, dtype=torch.int64, device=device), label)
    require_finite(said.eps, f"the answer of {backbone.name} to an empty state")
    if said.variance_fraction is not None:
        return "within a range"
    return None if said.log_variance is None else "freely"
