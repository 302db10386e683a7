"""Which candidates become training data: rare AND valid AND new AND with their label kept, up to a quota.

Low likelihood alone is also what garbage has, so every candidate is judged against the real training split in feature
space, and where asked by a critic. The verdicts of one candidate do not depend on any other candidate; only the choice
does (minority/selection/choice.py).

Shapes: N training images, M candidates, D features, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from minority.features.pixel_features import pixel_features
from minority.neighbours.pairwise import Features, nearest
from minority.neighbours.reference import Neighbourhood, RealReference
from minority.selection.choice import KEPT, REASONS, Spread, choose
from minority.selection.critic import Critic, CriticSettings, Opinion
from minority.selection.quantiles import lower_limit, quantile_among


@dataclass(frozen=True, kw_only=True)
class HeldOutRules:
    """Thresholds as quantiles of rare real images that nothing was fitted on.

    Rare real images look less typical than others, so a floor that suits the crowd refuses them. Each of these floors
    loses at most its quantile of them. The scale are the training images, each judged without itself: left out of its
    own neighbours, and unseen by the member of the critic that judges it.

    Attributes:
        realism: Quantile of the realism floor, in [0, 1).
        copy_ratio: Quantile of the floor of nearest over mean distance to the neighbours, in [0, 1). A mirrored
            training image counts as a training image.
        realness: Quantile of the floor of the critic's realness, in [0, 1).
        label: Quantile of the floor of the critic's probability of the label, in [0, 1).
        critic: How the critic is trained.
    """

    realism: float = 0.01
    copy_ratio: float = 0.01
    realness: float = 0.03
    label: float = 0.03
    critic: CriticSettings = field(default_factory=CriticSettings)

    def __post_init__(self) -> None:
        for name in ("realism", "copy_ratio", "realness", "label"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"HeldOutRules.{name} must lie in [0, 1), got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """What counts as rare, valid, new and of its label.

    Attributes:
        neighbours: k of every nearest-neighbour measure.
        rare_quantile: A candidate is rare beyond this quantile of the training images' own mean distance to their k
            nearest neighbours, in [0, 1).
        realism_floor: A candidate is valid from this realism on; 1 is the edge of the k-NN manifold. Without effect
            where `held_out` is given.
        copy_quantile: A candidate is a copy below this quantile of the training images' own distance to their
            nearest neighbour, in [0, 1).
        label_floor: A candidate keeps its label from this label agreement on, in [0, 1]; 0 switches the filter off.
            Without effect where `held_out` is given.
        label_precision: Where groups are recognised by an ensemble: share of its believed answers on the validation
            split that must be right, in (0, 1]; the confidence that reaches it takes the place of `label_floor`.
        held_out: Floors from rare real images and a critic, or None for the fixed ones above.
        diverse: Fill a quota with candidates that differ, instead of in the order they came.
        look_alike: With `diverse`: a candidate nearer to a kept one than this multiple of the training images' median
            distance to their nearest neighbour is a look-alike; >= 0.
    """

    neighbours: int = 5
    rare_quantile: float = 0.9
    realism_floor: float = 1.0
    copy_quantile: float = 0.01
    label_floor: float = 0.45
    label_precision: float | None = None
    held_out: HeldOutRules | None = None
    diverse: bool = False
    look_alike: float = 0.0

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"SelectionSettings.neighbours must be at least 1, got {self.neighbours}.")
        for name in ("rare_quantile", "copy_quantile"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"SelectionSettings.{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.label_floor <= 1:
            raise ValueError(f"SelectionSettings.label_floor must lie in [0, 1], got {self.label_floor}.")
        if self.label_precision is not None and not 0 < self.label_precision <= 1:
            raise ValueError(f"SelectionSettings.label_precision must lie in (0, 1], got {self.label_precision}.")
        if not self.look_alike >= 0:
            raise ValueError(f"SelectionSettings.look_alike must not be negative, got {self.look_alike}.")


@dataclass(frozen=True, eq=False)
class Verdicts:
    """How the filters judge a batch of candidates.

    Attributes:
        neighbourhood: Where they lie among the training images.
        label_agreement: (M,) in [0, 1]: distance to the nearest training image of another label, relative to that
            plus the distance to the nearest of the own label; above 0.5 the own label is nearer.
        rare, valid, new, label_kept: (M,) verdicts.
        opinion: The critic's, where there is one.
        label_probability: (M,) the critic's probability of the label.
        label_margin: (M,) the same less that of the likeliest other label.
        quantiles: For each score, (M,) its quantile among the training images, each judged without itself.
    """

    neighbourhood: Neighbourhood
    label_agreement: NDArray[np.float64]
    rare: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    new: NDArray[np.bool_]
    label_kept: NDArray[np.bool_]
    opinion: Opinion | None = None
    label_probability: NDArray[np.float64] | None = None
    label_margin: NDArray[np.float64] | None = None
    quantiles: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def passed(self) -> NDArray[np.bool_]:
        """(M,) whether every filter lets a candidate through."""
        return self.rare & self.valid & self.new & self.label_kept


class Judge:
    """Judges candidates against the real training split.

    Args:
        features: (N, D) features of the training images.
        labels: (N,) their labels.
        settings: The thresholds.
        images: (N, H, W, C) uint8, the training images themselves; needed for `settings.held_out`.
        extract: What made the features; needed for `settings.held_out` unless they are pixels.
        device: Where distances and the critic are computed.

    Raises:
        ValueError: Where the features cannot be a reference, or the images are needed and missing.
    """

    def __init__(
        self,
        features: Features,
        labels: NDArray[np.int64],
        *,
        settings: SelectionSettings,
        images: NDArray[np.uint8] | None = None,
        extract: Callable[[NDArray[np.uint8]], Features] = pixel_features,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reference = RealReference.fit(features, k=settings.neighbours, device=device)
        self.settings = settings
        self._labels = np.asarray(labels)
        own = self.reference.own
        self.thresholds = {
            "knn_distance": float(np.quantile(own.knn_distance, settings.rare_quantile)),
            "realism": settings.realism_floor,
            "nearest_distance": float(np.quantile(own.nearest_distance, settings.copy_quantile)),
            "label_agreement": settings.label_floor,
        }
        self._own = {name: values for name, values in own._asdict().items() if name != "nearest"}
        self._critic: Critic | None = None
        self._mirrored: Features | None = None
        if settings.held_out is not None:
            if images is None:
                raise ValueError(
                    "SelectionSettings.held_out needs the training images beside their features, got none."
                )
            self._mirrored = extract(np.ascontiguousarray(images[:, :, ::-1]))
            self._fit_held_out(settings.held_out, images)

    @property
    def spacing(self) -> float:
        """Distance up to which two kept samples would be look-alikes."""
        return self.settings.look_alike * float(np.median(self.reference.own.nearest_distance))

    def judge(
        self, features: Features, labels: NDArray[np.int64], *, images: NDArray[np.uint8] | None = None
    ) -> Verdicts:
        """Ask every filter.

        Args:
            features: (M, D) of the candidates, from the same extractor as the reference.
            labels: (M,) the labels that they were drawn for.
            images: (M, H, W, C) uint8 the candidates themselves; needed where a critic judges.

        Raises:
            ValueError: Where features do not fit the reference, or the images are needed and missing.
        """
        neighbourhood = self.reference.judge(features)
        agreement = self.label_agreement(features, labels)
        opinion, probability, margin = None, None, None
        limits = self.thresholds
        if self._critic is not None:
            if images is None:
                raise ValueError("the critic judges images, got their features alone; pass images too.")
            opinion = self._critic.judge(images)
            probability, margin = opinion.of_label(labels), opinion.margin(labels)
            neighbourhood = self._also_mirrored(neighbourhood, features)
        valid = neighbourhood.realism >= limits["realism"]
        new = neighbourhood.nearest_distance > limits["nearest_distance"]
        if opinion is None or probability is None:
            label_kept = agreement >= limits["label_agreement"]
        else:
            valid &= opinion.realness >= limits["realness"]
            new &= neighbourhood.copy_ratio >= limits["copy_ratio"]
            label_kept = probability >= limits["label_probability"]
        verdicts = Verdicts(
            neighbourhood=neighbourhood,
            label_agreement=agreement,
            rare=neighbourhood.knn_distance > limits["knn_distance"],
            valid=valid,
            new=new,
            label_kept=label_kept,
            opinion=opinion,
            label_probability=probability,
            label_margin=margin,
        )
        verdicts.quantiles.update(self._quantiles(verdicts))
        return verdicts

    def label_agreement(self, features: Features, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """How much nearer the own label's training images are than the others', (M,) in [0, 1].

        A label without training images has agreement 0; the only label there is has agreement 1.
        """
        labels = np.asarray(labels)
        own, other = np.full(len(labels), np.inf), np.full(len(labels), np.inf)
        for label in np.unique(labels):
            mine, same = np.flatnonzero(labels == label), self._labels == label
            for distance, training in ((own, same), (other, ~same)):
                if training.any():
                    found = nearest(
                        features[mine], self.reference.features[training], k=1, device=self.reference.device
                    )
                    distance[mine] = found[0][:, 0]
        total = own + other
        with np.errstate(invalid="ignore"):
            agreement = np.where(np.isinf(other), 1.0, np.where(total > 0, other / total, 0.5))
        return np.where(np.isinf(own), 0.0, agreement)

    def _fit_held_out(self, rules: HeldOutRules, images: NDArray[np.uint8]) -> None:
        self._critic = Critic.train(
            images,
            self._labels,
            num_classes=int(self._labels.max()) + 1,
            settings=rules.critic,
            device=self.reference.device,
        )
        own = self._also_mirrored(self.reference.own, self.reference.features, leave_out_self=True)
        opinion = self._critic.own
        self._own |= {
            "copy_ratio": own.copy_ratio,
            "realness": opinion.realness,
            "label_probability": opinion.of_label(self._labels),
            "label_margin": opinion.margin(self._labels),
        }
        rare = own.knn_distance > self.thresholds["knn_distance"]
        quantiles = {"realism": rules.realism, "copy_ratio": rules.copy_ratio, "realness": rules.realness}
        quantiles["label_probability"] = rules.label
        for name, quantile in quantiles.items():
            self.thresholds[name] = lower_limit(self._own[name][rare], quantile=quantile)
        del self.thresholds["label_agreement"]  # the critic's probability takes its place

    def _also_mirrored(
        self, neighbourhood: Neighbourhood, features: Features, *, leave_out_self: bool = False
    ) -> Neighbourhood:
        """The same with mirrored training images among those that may be copied."""
        assert self._mirrored is not None, "made with the critic"
        distances, found = nearest(
            features, self._mirrored, k=1, leave_out_self=leave_out_self, device=self.reference.device
        )
        mirrored, mean = distances[:, 0], neighbourhood.knn_distance
        closer = mirrored < neighbourhood.nearest_distance
        distance = np.where(closer, mirrored, neighbourhood.nearest_distance)
        return neighbourhood._replace(
            nearest_distance=distance,
            nearest=np.where(closer, found[:, 0], neighbourhood.nearest),
            copy_ratio=np.where(mean > 0, distance / np.where(mean > 0, mean, 1.0), neighbourhood.copy_ratio),
        )

    def _quantiles(self, verdicts: Verdicts) -> dict[str, NDArray[np.float64]]:
        scores: dict[str, NDArray[np.float64]] = dict(verdicts.neighbourhood._asdict())
        if verdicts.opinion is not None:
            assert verdicts.label_probability is not None, "an opinion has it"
            assert verdicts.label_margin is not None, "an opinion has it"
            scores |= {
                "realness": verdicts.opinion.realness,
                "label_probability": verdicts.label_probability,
                "label_margin": verdicts.label_margin,
            }
        return {name: quantile_among(scores[name], own) for name, own in self._own.items()}


__all__ = [
    "KEPT",
    "REASONS",
    "HeldOutRules",
    "Judge",
    "SelectionSettings",
    "Spread",
    "Verdicts",
    "choose",
]
