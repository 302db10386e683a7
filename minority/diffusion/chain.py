"""The reverse chain as samplers, guidance and scores see it: a denoiser on a respaced schedule.

A `Chain` binds the denoiser, the schedule and the labels of one batch; `estimate` turns a state into everything the
network says about it. It also counts what the network was asked, which is the cost of a sample.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from minority.diffusion.condition import Condition
from minority.diffusion.denoiser import Denoiser, Prediction
from minority.diffusion.finite import require_finite
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.space import PIXELS, StateSpace
from minority.runtime.interruption import stop_if_interrupted

Variance = Literal["auto", "learned_range", "fixed_small", "fixed_large"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the network says about one state of the chain.

    Attributes:
        x_t: (B, C, H, W) the state.
        step: Its position on the chain, 0 = cleanest.
        eps: (B, C, H, W) predicted noise.
        x0_hat: (B, C, H, W) Tweedie's estimate of the clean image, not clipped.
        log_variance: (B, C, H, W) or (1, 1, 1, 1) logarithm of the reverse step's variance, finite at every step.
        variance: The variance itself, as guidance scales with it. At step 0 the posterior's is 0, and only its
            logarithm borrows the value of step 1.
        calls: Network calls that the estimate took; more than 1 with classifier-free guidance.
        renoise: (B, C, H, W) noise that a deterministic step adds again instead of eps, or None.
    """

    x_t: Tensor
    step: int
    eps: Tensor
    x0_hat: Tensor
    log_variance: Tensor
    variance: Tensor
    calls: int = 1
    renoise: Tensor | None = None

    def detach(self) -> "Estimate":
        """The same numbers without their history of gradients."""
        return replace(
            self,
            x_t=self.x_t.detach(),
            eps=self.eps.detach(),
            x0_hat=self.x0_hat.detach(),
            log_variance=self.log_variance.detach(),
            variance=self.variance.detach(),
            renoise=None if self.renoise is None else self.renoise.detach(),
        )


@dataclass
class Cost:
    """Network calls a sample: every call treats the whole batch, so the count is that of each sample.

    Attributes:
        forwards: Forward passes.
        backwards: Backward passes.
    """

    forwards: int = 0
    backwards: int = 0

    def evaluations(self, *, backward_cost: float = 2.0) -> float:
        """Cost in denoiser evaluations.

        Args:
            backward_cost: What one backward pass costs in forward passes. The usual count is 2: one product with
                the weights for the input's gradient, and the forward pass that must keep its activations.
        """
        return self.forwards + backward_cost * self.backwards


