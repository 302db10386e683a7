"""Where randomness comes from: one stream of noise for every sample.

A sample must not depend on the batch it was drawn in, on its neighbours, or on how often guidance asked for noise.
So every draw is addressed rather than taken from a running generator: a Philox counter generator keyed by (run seed,
sample index) is set to the counter (purpose, step, draw) and read from there. Nothing is consumed, nothing shared.

Tests replay recorded noise through the same methods.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

# The purposes of a draw, and the distance between those of two stages. They are part of every sample's identity: never
# renumber them.
_START, _ANCESTRAL, _PERTURBATION, _SCORE, _PARTICLE_WEIGHT, _PROBE, _CONDITION = range(7)
_STAGES = 2**32


class NoiseSource(Protocol):
    """Standard normal noise for a batch, (B, C, H, W) a draw."""

    def start(self) -> Tensor:
        """The noise that a chain starts from."""
        ...

    def ancestral(self, step: int) -> Tensor:
        """The noise that the sampler adds when it leaves `step`."""
        ...

    def perturbation(self, step: int, draw: int) -> Tensor:
        """The noise with which guidance perturbs the clean estimate at `step`; `draw` counts its draws."""
        ...

    def score(self, step: int, draw: int) -> Tensor:
        """The noise with which a finished image is perturbed to `step` when it is scored."""
        ...

    def particle_weight(self, step: int, draw: int) -> Tensor:
        """The noise with which chains are weighed at `step` before some of them are pruned."""
        ...

    def probe(self, step: int, draw: int) -> Tensor:
        """A random direction along which an encoder is probed at `step`."""
        ...

    def condition(self, step: int, draw: int, shape: tuple[int, ...]) -> Tensor:
        """Noise (B, *shape) for what the network is told at `step`, such as a prompt's embedding."""
        ...


class SampleNoise:
    """Noise by sample index: the same index gives the same noise in any batch, on any machine.

    Args:
        seed: The run's seed, 0 ... 2**64 - 1.
        indices: The sample indices of the batch, each 0 ... 2**64 - 1.
        shape: (C, H, W) of one sample.
        stage: Which chain of a sample the noise is for; each has streams of its own.
        device: Where the tensors go. The numbers are always drawn on the CPU, so that they do not depend on it.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        *,
        shape: tuple[int, int, int],
        stage: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._keys = [np.array([seed, index], dtype=np.uint64) for index in indices]
        self._shape = shape
        self._stage = stage
        self._device = device

    def start(self) -> Tensor:
        """The noise that a chain starts from."""
        return self._draw(_START, 0, 0)

    def ancestral(self, step: int) -> Tensor:
        """The noise that the sampler adds when it leaves `step`."""
        return self._draw(_ANCESTRAL, step, 0)

    def perturbation(self, step: int, draw: int) -> Tensor:
        """The noise with which guidance perturbs the clean estimate at `step`."""
        return self._draw(_PERTURBATION, step, draw)

    def score(self, step: int, draw: int) -> Tensor:
        """The noise with which a finished image is perturbed to `step` when it is scored."""
        return self._draw(_SCORE, step, draw)

    def particle_weight(self, step: int, draw: int) -> Tensor:
        """The noise with which chains are weighed at `step` before some of them are pruned."""
        return self._draw(_PARTICLE_WEIGHT, step, draw)

    def probe(self, step: int, draw: int) -> Tensor:
        """A random direction along which an encoder is probed at `step`."""
        return self._draw(_PROBE, step, draw)

    def condition(self, step: int, draw: int, shape: tuple[int, ...]) -> Tensor:
        """Noise (B, *shape) for what the network is told at `step`."""
        return self._draw(_CONDITION, step, draw, shape)

    def _draw(self, purpose: int, step: int, draw: int, shape: tuple[int, ...] | None = None) -> Tensor:
        # The lowest of the four counter words counts the blocks within one draw.
        counter = np.array([0, draw, step, purpose + self._stage * _STAGES], dtype=np.uint64)
        noise = np.stack(
            [
                np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(
                    self._shape if shape is None else shape, dtype=np.float32
                )
                for key in self._keys
            ]
        )
        return torch.from_numpy(noise).to(self._device)
