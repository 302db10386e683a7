"""The filter with floors from rare real images that nothing was fitted on, and with a discriminator.

Rare real images look less typical than others, so a floor that suits the crowd refuses them. And a blend of two images
lies between them, close to both, where no distance sees it.

Shapes: N training images, M candidates, D features, K classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from minority.features.pixel_features import pixel_features
from minority.neighbours.pairwise import Features, nearest
from minority.neighbours.reference import Neighbourhood, RealReference
from minority.selection.discriminator import Discriminator, DiscriminatorOutput
from minority.selection.quantiles import lower_limit, quantile_among
from minority.selection.settings import HeldOutRules, SelectionSettings
from minority.selection.verdicts import Verdicts, label_agreement


class HeldOutFloorFilter:
    """Evaluates by distances and by a discriminator; floors are low quantiles of what rare training images score.

    Args:
        features: (N, D) features of the training images.
        labels: (N,) their labels.
        settings: The thresholds.
        rules: `settings.held_out`.
        images: (N, H, W, C) uint8, the training images themselves.
        discriminator: Trained on them (`Discriminator.train`).
        extract: What made the features.
        device: Where distances are computed.

    Raises:
        ValueError: The features cannot be a reference.
    """

    def __init__(
        self,
        features: Features,
        labels: NDArray[np.int64],
        *,
        settings: SelectionSettings,
        rules: HeldOutRules,
        images: NDArray[np.uint8],
        discriminator: Discriminator,
        extract: Callable[[NDArray[np.uint8]], Features] = pixel_features,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reference = RealReference.fit(features, k=settings.neighbours, device=device)
        self.settings = settings
        self.discriminator = discriminator
        self._labels = np.asarray(labels)
        self._mirrored = extract(np.ascontiguousarray(images[:, :, ::-1]))
        unmirrored = self.reference.of_training
        self.spacing = settings.look_alike * float(np.median(unmirrored.nearest_distance))
        of_training = self._also_mirrored(unmirrored, self.reference.features, leave_out_self=True)
        self._of_training: dict[str, NDArray[np.float64]] = {
            name: values for name, values in unmirrored._asdict().items() if name != "nearest"
        }
        self._of_training |= {"copy_ratio": of_training.copy_ratio} | _discriminator_scores(
            discriminator.of_training, self._labels
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
        } | {name: lower_limit(self._of_training[name][rare], quantile=quantile) for name, quantile in floors.items()}
        if unmirrored.knn_distance.max() == 0:  # of equal images no ratio of distances is known that could be a floor
            self.thresholds["copy_ratio"] = 0.0

    def evaluate(
        self, features: Features, labels: NDArray[np.int64], *, images: NDArray[np.uint8] | None = None
    ) -> Verdicts:
        """Ask every filter; see `CandidateFilter`.

        Raises:
            ValueError: Features do not fit the reference, or there are no images.
        """
        if images is None:
            raise ValueError("the discriminator evaluates images, got their features alone; pass images too.")
        output, limits = self.discriminator.predict(images), self.thresholds
        neighbourhood = self._also_mirrored(self.reference.locate(features), features)
        probability = output.of_label(labels)
        scores = neighbourhood._asdict() | _discriminator_scores(output, labels)
        return Verdicts(
            neighbourhood=neighbourhood,
            label_agreement=label_agreement(self.reference, self._labels, features, labels),
            rare=neighbourhood.knn_distance > limits["knn_distance"],
            valid=(neighbourhood.realism >= limits["realism"]) & (output.p_real >= limits["p_real"]),
            new=(neighbourhood.nearest_distance > limits["nearest_distance"])
            & (neighbourhood.copy_ratio >= limits["copy_ratio"]),
            label_kept=probability >= limits["label_probability"],
            output=output,
            label_probability=probability,
            label_margin=output.margin(labels),
            quantiles={name: quantile_among(scores[name], known) for name, known in self._of_training.items()},
        )

    def _also_mirrored(
        self, neighbourhood: Neighbourhood, features: Features, *, leave_out_self: bool = False
    ) -> Neighbourhood:
        """The same with mirrored training images among those that may be copied."""
        distances, indices = nearest(
            features, self._mirrored, k=1, leave_out_self=leave_out_self, device=self.reference.device
        )
        mirrored, mean = distances[:, 0], neighbourhood.knn_distance
        closer = mirrored < neighbourhood.nearest_distance
        distance = np.where(closer, mirrored, neighbourhood.nearest_distance)
        return neighbourhood._replace(
            nearest_distance=distance,
            nearest=np.where(closer, indices[:, 0], neighbourhood.nearest),
            copy_ratio=np.where(mean > 0, distance / np.where(mean > 0, mean, 1.0), neighbourhood.copy_ratio),
        )


def _discriminator_scores(output: DiscriminatorOutput, labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    return {
        "p_real": output.p_real,
        "label_probability": output.of_label(labels),
        "label_margin": output.margin(labels),
    }