@dataclass(eq=False)
class Chain:
    """A denoiser on a (respaced) schedule, for one batch.

    Attributes:
        denoiser: The network.
        schedule: The steps that are taken.
        label: (B,) int64 labels, or None.
        condition: What the network is told: the label unless something else is given. Guidance may replace it.
        variance: The reverse variance where the network does not learn it: the posterior's ("fixed_small") or beta
            ("fixed_large", what guided-diffusion samples with unless told otherwise). "learned_range" takes the
            network's own, whether learned within the range of these two or freely, and falls back to "fixed_small";
            "auto" does the same and falls back to "fixed_large", which gives the tighter likelihood bound.
        space: Where clean states lie.
        cost: Network calls so far.
        given: The condition before guidance touched it.
        kept: What a method keeps from step to step, each tensor with the samples first.
        notes: The same of what does not belong to single samples.
        predict: The denoiser, counted; guidance may wrap it.
        pullbacks: How many methods will ask for the gradient of the present estimate.
    """

    denoiser: Denoiser
    schedule: NoiseSchedule
    label: Tensor | None = None
    variance: Variance = "learned_range"
    space: StateSpace = PIXELS
    cost: Cost = field(default_factory=Cost)
    condition: Condition = None
    given: Condition = field(init=False)
    kept: dict[str, list[Tensor]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    predict: Denoiser = field(init=False)
    pullbacks: int = 0

    def __post_init__(self) -> None:
        self.predict = self.ask
        if self.condition is None:
            self.condition = self.label
        self.given = self.condition

    def estimate(self, x_t: Tensor, step: int) -> Estimate:
        """Denoise a state once.

        Args:
            x_t: (B, C, H, W) the state.
            step: Its position on the chain.

        Raises:
            Interrupted: Nobody waits for the result any more (minority/runtime/interruption.py).
            NotFiniteError: The first answer of the network is NaN or infinite somewhere.
        """
        stop_if_interrupted()
        timestep = self.schedule.timestep(step, len(x_t), x_t.device)
        earlier = self.cost.forwards
        prediction = self.predict(x_t, timestep, self.condition)
        if earlier == 0:
            _require_finite(prediction, step)
        x0_hat = prediction.x0_hat
        log_variance = self._learned_log_variance(step, prediction)
        is_zero = step == 0 and log_variance is None and not self._is_large
        if log_variance is None:
            log_variance = self._fixed_log_variance(step, like=x_t)
        return Estimate(
            x_t=x_t,
            step=step,
            eps=prediction.eps,
            x0_hat=self.schedule.x0_from_eps(x_t, step, prediction.eps) if x0_hat is None else x0_hat,
            log_variance=log_variance,
            variance=torch.zeros_like(log_variance) if is_zero else log_variance.exp(),
            calls=self.cost.forwards - earlier,
            renoise=prediction.renoise,
        )

    def ask(self, x_t: Tensor, timestep: Tensor, condition: Condition, /) -> Prediction:
        """What the denoiser says before any guidance, at any level and condition; counted."""
        self.cost.forwards += 1
        return self.denoiser(x_t, timestep, condition)

    def follow(self, parents: Tensor) -> None:
        """Reorder what belongs to the samples, where each continues the chain of its parent, (B,) int64."""
        if self.condition is not None:
            self.condition = self.condition[parents]
        if self.given is not None:
            self.given = self.given[parents]
        self.kept = {name: [tensor[parents] for tensor in tensors] for name, tensors in self.kept.items()}

    def posterior_mean(self, estimate: Estimate, x0: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0) at a clean estimate (Ho et al. 2020, eq. 7), (B, C, H, W)."""
        step = estimate.step
        return (
            float(self.schedule.posterior_mean_x0_weight[step]) * x0
            + float(self.schedule.posterior_mean_xt_weight[step]) * estimate.x_t
        )

    @property
    def _is_large(self) -> bool:
        """Whether a variance that is not learned is beta."""
        return self.variance in ("fixed_large", "auto")

    def _learned_log_variance(self, step: int, prediction: Prediction) -> Tensor | None:
        """The network's own, (B, C, H, W); None where it has none or is not asked for it."""
        if self.variance not in ("learned_range", "auto"):
            return None
        if prediction.variance_fraction is None:
            return prediction.log_variance
        low, high = float(self.schedule.posterior_log_variance[step]), math.log(self.schedule.beta[step])
        return prediction.variance_fraction * high + (1 - prediction.variance_fraction) * low

    def _fixed_log_variance(self, step: int, *, like: Tensor) -> Tensor:
        """The posterior's or beta, (1, 1, 1, 1)."""
        value = float(self.schedule.posterior_log_variance[step])
        if self._is_large:
            # Step 0 borrows the posterior variance of step 1, as published.
            first = step == 0 and self.schedule.num_steps > 1
            value = float(self.schedule.posterior_log_variance[1]) if first else math.log(self.schedule.beta[step])
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return torch.full((1, 1, 1, 1), value, dtype=dtype, device=like.device)


def _require_finite(prediction: Prediction, step: int) -> None:
    for name, value in prediction._asdict().items():
        if value is not None:
            require_finite(value, f"the network's first answer ({name} at step {step})")
