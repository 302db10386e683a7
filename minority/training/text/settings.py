"""How a small text-to-image model is built and trained."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextModelSettings:
    """A latent diffusion model in miniature: laid out and trained as Stable Diffusion 1.x (Rombach et al. 2022).

    Attributes:
        autoencoder_widths: Channels of the autoencoder's levels; every level but the last halves the image.
        latent_channels: Channels of a latent, at least 1.
        autoencoder_steps: Optimiser steps of the autoencoder.
        divergence_weight: Weight of its latents' divergence from a normal distribution, beside the pixels' error.
        widths: Channels of the U-Net's levels; all but the first attend to the caption. Multiples of 16.
        text_width: Features of a token, a multiple of 16.
        text_layers: Layers of the text encoder, which is trained together with the U-Net.
        text_length: Tokens of a caption at most, its begin and end included.
        steps: Optimiser steps of the U-Net.
        horizon: Steps over which its learning rate falls along a cosine, at least `steps`; None is `steps`.
        cooldown: Last of its steps, over which the learning rate is brought to 0 linearly beside; 0 has none.
        batch_size: Images a step, in both trainings.
        learning_rate: Of AdamW in both trainings, after `warmup` steps; it falls along a cosine.
        warmup: Steps until the learning rate is reached.
        caption_dropout: Share of captions left empty, in [0, 1); what classifier-free guidance needs.
        ema_decay: Of the averaged weights, in [0, 1).
        checkpoint_every: Steps between two checkpoints.
        seed: Decides initial weights and every draw.
    """

    autoencoder_widths: tuple[int, ...] = (16, 32, 32)
    latent_channels: int = 4
    autoencoder_steps: int = 900
    divergence_weight: float = 1e-5
    widths: tuple[int, ...] = (64, 96)
    text_width: int = 64
    text_layers: int = 2
    text_length: int = 16
    steps: int = 4000
    horizon: int | None = None
    cooldown: int = 0
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 200
    caption_dropout: float = 0.1
    ema_decay: float = 0.998
    checkpoint_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("latent_channels", "autoencoder_steps", "text_layers", "steps", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"TextModelSettings.{name} must be at least 1, got {getattr(self, name)}.")
        if self.horizon is not None and self.horizon < self.steps:
            raise ValueError(f"TextModelSettings.horizon must be at least steps = {self.steps}, got {self.horizon}.")
        if not 0 <= self.cooldown <= self.steps:
            raise ValueError(f"TextModelSettings.cooldown must lie in [0, steps = {self.steps}], got {self.cooldown}.")
        for name in ("caption_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"TextModelSettings.{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"TextModelSettings.learning_rate must be greater than 0, got {self.learning_rate}.")
        if self.text_length < 3:
            raise ValueError(f"TextModelSettings.text_length must be at least 3 tokens, got {self.text_length}.")
        odd = [width for width in (*self.widths, self.text_width) if width < 16 or width % 16]
        if odd or not self.widths:
            raise ValueError(f"TextModelSettings.widths and text_width must be multiples of 16, got {odd or 'none'}.")
        if not self.autoencoder_widths or any(width < 8 or width % 8 for width in self.autoencoder_widths):
            raise ValueError(
                f"TextModelSettings.autoencoder_widths must be multiples of 8, got {self.autoencoder_widths}."
            )
