"""A network of one's own as a backbone: minority sample --backbone examples.own_model:load --num 4 --out own"""

import torch
from torch import nn

from minority.backbones import OwnModel, entry_point


class Network(nn.Module):
    """Stands for yours."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.time, self.mix = nn.Embedding(10, 1), nn.Embedding(1000, 1), nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t, t, y):
        """(B, C, H, W) noisy images, (B,) timesteps, (B,) labels -> (B, C, H, W) the noise in them."""
        return self.mix(x_t) + (self.classes(y) + self.time(t))[:, :, None, None]


@entry_point
def load() -> OwnModel:
    torch.manual_seed(0)  # yours: network.load_state_dict(torch.load("weights.pt", weights_only=True))
    return OwnModel(Network(), image_shape=(1, 8, 8), schedule="cosine", prediction_type="epsilon", num_classes=10)
