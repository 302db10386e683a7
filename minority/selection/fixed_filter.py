"""The filter with fixed floors: neighbours alone decide, and no network is trained.

Shapes: N training images, M candidates, D features.
"""

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.pairwise import Features
from minority.neighbours.reference import RealReference
from minority.runtime.image_arrays import Images
from minority.selection.filter_contract import Verdicts, label_agreement
from minority.selection.near_copies import no_near_copy
from minority.selection.quantiles import quantile_among
from minority.selection.settings import SelectionSettings


class FixedFloorFilter:
    """Evaluates by distances to the training images, with floors that the settings name.

    Args:
        reference: The training images in feature space.
        labels: (N,) their labels.
        settings: The thresholds.
    """

    def __init__(self, reference: RealReference, labels: NDArray[np.int64], *, settings: SelectionSettings) -> None:
        self.reference = reference
        self.settings = settings
        self._labels = np.asarray(labels)
        of_training = self.reference.of_training
        self.thresholds = {
            "knn_distance": float(np.quantile(of_training.knn_distance, settings.rare_quantile)),
            "realism": settings.realism_floor,
            "nearest_distance": float(np.quantile(of_training.nearest_distance, settings.copy_quantile)),
            "label_agreement": settings.label_floor,
        }
        self.spacing = settings.look_alike * float(np.median(of_training.nearest_distance))
        self._of_training = {name: values for name, values in of_training._asdict().items() if name != "nearest"}

    def evaluate(self, features: Features, labels: NDArray[np.int64], *, images: Images | None = None) -> Verdicts:
        """Ask every filter; see `CandidateFilter`. The images are not looked at."""
        neighbourhood = self.reference.locate(features)
        agreement = label_agreement(self.reference, self._labels, features, labels)
        limits = self.thresholds
        return Verdicts(
            neighbourhood=neighbourhood,
            label_agreement=agreement,
            rare=neighbourhood.knn_distance > limits["knn_distance"],
            valid=neighbourhood.realism >= limits["realism"],
            new=no_near_copy(neighbourhood, limits),
            label_kept=agreement >= limits["label_agreement"],
            quantiles={
                name: quantile_among(neighbourhood._asdict()[name], known) for name, known in self._of_training.items()
            },
        )
