"""All families of text-to-image pipelines that are supported."""

from minority.backbones.text.family import Family
from minority.backbones.text.flux import Flux
from minority.backbones.text.lumina2 import Lumina2
from minority.backbones.text.pixart import PixArtAlpha, PixArtSigma
from minority.backbones.text.sana import Sana
from minority.backbones.text.sd3 import StableDiffusion3
from minority.backbones.text.sdxl import StableDiffusionXL
from minority.backbones.text.stable_diffusion import StableDiffusion

FAMILIES: tuple[type[Family], ...] = (
    StableDiffusion,
    StableDiffusionXL,
    StableDiffusion3,
    Flux,
    PixArtAlpha,
    PixArtSigma,
    Sana,
    Lumina2,
)
