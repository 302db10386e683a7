"""Components of a diffusers folder: a config and the weights that fit it, read without running anything in them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minority.backbones.backbone import BackboneError
from minority.weights import file_sha256, joint_sha256, read_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
_OLD_WEIGHTS = "diffusion_pytorch_model.bin"
_SHARDS = f"{WEIGHTS}.index.json"
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object on disk.

    Raises:
        BackboneError: Where the file is missing or holds something else.
    """
    if not path.is_file():
        raise BackboneError(f"{path} is missing; the folder must be laid out as diffusers saves a pipeline.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"{path} is not JSON ({error}); fetch or copy it again.") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path} must hold a JSON object, it holds a {type(content).__name__}.")
    return content


def weights_sha256(folder: Path) -> str:
    """Checksum of a component's weights: of their file, or of all of them where they are sharded."""
    files = _weights_files(folder)
    return file_sha256(files[0]) if len(files) == 1 else joint_sha256({file.name: file_sha256(file) for file in files})


def load_component(model_class: Any, folder: Path, config: Mapping[str, Any], *, keep_dtype: bool = False) -> Any:
    """Build a model of diffusers and fill it.

    Args:
        model_class: E.g. UNet2DModel.
        folder: Holds its weights.
        config: Its config.
        keep_dtype: Whether weights keep the precision that they are stored in.

    Returns:
        The model on the CPU for evaluation, in fp32 unless told otherwise, its parameters without gradients.

    Raises:
        BackboneError: Where weights are missing, broken, or do not fit the config.
    """
    files = _weights_files(folder)
    tensors = {
        _modern_name(name): tensor if keep_dtype or not tensor.is_floating_point() else tensor.float()
        for file in files
        for name, tensor in read_tensors(file).items()
    }
    model = build_on_meta(model_class, config)
    difference = list_differences(
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
    )
    if difference:
        raise BackboneError(
            f"{files[0]} does not fit the config.json beside it ({difference}); take both from the same model."
        )
    model.load_state_dict(tensors, strict=True, assign=True)
    _fill_buffers(model, model_class, config)
    return model.eval().requires_grad_(False)


def build_on_meta(model_class: Any, config: Mapping[str, Any]) -> Any:
    """A model whose parameters have shapes but no memory; fill it by `load_state_dict(assign=True)`."""
    with torch.device("meta"):
        return model_class.from_config(dict(config))


def list_differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """Say in one line how two tables of tensor shapes differ, naming the first three of each kind; "" if equal."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {_by(found[name])} instead of {_by(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names)


def _weights_files(folder: Path) -> list[Path]:
    for name in (WEIGHTS, _OLD_WEIGHTS):
        if (folder / name).is_file():
            return [folder / name]
    if (folder / _SHARDS).is_file():
        named = read_json(folder / _SHARDS).get("weight_map", {})
        files = [folder / name for name in sorted(set(named.values()))]
        if files:
            return files
    raise BackboneError(f"{folder / WEIGHTS} is missing; the folder must hold the model's weights.")


def _fill_buffers(model: nn.Module, model_class: Any, config: Mapping[str, Any]) -> None:
    """Give a model the buffers that follow from its config and are not among its weights, such as positions."""
    tables = [(name, key) for name, part in model.named_modules() for key, own in vars(part).items() if _is_meta(own)]
    if not tables and not any(buffer.is_meta for buffer in model.buffers()):
        return
    whole = model_class.from_config(dict(config))
    computed = dict(whole.named_buffers())
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, computed[name])
    for owner, key in tables:  # kept as plain attributes, such as Lumina's rotations
        setattr(model.get_submodule(owner), key, getattr(whole.get_submodule(owner), key))


def _is_meta(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_meta, value))
    return isinstance(value, torch.Tensor) and value.is_meta


def _modern_name(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(old, new)
    return name


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
