"""The backbone's own bottleneck activations: features that need nothing beside the backbone.

An image is noised a little, by the same noise for every image, and goes through the U-Net's contracting half; the mean
over pixels of what its middle block makes is the feature vector. The noise keeps the network in the world it was
trained on; a class-conditional U-Net sees the mean of its class embeddings, so that no label is needed.

Diffusion models' activations as features: Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion
Models", ICLR 2022.
"""

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from minority.backbones import Backbone
from minority.backbones.unet import UNetDenoiser
from minority.diffusion.pixels import from_pixels
from minority.features.extractor import NetworkExtractor


def bottleneck_extractor(
    backbone: Backbone, *, noise_level: float = 0.1, batch_size: int = 64, device: torch.device | str = "cpu"
) -> NetworkExtractor:
    """The bottleneck of a backbone as an extractor.

    Args:
        backbone: Any whose network is a diffusers UNet2DModel in pixel space.
        noise_level: Timestep of the noise as a fraction of the chain, in [0, 1).
        batch_size: Images a call.
        device: Where to compute.

    Raises:
        ValueError: Where the backbone has another network, or its U-Net has no middle block.
    """
    denoiser = backbone.to(device).denoiser
    if not isinstance(denoiser, UNetDenoiser) or denoiser.settings.low_resolution or backbone.codec is not None:
        raise ValueError(f"backbone {backbone.name} has no bottleneck that could be read; choose another extractor.")
    if denoiser.unet.mid_block is None:
        raise ValueError(f"the U-Net of backbone {backbone.name} has no middle block; choose another extractor.")
    network = Bottleneck(backbone, denoiser, noise_level=noise_level)
    return NetworkExtractor(
        network,
        from_pixels,
        recipe=f"backbone-{backbone.sha256[:16]}-{noise_level:g}",
        batch_size=batch_size,
        device=device,
        maps=network.maps,
    )


class Bottleneck(nn.Module):
    """The contracting half of a U-Net, and its middle block.

    Args:
        backbone: Says noise levels and shape.
        denoiser: Its denoiser.
        noise_level: Timestep as a fraction of the chain, in [0, 1).
    """

    noise: Tensor

    def __init__(self, backbone: Backbone, denoiser: UNetDenoiser, *, noise_level: float) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule, self.step = backbone.schedule, backbone.schedule.step_at(noise_level)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, *backbone.image_shape, generator=generator)
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, D) features of images (B, C, H, W) in [-1, 1]."""
        return self.maps(images).mean(dim=(2, 3))

    def maps(self, images: Tensor) -> Tensor:
        """(B, D, h, w) what the middle block makes of images (B, C, H, W) in [-1, 1]."""
        x_t = self.schedule.noised(images, self.step, self.noise.expand_as(images))
        timestep = self.schedule.timestep(self.step, len(images), images.device)
        if self.denoiser.settings.timestep_scale != 1.0:
            timestep = timestep.float() * self.denoiser.settings.timestep_scale
        return contract(self.denoiser.unet, x_t, timestep, self._class_embedding())

    def _class_embedding(self) -> Tensor | None:
        embedding = self.denoiser.unet.class_embedding
        if embedding is None:
            return None
        if not isinstance(embedding, nn.Embedding):
            raise ValueError("the U-Net's labels are not a table of embeddings; choose another extractor.")
        return embedding.weight[: self.denoiser.settings.num_classes].mean(dim=0)


def contract(unet: UNet2DModel, x_t: Tensor, timestep: Tensor, class_embedding: Tensor | None) -> Tensor:
    """What the middle block of a UNet2DModel makes, (B, D, h, w).

    Args:
        unet: The network.
        x_t: (B, C, H, W).
        timestep: (B,).
        class_embedding: (E,) added to the embedding of the timestep, or None.
    """
    x = x_t.to(unet.dtype)
    if unet.config.center_input_sample:
        x = 2 * x - 1
    embedding = unet.time_embedding(unet.time_proj(timestep).to(unet.dtype))
    if class_embedding is not None:
        embedding = embedding + class_embedding
    skip, hidden = x, unet.conv_in(x)
    for block in unet.down_blocks:
        if hasattr(block, "skip_conv"):
            hidden, _, skip = block(hidden_states=hidden, temb=embedding, skip_sample=skip)
        else:
            hidden, _ = block(hidden_states=hidden, temb=embedding)
    middle: Tensor = unet.mid_block(hidden, embedding)
    return middle
