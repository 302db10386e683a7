"""Low-rank adapters (Hu et al. 2021, "LoRA") read from the files that people have, and added to the weights:

    W += scale B A        scale = alpha / rank, as it is stored with the factors

Files are those of diffusers (old and new names), peft (a folder with adapter_config.json) and kohya.

Shapes: a rank-r adapter of W (out, in) or (out, in, h, w) is A (r, in, ...) and B (out, r, ...).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minority.backbones.backbone import BackboneError
from minority.backbones.component import read_json
from minority.weights import read_tensors

#: How the two factors are called, A first.
_FACTORS = (
    (r"\.lora_A(?:\.default)?\.weight", r"\.lora_B(?:\.default)?\.weight"),
    (r"\.lora_down\.weight", r"\.lora_up\.weight"),
    (r"\.lora\.down\.weight", r"\.lora\.up\.weight"),
    (r"_lora\.down\.weight", r"_lora\.up\.weight"),
    (r"\.lora_linear_layer\.down\.weight", r"\.lora_linear_layer\.up\.weight"),
)
_KOHYA = {
    "lora_unet_": "network",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_ORIGINAL = ("lora_unet_input_blocks", "lora_unet_middle_block", "lora_unet_output_blocks")
_PARTS = {
    "unet": "network",
    "transformer": "network",
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
}


@dataclass(frozen=True, eq=False)
class LowRank:
    """The adapter of one layer.

    Attributes:
        key: What its file calls the layer.
        part: "network", "text_encoder", "text_encoder_2"; "" where the file does not say.
        down: A.
        up: B.
        scale: By which B A is multiplied.
    """

    key: str
    part: str
    down: Tensor
    up: Tensor
    scale: float

    @property
    def layer(self) -> str:
        """Its layer's name with underscores alone, as kohya's files have it; other files' names come down to it."""
        name = self.key
        for prefix in (*_KOHYA, *(f"{part}." for part in _PARTS), "base_model.model."):
            name = name.removeprefix(prefix)
        return _flat(name)

    def delta(self) -> Tensor:
        """What it adds to the weights, (out, in x h x w), in fp32."""
        return self.scale * (self.up.float().flatten(1) @ self.down.float().flatten(1))


@dataclass(frozen=True, eq=False)
class Lora:
    """All layers of a file.

    Attributes:
        source: The file.
        layers: One for each adapted layer.
        scale_source: Where the scale came from, in words.
    """

    source: Path
    layers: tuple[LowRank, ...]
    scale_source: str

    @property
    def rank(self) -> str:
        """The rank, or the range of ranks."""
        ranks = sorted({len(layer.down) for layer in self.layers})
        return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} ... {ranks[-1]}"


def read_lora(path: Path, *, layers_per_block: int | None = None) -> Lora:
    """Read a file of low-rank adapters.

    Args:
        layers_per_block: Of the U-Net, where its layers may have the names of SDXL's original code.
        path: `.safetensors`, or a file of `torch.save`, which is read without running any code in it. Where an
            adapter_config.json lies beside it, that is peft's and has the scale.

    Raises:
        BackboneError: Where it cannot be read, or is of another kind (DoRA, LoHa, LoKr, a change of norms).
    """
    tensors = read_tensors(path)
    if layers_per_block is not None and any(name.startswith(_ORIGINAL) for name in tensors):
        tensors = _with_our_names(tensors, layers_per_block, source=path)
    pairs, alphas = _paired(tensors, source=path)
    scales, scale_source = _scales(path, pairs, alphas)
    layers = [LowRank(key, _part_of(key), down, up, scales[key]) for key, (down, up) in pairs.items()]
    return Lora(path, tuple(layers), scale_source)


def _with_our_names(tensors: dict[str, Tensor], layers_per_block: int, *, source: Path) -> dict[str, Tensor]:
    """Layers of SDXL's original code by the names of diffusers, which converts them."""
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin  # which needs transformers

    try:
        renamed, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            dict(tensors), unet_config=SimpleNamespace(layers_per_block=layers_per_block)
        )
    except (ValueError, KeyError, IndexError) as error:
        raise BackboneError(
            f"{source} has layers that diffusers cannot rename ({str(error).strip()[:120]}); take one of this model."
        ) from error
    return renamed | {name: torch.tensor(alpha) for name, alpha in (alphas or {}).items()}


def is_lora(names: list[str]) -> bool:
    """Whether tensors of these names are low-rank adapters."""
    return any("lora" in name.lower() for name in names)


def add_lora(lora: Lora, models: Mapping[str, nn.Module], *, strength: float = 1.0) -> set[str]:
    """Add an adapter to the weights of models, in place; they keep their precision.

    Args:
        lora: The adapter.
        models: By part: "network", "text_encoder", "text_encoder_2".
        strength: By which its stored scale is multiplied.

    Returns:
        The keys of the layers that were adapted.
    """
    done = set()
    for part, model in models.items():
        weights: dict[str, Any] = {
            _flat(name): module.weight for name, module in model.named_modules() if _is_layer(module)
        }
        for layer in lora.layers:
            weight = weights.get(layer.layer) if layer.part in ("", part) and layer.key not in done else None
            if weight is None:
                continue
            if layer.up.shape[0] != weight.shape[0] or layer.down[0].numel() != weight[0].numel():
                raise BackboneError(
                    f"{lora.source} is for another architecture: {layer.key} is for a layer of "
                    f"{layer.down[0].numel()} inputs and {layer.up.shape[0]} outputs, here it has {weight[0].numel()} "
                    f"and {weight.shape[0]}; take an adapter of this model."
                )
            with torch.no_grad():
                weight.copy_(weight.float() + strength * layer.delta().reshape(weight.shape))
            done.add(layer.key)
    return done


