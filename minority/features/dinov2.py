"""DINOv2 features (Oquab et al. 2023), by timm or by a copy of the authors' repository for torch.hub."""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minority.diffusion.pixels import from_pixels
from minority.features.encoders import ImageEncoder
from minority.features.extractor import NetworkExtractor
from minority.weights import WeightsError, file_sha256, find_weights, read_tensors

_SIDE = 224  # pixels: 16 patches of 14
_TIMM_NAMES = {"dinov2_vits14": "vit_small_patch14_dinov2", "dinov2_vitb14": "vit_base_patch14_dinov2"}


def dinov2_extractor(
    network: str,
    weights: str,
    *,
    sha256: str | None = None,
    source: Literal["timm", "hub"] = "timm",
    repository: str | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> NetworkExtractor:
    """A DINOv2 vision transformer's class token.

    Args:
        network: "dinov2_vits14" or "dinov2_vitb14"; timm's other names are taken as they are.
        weights: File name or URL of a state dict as the source's own model has it.
        sha256: Checksum of the weights.
        source: "timm" needs the package timm, "hub" a clone of the authors' repository, whose code is run.
        repository: That clone, for "hub".
        batch_size: Images a call.
        device: Where to compute.

    Raises:
        WeightsError: Where the package, the clone or the weights are missing or do not fit.
    """
    path = find_weights(weights, sha256=sha256)
    model = _from_timm(network) if source == "timm" else _from_hub(network, repository)
    _fill(model, path, network=network)
    return NetworkExtractor(
        ImageEncoder(model, size=_SIDE),
        from_pixels,
        recipe=f"{source}-{network}-{file_sha256(path)[:16]}",
        batch_size=batch_size,
        device=device,
    )


def _from_timm(network: str) -> nn.Module:
    try:
        import timm  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        raise WeightsError(
            "DINOv2 by timm needs the package timm (pip install timm), or source hub and a clone of the repository."
        ) from error
    model: nn.Module = timm.create_model(
        _TIMM_NAMES.get(network, network), pretrained=False, num_classes=0, img_size=_SIDE
    )
    return model


def _from_hub(network: str, repository: str | None) -> nn.Module:
    if repository is None or not (Path(repository) / "hubconf.py").is_file():
        raise WeightsError(f"DINOv2 by hub needs a clone of its repository, {repository} holds no hubconf.py.")
    model: nn.Module = torch.hub.load(repository, network, source="local", pretrained=False)
    return model


def _fill(model: nn.Module, path: Path, *, network: str) -> None:
    tensors = read_tensors(path)
    wanted = model.state_dict()
    position = tensors.get("pos_embed")
    if position is not None and "pos_embed" in wanted and position.shape != wanted["pos_embed"].shape:
        tensors["pos_embed"] = _resized_positions(position, wanted["pos_embed"])
    tensors = {name: tensor for name, tensor in tensors.items() if name in wanted or name != "mask_token"}
    if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in wanted.items()}:
        raise WeightsError(f"{path} does not hold the weights of {network}; give the state dict of that network.")
    model.load_state_dict(tensors)


def _resized_positions(position: Tensor, wanted: Tensor) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), trained at another resolution, for another grid."""
    prefix = wanted.shape[1] - int((wanted.shape[1] - 1) ** 0.5) ** 2
    trained_side, side = int((position.shape[1] - prefix) ** 0.5), int((wanted.shape[1] - prefix) ** 0.5)
    grid = position[:, prefix:].reshape(1, trained_side, trained_side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([position[:, :prefix], grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)], dim=1)
