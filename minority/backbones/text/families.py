"""All families of text-to-image pipelines that are supported."""

from minority.backbones.text.family import Family
from minority.backbones.text.sdxl import StableDiffusionXL
from minority.backbones.text.stable_diffusion import StableDiffusion

FAMILIES: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXL)