def require_all(lora: Lora, done: set[str]) -> None:
    """Refuse an adapter of which layers are left over.

    Raises:
        BackboneError: With the first of them.
    """
    left = [layer.key for layer in lora.layers if layer.key not in done]
    if left:
        more = ", ..." if len(left) > 3 else ""
        raise BackboneError(
            f"{lora.source} is for another architecture: {len(left)} of its {len(lora.layers)} layers are not in this "
            f"model ({', '.join(left[:3])}{more}); take an adapter of this model."
        )


def _is_layer(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2


def _flat(name: str) -> str:
    """A layer's name without what differs between versions of the libraries, and with underscores alone."""
    name = name.replace(".processor.", ".").replace("text_model.", "").replace("text_model_", "")
    name = re.sub(r"\.to_out$", ".to_out.0", name)  # of diffusers' old attention processors
    return name.replace(".", "_")


def _part_of(key: str) -> str:
    for prefix, part in _KOHYA.items():
        if key.startswith(prefix):
            return part
    return _PARTS.get(key.partition(".")[0], "")


def _paired(
    tensors: Mapping[str, Tensor], *, source: Path
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, float]]:
    """Layers with their two factors, and the alphas that stand beside them."""
    halves: dict[str, dict[int, Tensor]] = {}
    alphas, odd = {}, []
    for name, tensor in tensors.items():
        if name.endswith(".alpha"):
            layer = name.removesuffix(".alpha")  # diffusers' conversion leaves the factor's ending in some
            alphas[(_factor_of(layer) or (_base(layer), 0))[0]] = float(tensor)
            continue
        factor = _factor_of(name)
        if factor is None:
            odd.append(name)
        else:
            halves.setdefault(factor[0], {})[factor[1]] = tensor
    odd += [key for key, pair in halves.items() if len(pair) < 2]
    if odd or not halves:
        more = ", ..." if len(odd) > 3 else ""
        what = f"has tensors that are no factors of it ({', '.join(odd[:3])}{more})" if odd else "holds none"
        raise BackboneError(
            f"{source} is to hold low-rank adapters (LoRA) and {what}; DoRA, LoHa, LoKr and changes of norms or biases "
            "are not supported, merge them into the model."
        )
    return {key: (pair[0], pair[1]) for key, pair in halves.items()}, alphas


def _factor_of(name: str) -> tuple[str, int] | None:
    for pair in _FACTORS:
        for which, ending in enumerate(pair):
            if re.search(f"{ending}$", name):
                return _base(re.sub(f"{ending}$", "", name)), which
    return None


def _base(name: str) -> str:
    """A layer as its alpha and its factors both name it."""
    return re.sub(r"(\.lora|_lora|\.lora_linear_layer)$", "", name)


def _scales(
    path: Path, pairs: Mapping[str, tuple[Tensor, Tensor]], alphas: Mapping[str, float]
) -> tuple[dict[str, float], str]:
    config = path.parent / "adapter_config.json"
    if config.is_file():
        stored = {"": read_json(config)}
        return {key: _of_config(key, stored[""], pairs) for key in pairs}, f"alpha / rank of {config.name}"
    if alphas:
        missing = [key for key in pairs if key not in alphas]
        scale_source = "alpha / rank, stored beside each layer"
        scale_source += f"; {len(missing)} layers without one take 1" if missing else ""
        return {key: alphas.get(key, len(down)) / len(down) for key, (down, _) in pairs.items()}, scale_source
    metadata = _metadata(path)
    if metadata:
        return {key: _of_metadata(key, metadata, pairs) for key in pairs}, "alpha / rank of the file's metadata"
    return dict.fromkeys(pairs, 1.0), "none is stored, so 1, as diffusers takes it; wrong where alpha was not the rank"


def _of_metadata(key: str, metadata: Mapping[str, Any], pairs: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    part = key.partition(".")[0]
    of_part = {name.removeprefix(f"{part}."): value for name, value in metadata.items() if name.startswith(f"{part}.")}
    return _of_config(key, of_part, pairs)


def _of_config(key: str, config: Mapping[str, Any], pairs: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    rank = len(pairs[key][0])
    if "lora_alpha" not in config:
        return 1.0
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    alpha = next((value for name, value in patterns.items() if re.search(rf"(^|\.){name}$", key)), config["lora_alpha"])
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _metadata(path: Path) -> dict[str, Any]:
    """What diffusers stores beside the factors: rank, alpha and their exceptions, by part."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("lora_adapter_metadata")
            content = json.loads(text) if text else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise BackboneError(f"{path} has metadata that cannot be read ({error}); fetch it again.") from error
    return content if isinstance(content, dict) else {}
