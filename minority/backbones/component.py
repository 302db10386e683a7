"""Components of a diffusers folder: a config and the weights that fit it, read without running anything in them."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minority.backbones.backbone import BackboneError
from minority.weights import file_sha256, joint_sha256, read_state_dict, refuse_pointer

WEIGHTS = "diffusion_pytorch_model.safetensors"
_OLD_WEIGHTS = "diffusion_pytorch_model.bin"
_SHARDS = (f"{WEIGHTS}.index.json", f"{_OLD_WEIGHTS}.index.json")
_STEM = "diffusion_pytorch_model"
#: Weights of another precision or training stage, whole or the index of shards, in both spellings of diffusers.
_VARIANTS = (
    rf"{_STEM}\.(?P<variant>\w[\w-]*?)\.(safetensors|bin)",
    rf"{_STEM}\.(safetensors|bin)\.(?P<variant>\w+)\.index\.json",
    rf"{_STEM}\.(safetensors|bin)\.index\.(?P<variant>\w+)\.json",
)
_MOST_LAYERS = 1000
_PREFERRED = ("fp32", "ema", "fp16", "bf16")
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object on disk.

    Raises:
        BackboneError: Where the file is missing or holds something else.
    """
    if not path.is_file():
        raise BackboneError(f"{path} is missing; the folder must be laid out as diffusers saves a pipeline.")
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BackboneError(f"{path} is not JSON ({error}); fetch or copy it again.") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path} must hold a JSON object, it holds a {type(content).__name__}.")
    return content


def weights_sha256(folder: Path) -> str:
    """Checksum of a component's weights: of their file, or of all of them where they are sharded."""
    files, _ = _weights_files(folder)
    return file_sha256(files[0]) if len(files) == 1 else joint_sha256({file.name: file_sha256(file) for file in files})


def load_component(
    model_class: Any,
    folder: Path,
    config: Mapping[str, Any],
    *,
    facts: list[str] | None = None,
    keep_dtype: bool = False,
) -> Any:
    """Build a model of diffusers and fill it.

    Args:
        model_class: E.g. UNet2DModel.
        folder: Holds its weights.
        config: Its config.
        facts: Receives, in words, which weights were read.
        keep_dtype: Whether weights keep the precision that they are stored in.

    Returns:
        The model on the CPU for evaluation, in fp32 unless told otherwise, its parameters without gradients.

    Raises:
        BackboneError: Where weights are missing, broken, not finite, or do not fit the config.
    """
    model = build_on_meta(model_class, config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    files, variant = _weights_files(folder)
    remedy = "save the one that is wanted alone, with torch.save or safetensors"
    read = read_state_dict(files, landmark=_landmark(expected), rename=_modern_name, remedy=remedy)
    tensors = {
        name: value if keep_dtype or not value.is_floating_point() else value.float()
        for name, value in read.tensors.items()
    }
    difference = list_differences(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if difference:
        raise BackboneError(
            f"{files[0]} does not fit the config.json beside it ({difference}); take both from the same model."
        )
    model.load_state_dict(tensors, strict=True, assign=True)
    _fill_buffers(model, model_class, config)
    if facts is not None:
        raised = [f"variant {variant}" + ("" if keep_dtype else " raised to fp32")] if variant else []
        facts.append(_in_words(folder, files, [*raised, *read.notes()]))
    return model.eval().requires_grad_(False)


def build_on_meta(model_class: Any, config: Mapping[str, Any]) -> Any:
    """A model whose parameters have shapes but no memory; fill it by `load_state_dict(assign=True)`.

    Raises:
        BackboneError: Where no model can be made of the config.
    """
    for name in ("layers_per_block", "num_layers"):
        value = config.get(name)
        if isinstance(value, int | float) and not 0 <= value <= _MOST_LAYERS:
            raise BackboneError(f"a config with {name} = {value!r:.60} makes no {model_class.__name__}; correct it.")
    try:
        with torch.device("meta"):
            return model_class.from_config(dict(config))
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(".")
        raise BackboneError(
            f"no {model_class.__name__} can be made of its config.json ({reason}); correct it."
        ) from error


def list_differences(expected: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say in one line how two tables of tensor shapes differ, naming the first three of each kind; "" if equal."""
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    misshapen = [
        f"{name} {_by(shapes[name])} instead of {_by(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names)


def _weights_files(folder: Path) -> tuple[list[Path], str]:
    """The files of a component's weights, and their variant: "" for the plain ones, which go before all others."""
    for name in (WEIGHTS, _OLD_WEIGHTS):
        if (folder / name).is_file():
            return [folder / name], ""
    for name in _SHARDS:
        if (folder / name).is_file():
            return _shards(folder / name), ""
    variants = _variants(folder)
    if not variants:
        raise BackboneError(f"{folder / WEIGHTS} is missing; the folder must hold the model's weights.")
    variant = min(variants, key=lambda name: (_PREFERRED.index(name) if name in _PREFERRED else 9, name))
    if len(variants) > 1:
        logging.getLogger(__name__).warning(
            "%s has no plain weights, but the variants %s; %s is read", folder, ", ".join(sorted(variants)), variant
        )
    path = variants[variant]
    return (_shards(path) if path.suffix == ".json" else [path]), variant


def _variants(folder: Path) -> dict[str, Path]:
    variants: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{_STEM}.*"), reverse=True):  # so that .safetensors goes before .bin
        for pattern in _VARIANTS:
            if (match := re.fullmatch(pattern, path.name)) is not None:
                variants.setdefault(match["variant"], path)
    return variants


def _shards(index: Path) -> list[Path]:
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise BackboneError(f"{index} has no weight_map that names files; fetch or copy it again.")
    files = [index.parent / name for name in sorted(set(named.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BackboneError(f"{index.parent} lacks {_first(missing)}, which {index.name} names; fetch what is missing.")
    return files


def _in_words(folder: Path, files: Sequence[Path], notes: Sequence[str]) -> str:
    what = f"weights: {folder.name}/{files[0].name}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    return ", ".join([what, *notes])


def _fill_buffers(model: nn.Module, model_class: Any, config: Mapping[str, Any]) -> None:
    """Give a model the buffers that follow from its config and are not among its weights, such as positions."""
    tables = [(name, key) for name, part in model.named_modules() for key, item in vars(part).items() if _is_meta(item)]
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


def _landmark(names: Mapping[str, object]) -> str:
    """A tensor by whose name the model is found in a file: one that no part of the model has under the same name."""
    return next(name for name in names if not any(other.endswith(f".{name}") for other in names))
