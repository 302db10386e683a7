"""Louder, quieter or truncated noise: the plainest ways to trade typicality for diversity, as baselines.

Truncation maps the normal quantiles of a draw to those of a normal cut off at +-t, so a sample keeps its own noise,
only without the tails (the truncation trick of Brock, Donahue & Simonyan 2019, by quantiles instead of redrawing).

Shapes: B samples, C channels, H x W pixels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from minority.diffusion.noise import NoiseSource
from minority.guidance.method import Method, Stage


@dataclass(frozen=True, kw_only=True)
class ShapedNoise(Method):
    """Changes the noise that a chain starts from and that its steps add; that of scores and metrics stays as it is.

    Attributes:
        start_scale: Standard deviation of the starting noise, > 0.
        ancestral_scale: Factor on the noise that the steps add, >= 0: a temperature, 1 is plain sampling.
        truncate: Largest absolute value of both, in standard deviations, > 0; None for the whole normal.
    """

    key: ClassVar[str] = "shaped_noise"
    paper: ClassVar[str] = "a baseline; truncation after Brock, Donahue & Simonyan, ICLR 2019, arXiv 1809.11096"
    line: ClassVar[str] = "louder, quieter or truncated noise; costs nothing"
    stage: ClassVar[Stage] = "noise"
    shown_when_absent: ClassVar[bool] = True

    start_scale: float = 1.0
    ancestral_scale: float = 1.0
    truncate: float | None = None

    def __post_init__(self) -> None:
        if not self.start_scale > 0:
            raise ValueError(f"ShapedNoise.start_scale must be positive, got {self.start_scale}.")
        if not self.ancestral_scale >= 0:
            raise ValueError(f"ShapedNoise.ancestral_scale must not be negative, got {self.ancestral_scale}.")
        if self.truncate is not None and not self.truncate > 0:
            raise ValueError(f"ShapedNoise.truncate must be positive or None, got {self.truncate}.")

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """Louder steps, and noise without tails."""
        return {"temperature": cls(ancestral_scale=1.1), "truncated": cls(truncate=1.5)}

    def wrap_noise(self, noise: NoiseSource) -> NoiseSource:
        """The same streams, shaped."""
        return _Shaped(noise, self)


class _Shaped:
    """A noise source whose start and steps are shaped, and whose other streams are passed on."""

    def __init__(self, noise: NoiseSource, settings: ShapedNoise) -> None:
        self._noise, self._settings = noise, settings

    def start(self) -> Tensor:
        return self._settings.start_scale * truncated(self._noise.start(), self._settings.truncate)

    def ancestral(self, step: int) -> Tensor:
        return self._settings.ancestral_scale * truncated(self._noise.ancestral(step), self._settings.truncate)

    def perturbation(self, step: int, draw: int) -> Tensor:
        return self._noise.perturbation(step, draw)

    def score(self, step: int, draw: int) -> Tensor:
        return self._noise.score(step, draw)

    def particle_weight(self, step: int, draw: int) -> Tensor:
        return self._noise.particle_weight(step, draw)

    def probe(self, step: int, draw: int) -> Tensor:
        return self._noise.probe(step, draw)

    def condition(self, step: int, draw: int, shape: tuple[int, ...]) -> Tensor:
        return self._noise.condition(step, draw, shape)


def truncated(noise: Tensor, limit: float | None) -> Tensor:
    """Map standard normal noise to the normal cut off at +-limit, quantile by quantile.

    Args:
        noise: Any shape.
        limit: In standard deviations; None changes nothing.
    """
    if limit is None:
        return noise
    inside = math.erf(limit / math.sqrt(2))
    # In float64, and through erf, which keeps its digits around 0.
    return (torch.erfinv(inside * torch.erf(noise.double() / math.sqrt(2))) * math.sqrt(2)).to(noise.dtype)
