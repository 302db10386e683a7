"""The filter with floors from rare real images that nothing was fitted on, and with a discriminator.

Rare real images look less typical than others, so a floor that suits the crowd refuses them. And a blend of two images
lies between them, close to both, where no distance sees it.

Shapes: N training images, M candidates, D features, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.index import ExactIndex, Index
from minority.neighbours.pairwise import Features, Float64, Int64
from minority.neighbours.reference import Neighbourhood, RealReference
from minority.runtime.image_arrays import Images
from minority.selection.discriminator import Discriminator, DiscriminatorOutput
from minority.selection.filter_contract import Verdicts, label_agreement
from minority.selection.near_copies import no_near_copy
from minority.selection.quantiles import lower_limit, quantile_among
from minority.selection.settings import HeldOutRules, SelectionSettings


@dataclass(frozen=True, eq=False)
class Mirrored:
    """The mirrored training images in feature space, which candidates may be copies of as well.

    Attributes:
        index: Looks up the nearest of them.
        of_training: (N,) distance of each training image to the nearest mirrored one of another image, and (N,) which.
    """

    index: Index
    of_training: tuple[Float64, Int64]

    @classmethod
    def fit(cls, features: Features, reference: RealReference, *, index: Index | None = None) -> "Mirrored":
        """Look up every training image.

        Args:
            features: (N, D) of the mirrored training images.
            reference: The training images.
            index: Looks up neighbours among the features; None compares all pairs, where the reference does.
        """
        device = reference.index.device if isinstance(reference.index, ExactIndex) else "cpu"
        index = ExactIndex(features, device) if index is None else index
        return cls(index, index.nearest(reference.features, leave_out_self=True))


class HeldOutFloorFilter:
    """Evaluates by distances and by a discriminator; floors are low quantiles of what rare training images score.

    Args:
        reference: The training images in feature space.
        labels: (N,) their labels.
        settings: The thresholds.
        rules: `settings.held_out`.
        mirrored: The mirrored training images in feature space.
        discriminator: Trained on the training images, or on some of them (`Discriminator.train`).
    """

    def __init__(
        self,
        reference: RealReference,
        labels: NDArray[np.int64],
        *,
        settings: SelectionSettings,
        rules: HeldOutRules,
        mirrored: Mirrored,
        discriminator: Discriminator,
    ) -> None:
        self.reference = reference
        self.settings = settings
        self.discriminator = discriminator
        self._labels = np.asarray(labels)
        self._mirrored = mirrored.index
        unmirrored = self.reference.of_training
        self.spacing = settings.look_alike * float(np.median(unmirrored.nearest_distance))
        of_training = _also_mirrored(unmirrored, mirrored.of_training)
        self._of_training: dict[str, NDArray[np.float64]] = {
            name: values for name, values in unmirrored._asdict().items() if name != "nearest"
        }
        seen = discriminator.seen
        self._of_training |= {"copy_ratio": of_training.copy_ratio} | _discriminator_scores(
            discriminator.of_training, self._labels[seen]
        )
        knn_distance = float(np.quantile(unmirrored.knn_distance, settings.rare_quantile))
        rare = unmirrored.knn_distance > knn_distance
        if not rare.any():  # many equal images, as a set with black ones has: the rarest there are
            rare = unmirrored.knn_distance == unmirrored.knn_distance.max()
        floors = {"copy_ratio": rules.copy_ratio, "p_real": rules.p_real, "label_probability": rules.label}
        self.thresholds = {
            "knn_distance": knn_distance,
            "realism": lower_limit(self._of_training["realism"][rare], quantile=rules.realism),
            "nearest_distance": float(np.quantile(unmirrored.nearest_distance, settings.copy_quantile)),
        }
        # The discriminator may know some of the training images only; where none of those is rare, all of them count.
        rare_seen = rare[seen] if rare[seen].any() else np.ones(len(seen), dtype=bool)
        for name, quantile in floors.items():
            among = self._of_training[name][rare if name == "copy_ratio" else rare_seen]
            self.thresholds[name] = lower_limit(among, quantile=quantile)
        if unmirrored.knn_distance.max() == 0:  # of equal images no ratio of distances is known that could be a floor
            self.thresholds["copy_ratio"] = 0.0

    def evaluate(self, features: Features, labels: NDArray[np.int64], *, images: Images | None = None) -> Verdicts:
        """Ask every filter; see `CandidateFilter`.

        Raises:
            ValueError: Features do not fit the reference, or there are no images.
        """
        if images is None:
            raise ValueError("the discriminator evaluates images, got their features alone; pass images too.")
        output, limits = self.discriminator.predict(images), self.thresholds
        neighbourhood = _also_mirrored(self.reference.locate(features), self._mirrored.nearest(features))
        probability = output.of_label(labels)
        scores = neighbourhood._asdict() | _discriminator_scores(output, labels)
        return Verdicts(
            neighbourhood=neighbourhood,
            label_agreement=label_agreement(self.reference, self._labels, features, labels),
            rare=neighbourhood.knn_distance > limits["knn_distance"],
            valid=(neighbourhood.realism >= limits["realism"]) & (output.p_real >= limits["p_real"]),
            new=no_near_copy(neighbourhood, limits),
            label_kept=probability >= limits["label_probability"],
            output=output,
            label_probability=probability,
            label_margin=output.margin(labels),
            quantiles={name: quantile_among(scores[name], known) for name, known in self._of_training.items()},
        )


def _also_mirrored(neighbourhood: Neighbourhood, nearest: tuple[Float64, Int64]) -> Neighbourhood:
    """The same with mirrored training images among those that may be copied: (M,) distances and (M,) indices."""
    mirrored, index = nearest
    mean, closer = neighbourhood.knn_distance, mirrored < neighbourhood.nearest_distance
    distance = np.where(closer, mirrored, neighbourhood.nearest_distance)
    return neighbourhood._replace(
        nearest_distance=distance,
        nearest=np.where(closer, index, neighbourhood.nearest),
        copy_ratio=np.where(mean > 0, distance / np.where(mean > 0, mean, 1.0), neighbourhood.copy_ratio),
    )


def _discriminator_scores(output: DiscriminatorOutput, labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    return {
        "p_real": output.p_real,
        "label_probability": output.of_label(labels),
        "label_margin": output.margin(labels),
    }
