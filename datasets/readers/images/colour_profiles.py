"""Colour profiles inside pictures (ICC.1:2022), by which they are brought to sRGB."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

_JUST_SRGB = 2  # of 255: a profile that moves no colour by more is taken for sRGB


def in_srgb(image: Image.Image) -> Image.Image:
    """An opaque colour image as RGB, by its profile where it has a sound one of its own colours."""
    in_space = image if image.mode == "CMYK" else image.convert("RGB")
    profile = image.info.get("icc_profile")
    transform = _to_srgb(profile, in_space.mode) if profile else None
    if transform is None:
        return in_space.convert("RGB")
    converted = ImageCms.applyTransform(in_space, transform)
    assert converted is not None  # only in-place work gives none
    return converted


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile to sRGB; None where it is damaged, of other colours than the image, or sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != mode:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "RGB":
        levels = np.linspace(0, 255, 6).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        converted = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform), dtype=np.int64)
        if np.abs(converted - cube).max() <= _JUST_SRGB:
            return None
    return transform
