"""What a pretrained backbone makes of the images of a comparison: read once, used by every arm that draws nothing.

Shapes: N images, D features, K classes, L noise levels, C channels, H x W pixels.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import nn

from minority.downstream.data import Float64, LabelledImages
from minority.runtime.image_arrays import content_key

Float32 = NDArray[np.float32]

_FACTS = ("identity", "dimensions", "encoder_features", "encoder_macs", "evaluation_macs", "evaluations")


@dataclass(frozen=True, eq=False, kw_only=True)
class BackboneReading:
    """A backbone's features of the images, its errors under every class, and its encoder.

    Attributes:
        identity: Names the backbone and how it was read: equal ones give equal numbers.
        features: Part ("train", "validation", "test", or a source of synthetic images) -> (N, D) bottleneck features.
        errors: Part ("validation", "test", "augmented") -> (N, K, L) errors under every class, as
            `minority.sampling.diffusion_classifier.class_errors` has them; empty where the backbone takes no label.
        dimensions: C * H * W of a state, over which errors are means.
        augmented: Augmented copies of training images, whose errors are known; None where it takes no label.
        encoder: Images (N, C, H, W) in [-1, 1] -> (N, encoder_features); None where it has none.
        encoder_features: How many it gives.
        encoder_macs: Multiply-adds of reading an image's features.
        evaluation_macs: Multiply-adds of one network evaluation.
        evaluations: Evaluations of classifying an image by its errors, all classes and levels together.
        drawing_macs: Source -> multiply-adds that its images cost, those included that were refused.
    """

    identity: str
    features: Mapping[str, Float32]
    errors: Mapping[str, Float32] = field(default_factory=dict)
    dimensions: int = 1
    augmented: LabelledImages | None = None
    encoder: nn.Module | None = None
    encoder_features: int = 0
    encoder_macs: float = 0.0
    evaluation_macs: float = 0.0
    evaluations: int = 0
    drawing_macs: Mapping[str, float] = field(default_factory=dict)

    def features_of(self, part: str) -> Float32:
        """The features of a part.

        Raises:
            ValueError: It was not read.
        """
        if part not in self.features:
            raise ValueError(f"the backbone's features of {part} were not read; there are {', '.join(self.features)}.")
        return self.features[part]

    def errors_of(self, part: str) -> Float32:
        """The errors of a part under every class.

        Raises:
            ValueError: They were not read, as of a backbone that takes no label.
        """
        if part not in self.errors:
            raise ValueError(
                f"the backbone's errors of {part} under every class are not there; the zero-shot classifier and its "
                "distillation need a class-conditional backbone."
            )
        return self.errors[part]

    def save(self, file: Path | BinaryIO) -> None:
        """Write everything but the encoder as an .npz file."""
        arrays: dict[str, NDArray[Any]] = {f"features/{part}": values for part, values in self.features.items()}
        arrays |= {f"errors/{part}": values for part, values in self.errors.items()}
        if self.augmented is not None:
            arrays |= {f"augmented/{name}": getattr(self.augmented, name) for name in ("images", "labels", "groups")}
        facts = {name: getattr(self, name) for name in _FACTS} | {"drawing_macs": dict(self.drawing_macs)}
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: Path | BinaryIO, *, encoder: nn.Module | None) -> "BackboneReading":
        """Read what `save` wrote, and put the encoder of the same backbone beside it."""
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        facts = json.loads(arrays.pop("facts").tobytes())
        sorted_out: dict[str, dict[str, NDArray[Any]]] = {"features": {}, "errors": {}, "augmented": {}}
        for name, values in arrays.items():
            kind, _, part = name.partition("/")
            sorted_out[kind][part] = values
        augmented = LabelledImages(**sorted_out["augmented"]) if sorted_out["augmented"] else None
        return cls(
            **facts,
            features=sorted_out["features"],
            errors=sorted_out["errors"],
            augmented=augmented,
            encoder=encoder,
        )

    def digest(self) -> str:
        """8 hex digits over the numbers that arms use."""
        sha256 = hashlib.sha256(self.identity.encode())
        for numbers in (self.features, self.errors):
            for part in sorted(numbers):
                sha256.update(part.encode() + np.ascontiguousarray(numbers[part]).tobytes())
        if self.augmented is not None:
            sha256.update(content_key(self.augmented.images) + self.augmented.labels.tobytes())
        return sha256.hexdigest()[:8]


def zero_shot_probabilities(errors: Float32, *, dimensions: int, sharpness: float, share_of_levels: float) -> Float64:
    """Class probabilities by errors under every class.

    Args:
        errors: (N, K, L), cleanest level first.
        dimensions: C * H * W.
        sharpness: What half the summed squared error is multiplied by, > 0. It moves no argmax.
        share_of_levels: Share of the levels that count, the cleaner ones first, in (0, 1].

    Returns:
        (N, K), rows sum to 1.
    """
    levels = max(1, round(share_of_levels * errors.shape[2]))
    logits = -0.5 * sharpness * dimensions * errors[:, :, :levels].astype(np.float64).mean(axis=2)
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
