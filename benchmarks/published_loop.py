"""The loop of the published code (Um & Ye, ECCV 2024) in plain numbers: the tests' oracle and the benchmarks' baseline.

Nothing of the project is used here. A guided step costs what it costs there: one network call for the step, one for
the metric's clean estimate, one for every perturbed one, and one backward pass. Options have the names of the published
command line.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: x_t (B, C, H, W), trained timesteps (B,) and labels -> the network's raw output, (B, C or 2C, H, W).
Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Noise(Protocol):
    """Standard normal noise for a batch, (B, C, H, W) a draw."""

    def start(self) -> Tensor:
        """The noise that a chain starts from."""
        ...

    def ancestral(self, step: int) -> Tensor:
        """The noise that is added when `step` is left."""
        ...

    def perturbation(self, step: int, draw: int) -> Tensor:
        """The noise of the metric at `step`."""
        ...


class FreshNoise:
    """Noise as the published code draws it: on the device, from one running generator.

    Args:
        seed: Of the generator.
        shape: (B, C, H, W).
        device: Where to draw.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._shape, self._device = shape, device

    def start(self) -> Tensor:
        """The noise that a chain starts from."""
        return torch.randn(self._shape, generator=self._generator, device=self._device)

    def ancestral(self, step: int) -> Tensor:
        """The noise that is added when `step` is left."""
        return self.start()

    def perturbation(self, step: int, draw: int) -> Tensor:
        """The noise of the metric at `step`."""
        return self.start()


def as_network(
    denoiser: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor | None, ...]],
) -> Network:
    """A denoiser's noise and variance fraction in [0, 1] (None: not learned) as the raw output of an ADM network."""

    def network(x: Tensor, timestep: Tensor, label: Tensor | None) -> Tensor:
        eps, fraction, *_ = denoiser(x, timestep, label)
        assert eps is not None, "every denoiser predicts the noise"
        return eps if fraction is None else torch.cat([eps, 2 * fraction - 1], dim=1)

    return network


@dataclass(frozen=True, kw_only=True)
class PublishedGuidance:
    """The options of the published command line, with its settings for CelebA-64.

    Attributes:
        mg_scale: Guidance scale w.
        inter_rate: Guide steps whose index is a multiple of it.
        p_ratio: Perturbation step as a fraction of the chain.
        t_mid: Guide only steps above this fraction of the chain.
        num_mc_samples: Perturbed estimates that are averaged over.
        norm_for_mg: The p of the distance's norm.
        mg_scale_type: "var" multiplies the push by the step's variance.
        use_normed_grad: Divide each sample's gradient by its largest absolute value.
        mg_clip_denoised: Clip the clean estimates inside the metric.
    """

    mg_scale: float = 0.4
    inter_rate: int = 5
    p_ratio: float = 0.8
    t_mid: float = -1.0
    num_mc_samples: int = 1
    norm_for_mg: float = 2.0
    mg_scale_type: Literal["var", "fixed"] = "var"
    use_normed_grad: bool = True
    mg_clip_denoised: bool = False


@dataclass(eq=False)
class PublishedLoop:
    """The loop for one network and one respaced chain; counts the network's passes.

    Attributes:
        network: Its parameters may require gradients, as they do in the published code.
        trained_betas: (T,) the forward variances that it was trained with.
        timesteps: The trained timesteps that are kept, ascending.
        fixed_variance: "small" or "large", where the network does not learn it (twice the channels: it does).
        learned_variance: What the second half of the channels is: a place in a "range", or the "log" of the variance.
        guidance: None samples plainly.
    """

    network: Network
    trained_betas: NDArray[np.float64]
    timesteps: NDArray[np.int64]
    fixed_variance: Literal["small", "large"] = "small"
    learned_variance: Literal["range", "log"] = "range"
    guidance: PublishedGuidance | None = None
    forwards: int = 0
    backwards: int = 0

    def __post_init__(self) -> None:
        trained = np.cumprod(1 - self.trained_betas)[self.timesteps]
        self.beta = 1 - trained / np.append(1.0, trained[:-1])
        self.abar = np.cumprod(1 - self.beta)
        self.before = np.append(1.0, self.abar[:-1])
        self.true_variance = self.beta * (1 - self.before) / (1 - self.abar)

    def draw(self, noise: Noise, *, label: Tensor | None = None) -> Tensor:
        """Draw a batch, (B, C, H, W), not clipped."""
        x = noise.start()
        for i in reversed(range(len(self.beta))):
            with torch.no_grad():
                _, mean, variance, log_variance = self._step(x, i, label, clip=True)
            options = self.guidance
            if options is not None and i > len(self.beta) * options.t_mid and i % options.inter_rate == 0:
                push = options.mg_scale * self._gradient(x, i, label, noise)
                mean = mean + (variance * push if options.mg_scale_type == "var" else push)
            x = mean + (0 if i == 0 else 1) * torch.exp(0.5 * log_variance) * noise.ancestral(i)
            x = x.float()
        return x

    def _step(self, x: Tensor, i: int, label: Tensor | None, *, clip: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The clean estimate, and mean, variance and log-variance of the reverse step."""
        self.forwards += 1
        out = self.network(x, torch.full((len(x),), int(self.timesteps[i]), device=x.device), label)
        low, high = math.log(self.true_variance[max(i, 1)]), math.log(self.beta[i])
        if out.shape[1] == 2 * x.shape[1]:
            out, v = out.chunk(2, dim=1)
            share = (v + 1) / 2
            log_variance = v if self.learned_variance == "log" else share * high + (1 - share) * low
            variance = log_variance.exp()
        elif self.fixed_variance == "large":
            value = self.beta[i] if i > 0 else self.true_variance[1]
            variance, log_variance = torch.tensor(value), torch.tensor(math.log(value))
        else:
            variance, log_variance = torch.tensor(self.true_variance[i]), torch.tensor(low)
        x0 = math.sqrt(1 / self.abar[i]) * x - math.sqrt(1 / self.abar[i] - 1) * out
        if clip:
            x0 = x0.clamp(-1, 1)
        first = self.beta[i] * math.sqrt(self.before[i]) / (1 - self.abar[i])
        second = (1 - self.before[i]) * math.sqrt(1 - self.beta[i]) / (1 - self.abar[i])
        return x0, first * x0 + second * x, variance, log_variance

    def _gradient(self, x: Tensor, i: int, label: Tensor | None, noise: Noise) -> Tensor:
        """The metric's gradient by x_t."""
        options = self.guidance
        assert options is not None
        leaf = x.detach().requires_grad_(True)
        x0 = self._step(leaf, i, label, clip=options.mg_clip_denoised)[0]
        s = int(len(self.beta) * options.p_ratio)
        metrics = []
        for m in range(options.num_mc_samples):
            with torch.no_grad():
                x_s = math.sqrt(self.abar[s]) * x0 + math.sqrt(1 - self.abar[s]) * noise.perturbation(i, m)
                again = self._step(x_s, s, label, clip=options.mg_clip_denoised)[0]
            metrics.append((x0 - again).reshape(len(x), -1).norm(p=options.norm_for_mg, dim=1))
        (gradient,) = torch.autograd.grad(torch.stack(metrics, dim=1).mean(dim=1).sum(), leaf)
        self.backwards += 1
        if not options.use_normed_grad:
            return gradient
        peak = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        # Published without a guard: where everything is clipped the gradient is 0 and the image NaN.
        return gradient / torch.where(peak > 0, peak, 1)
