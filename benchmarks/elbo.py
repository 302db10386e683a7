"""How much a cheap negative ELBO spreads, at equal cost: which steps of the chain should be asked?

    .venv/bin/python -m benchmarks.elbo --backbone backbones/digits --real digits

Every estimator asks the network `--calls` times an image, `--repeats` times over with other noise:

- respaced: the whole bound of a chain respaced to so many steps; what the pipeline writes into `negative_elbo`;
- uniform: steps drawn alike from the long chain (benchmarks/elbo_estimate.py);
- importance: steps drawn by the root mean square of their terms, learnt from `--pilot` other images.

"spread" is the standard deviation of one image's estimate over the repeats, in the mean; "between images" that of the
images' mean estimates. "rank" is Spearman's correlation of a single estimate with the bound of the long chain, averaged
over `--repeats` noises.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from benchmarks.elbo_estimate import estimate_negative_elbo, step_importance
from benchmarks.machine import describe_machine
from benchmarks.samplers import RealImages, read_real
from benchmarks.tables import markdown
from minority.backbones import Backbone, load_backbone
from minority.diffusion.chain import Variance
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import negative_elbo


@dataclass(eq=False)
class Bounds:
    """Bounds of real images under a backbone.

    Attributes:
        backbone: On the CPU.
        images: (N, C, H, W) in [-1, 1].
        labels: (N,), or None.
        variance: The reverse variance.
    """

    backbone: Backbone
    images: Tensor
    labels: Tensor | None
    variance: Variance

    @classmethod
    def of(cls, backbone: Backbone, real: RealImages, chosen: NDArray[np.int64], *, variance: Variance) -> "Bounds":
        """The bounds of some images of a real set."""
        labels = torch.from_numpy(real.labels[chosen]) if backbone.num_classes is not None else None
        return cls(backbone, from_pixels(real.images[chosen]), labels, variance)

    def noise(self, repeat: int) -> SampleNoise:
        """The noise of one repeat."""
        first = 1000 * repeat
        return SampleNoise(11, range(first, first + len(self.images)), shape=self.backbone.image_shape)

    def whole(self, chain: NoiseSchedule, repeat: int) -> Tensor:
        """(N,) the bound over all steps of a chain."""
        noise, denoiser = self.noise(repeat), self.backbone.denoiser
        return negative_elbo(denoiser, chain, self.images, noise, label=self.labels, variance=self.variance).total

    def drawn(
        self, chain: NoiseSchedule, repeat: int, *, calls: int, probabilities: NDArray[np.float64] | None
    ) -> Tensor:
        """(N,) the estimate from steps drawn at random."""
        return estimate_negative_elbo(
            self.backbone.denoiser,
            chain,
            self.images,
            self.noise(repeat),
            draws=calls,
            seed=repeat,
            probabilities=probabilities,
            label=self.labels,
            variance=self.variance,
        ).total

    def importance(self, chain: NoiseSchedule) -> NDArray[np.float64]:
        """(T,) probabilities of the steps, learnt from these images."""
        denoiser, noise = self.backbone.denoiser, self.noise(99)
        return step_importance(denoiser, chain, self.images, noise, label=self.labels, variance=self.variance)


def compare(bounds: Bounds, pilot: Bounds, *, calls: int, repeats: int, steps: int) -> list[dict[str, object]]:
    """One row an estimator.

    Args:
        bounds: The images that are scored.
        pilot: Others, which tell the importance of the steps.
        calls: Network calls an image and estimate.
        repeats: Noises.
        steps: Of the long chain.
    """
    trained = bounds.backbone.schedule
    long, short = trained.respaced(steps), trained.respaced(calls)
    importance = pilot.importance(long)
    estimators: dict[str, Callable[[int], Tensor]] = {
        "respaced": lambda repeat: bounds.whole(short, repeat),
        "uniform": lambda repeat: bounds.drawn(long, repeat, calls=calls, probabilities=None),
        "importance": lambda repeat: bounds.drawn(long, repeat, calls=calls, probabilities=importance),
    }
    reference = torch.stack([bounds.whole(long, 50 + repeat) for repeat in range(2)]).mean(dim=0).numpy()
    return [
        _row(name, np.stack([estimate(repeat).numpy() for repeat in range(repeats)]), reference)
        for name, estimate in estimators.items()
    ]


def _row(name: str, estimates: NDArray[np.float32], reference: NDArray[np.float32]) -> dict[str, object]:
    return {
        "estimator": name,
        "mean, bits/dim": float(estimates.mean()),
        "long chain": float(reference.mean()),
        "spread": float(estimates.std(axis=0, ddof=1).mean()),
        "between images": float(estimates.mean(axis=0).std(ddof=1)),
        "rank": float(np.mean([stats.spearmanr(one, reference).statistic for one in estimates])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="backbones/digits")
    parser.add_argument("--real", default="digits", help="a backbone preset, whose training split is scored")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--num", type=int, default=100, help="images")
    parser.add_argument("--pilot", type=int, default=16, help="images")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chain", type=int, default=100, help="steps of the long chain")
    parser.add_argument("--variance", default="fixed_large", choices=["learned_range", "fixed_small", "fixed_large"])
    arguments = parser.parse_args()
    backbone, real = load_backbone(arguments.backbone), read_real(arguments.real, limit=5000)
    order = np.random.default_rng(0).permutation(len(real.images))
    bounds, pilot = (
        Bounds.of(backbone, real, chosen, variance=arguments.variance)
        for chosen in (order[: arguments.num], order[arguments.num : arguments.num + arguments.pilot])
    )
    rows = compare(bounds, pilot, calls=arguments.calls, repeats=arguments.repeats, steps=arguments.chain)
    print(f"\n{describe_machine('cpu')}\n")
    print(f"{arguments.num} images, {arguments.calls} calls an image, {arguments.repeats} noises\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
