"""The study's synthetic images: drawn once by every sampler, then chosen by the product's selection policies.

Quotas are the same for all: every class is filled up to the commonest one.

Shapes: M candidates, H x W pixels, C channels, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from minority.backbones import Backbone
from minority.downstream.data import LabelledImages
from minority.features import Extractor
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.neighbours.reference import RealReference
from minority.sampling.draw import draw
from minority.sampling.named_samplers import NAMED_SAMPLERS
from minority.sampling.settings import SamplerSettings
from minority.selection.candidate_filter import build_filter
from minority.selection.choice import choose
from minority.selection.discriminator import DiscriminatorSettings
from minority.selection.policy import Policy
from minority.selection.settings import HeldOutRules, SelectionSettings
from minority.selection.verdicts import CandidateFilter

Int64 = NDArray[np.int64]

#: Samplers by the name that the study calls them by.
SAMPLERS: Mapping[str, SamplerSettings] = {
    "plain": NAMED_SAMPLERS["ancestral"],
    "sgms-published": NAMED_SAMPLERS["sgms-published"],
    "jacobian-free": NAMED_SAMPLERS["jacobian-free"],
    "jacobian-free-mild": SamplerSettings(
        self_guidance=SelfGuidance(scale=1.0, perturbation=0.5, above=0.3, jacobian=False)
    ),
    "boost-and-skip": NAMED_SAMPLERS["boost-and-skip"],
    "prune-and-branch": NAMED_SAMPLERS["prune-and-branch"],
    # What calibration found to have the highest yield on the digits (docs/selection.md).
    "guided-and-pruned": SamplerSettings(
        boost_and_skip=BoostAndSkip(boost=4.0, skip=0.12),
        self_guidance=SelfGuidance(scale=2.0, perturbation=0.8, jacobian=False),
        prune_and_branch=PruneAndBranch(weight_by="features", points=(0.5, 0.7)),
    ),
    "label-guided": NAMED_SAMPLERS["classifier-free"],
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Synthetic images: a sampler's candidates, chosen by a policy; `main` ones meet every arm, others two."""

    sampler: str
    policy: Policy
    main: bool = False

    @property
    def name(self) -> str:
        """As the arms call it."""
        return self.sampler if self.policy == "all" else f"{self.sampler}-{self.policy}"


SOURCES = (
    Source(sampler="plain", policy="all", main=True),
    Source(sampler="plain", policy="consistent", main=True),
    Source(sampler="jacobian-free-mild", policy="clean", main=True),
    Source(sampler="guided-and-pruned", policy="clean", main=True),
    Source(sampler="guided-and-pruned", policy="rare"),
    Source(sampler="plain", policy="clean"),
    Source(sampler="jacobian-free", policy="rare"),
    Source(sampler="jacobian-free", policy="all"),
    Source(sampler="jacobian-free-mild", policy="moderate"),
    Source(sampler="sgms-published", policy="rare"),
    Source(sampler="boost-and-skip", policy="moderate"),
    Source(sampler="prune-and-branch", policy="clean"),
    Source(sampler="label-guided", policy="all"),
    Source(sampler="label-guided", policy="consistent"),
)


def missing_images(labels: Int64, *, num_classes: int, cap: int | None) -> Int64:
    """How many images every class lacks to be as large as the commonest, at most `cap`, (K,)."""
    counts = np.bincount(labels, minlength=num_classes)
    missing = counts.max() - counts
    return np.asarray(missing if cap is None else np.minimum(missing, cap), dtype=np.int64)


def planned_labels(missing: Int64, *, candidates: int) -> list[int]:
    """Labels of `candidates` samples, shared out over the classes by what they lack; class by class."""
    # At least a tenth of an equal share each, so that a policy always has some to choose from.
    weight = np.where(missing > 0, np.maximum(missing, 0.1 * missing.mean()), 0.0)
    counts = np.floor(candidates * weight / weight.sum()).astype(int)
    return np.repeat(np.arange(len(missing)), counts).tolist()


def draw_candidates(
    backbone: Backbone,
    sampler: str,
    *,
    labels: Sequence[int],
    seed: int,
    steps: int,
    batch_size: int,
    precision: str,
    reference: RealReference,
    extract: Extractor,
    device: str,
) -> LabelledImages:
    """Draw the candidates of one sampler; all samplers share indices and noise.

    Chains that are pruned are evaluated against `reference`, in the features of `extract`.
    """
    settings = replace(SAMPLERS[sampler], steps=steps, batch_size=batch_size, precision=precision)  # type: ignore[arg-type]
    drawn = draw(
        backbone,
        seed=seed,
        indices=range(len(labels)),
        labels=labels,
        settings=settings,
        reference=reference,
        extract=extract,
        device=device,
    )
    truth = np.asarray(labels, dtype=np.int64)
    return LabelledImages(drawn.images, truth, truth)


def fit_filter(
    train: LabelledImages, *, extract: Extractor, mirrored_is_negative: bool, device: str
) -> CandidateFilter:
    """A filter of the training split, with a discriminator; policies read its verdicts and scores."""
    rules = HeldOutRules(discriminator=DiscriminatorSettings(mirrored_is_negative=mirrored_is_negative))
    settings = SelectionSettings(held_out=rules)
    return build_filter(
        extract(train.images), train.labels, settings=settings, images=train.images, extract=extract, device=device
    )


def chosen(policy: Policy, verdicts: Mapping[str, NDArray[np.generic]], labels: Int64, *, missing: Int64) -> Int64:
    """Positions of the candidates that a policy takes, in their order, up to what every class lacks."""
    kept, _ = choose(verdicts, labels, quotas=dict(enumerate(missing.tolist())), policy=policy)
    return np.flatnonzero(kept).astype(np.int64)
