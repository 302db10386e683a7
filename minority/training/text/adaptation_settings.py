"""How a text-to-image model is adapted to images."""

from dataclasses import dataclass

from minority.backbones.backbone import Precision


@dataclass(frozen=True, kw_only=True)
class AdaptationSettings:
    """What is learned, and how.

    Attributes:
        rank: Of the adapters of the network's attention layers; 0 learns words alone.
        alpha: By which they are scaled, divided by the rank; it is stored with them.
        vectors: Of each new word, at least 1.
        start_word: A word of one token that new words begin as; "" is the mean of the vocabulary.
        steps: Optimiser steps.
        batch_size: Images a step.
        learning_rate: Of the adapters (AdamW), after `warmup` steps; it falls to 0 along a cosine.
        word_learning_rate: Of the words.
        warmup: Steps until the learning rates are reached.
        caption_dropout: Share of captions left empty, in [0, 1), so that classifier-free guidance goes on working.
        flip: Mirror half of the images left to right.
        checkpoint_every: Steps between two checkpoints.
        look_every: Steps between two pictures of plain samples; None makes none.
        precision: Of the network, which is not trained itself; the adapters are fp32.
        seed: Decides initial weights and every draw.
    """

    rank: int = 8
    alpha: float = 8.0
    vectors: int = 1
    start_word: str = ""
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 1e-4
    word_learning_rate: float = 1e-3
    warmup: int = 50
    caption_dropout: float = 0.1
    flip: bool = False
    checkpoint_every: int = 100
    look_every: int | None = 250
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"rank": 0, "vectors": 1, "steps": 1, "batch_size": 1, "checkpoint_every": 1, "warmup": 0}
        for name, rule in least.items():
            if getattr(self, name) < rule:
                raise ValueError(f"AdaptationSettings.{name} must be at least {rule}, got {getattr(self, name)}.")
        if self.look_every is not None and self.look_every < 1:
            raise ValueError(f"AdaptationSettings.look_every must be at least 1, or None, got {self.look_every}.")
        for name in ("alpha", "learning_rate", "word_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"AdaptationSettings.{name} must be greater than 0, got {getattr(self, name)}.")
        if not 0 <= self.caption_dropout < 1:
            raise ValueError(f"AdaptationSettings.caption_dropout must lie in [0, 1), got {self.caption_dropout}.")
