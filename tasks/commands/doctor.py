"""What a machine lacks for running the presets."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from datasets.storage.store import Store
from minority.backbones import Backbone
from minority.backbones.backbone import learned_variance
from minority.backbones.flow import FlowDenoiser
from minority.backbones.licence import training_terms
from tasks.config.paths import project_path
from tasks.config.preset_files import list_presets
from tasks.config.presets import FLOWS, load_preset
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.planned_groups import planned_real_data
from tasks.inputs.workspace import open_backbone, open_named_backbone


def examine() -> list[str]:
    """One line a finding; those that begin with MISSING keep every preset from running."""
    findings = [_packages(), _device(), _server(), _namesake()]
    for flow, name, _ in list_presets():
        if FLOWS[flow] is AugmentConfig:
            findings.append(f"augment/{name}: {_preset(name)}")
    return findings


def examine_backbone(source: str, flags: Mapping[str, Any]) -> list[str]:
    """What a backbone is, one line a finding.

    Args:
        source: Its path, hub id or entry point, or the YAML file of a backbone section.
        flags: ADM flags.

    Raises:
        InputError: It cannot be loaded; in one line, why and the way out.
    """
    backbone = open_named_backbone(source, flags, without_prompts=True)
    labels = f"labels 0 ... {backbone.num_classes - 1}" if backbone.num_classes else "no labels"
    bound = "not clipped" if backbone.bound is None else f"clipped to +-{backbone.bound:g}"
    return [
        f"ok backbone: {backbone.name}",
        f"ok images: {_shape(backbone.image_shape)}, {labels}",
        f"ok chain: {backbone.schedule.num_steps} noise levels, states of {_shape(backbone.state_shape)}, {bound}",
        *_prompts(backbone),
        f"ok scores: {_scores(backbone)}",
        f"ok sha256: {backbone.sha256}",
        *(f"ok {line}" for line in backbone.facts),
        f"ok variance: {_variance(backbone)}",
        f"ok licence: {_licence(backbone)}",
    ]


def _licence(backbone: Backbone) -> str:
    if backbone.licence is None:
        return "its card states none"
    terms = training_terms(backbone.licence)
    return backbone.licence + (f", which {terms}; read it before you train on its images" if terms else "")


def _prompts(backbone: Backbone) -> list[str]:
    if backbone.prompts is None:
        return []
    rows = len(backbone.prompts.flat)
    negative = "the pipeline's own" if backbone.prompts.negative is None else repr(backbone.prompts.negative)
    kind = "flow" if isinstance(backbone.denoiser, FlowDenoiser) else "numbered noise levels"
    free = "takes classifier-free guidance" if backbone.distilled is None else f"distilled: {backbone.distilled}"
    return [f"ok prompts: {rows}, negative prompt {negative}; {kind}; {free}"]


def _variance(backbone: Backbone) -> str:
    """Whether its network learned its reverse variance; it is asked once, so that one that answers NaN is found."""
    if getattr(getattr(backbone.denoiser, "settings", None), "low_resolution", False):
        return "that of an upsampler, which gets no scores of its own"
    try:
        kind = learned_variance(backbone)
    except ValueError as error:
        raise InputError(f"backbone: {error}") from error
    return f"learned ({kind})" if kind else "not learned; bits/dim take beta (fixed_large)"


def _scores(backbone: Backbone) -> str:
    if backbone.distilled is not None:
        return (
            f"minority score of latents; no negative ELBO, as estimates of a distilled model ({backbone.distilled}) "
            "are no means"
        )
    if not backbone.space.discretised:
        return "of latents; the negative ELBO is that of a density, in bits a latent dimension, and may be negative"
    if backbone.state_shape != backbone.image_shape:
        return f"of images averaged down to {_shape(backbone.state_shape)}; the negative ELBO is in bits/dim of these"
    return "of images; the negative ELBO is in bits/dim"


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{height}x{width} pixels of {channels} channels"


def _packages() -> str:
    versions = {package: importlib.metadata.version(package) for package in ("torch", "prefect", "fastapi")}
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    if tuple(int(part) for part in versions["fastapi"].split(".")[:2]) >= (0, 151):
        return f"MISSING packages: fastapi {versions['fastapi']} breaks Prefect's server; install constraints.txt."
    return f"ok packages: {listed}"


def _device() -> str:
    if torch.cuda.is_available():
        return f"ok device: {torch.cuda.get_device_name(0)}"
    return f"ok device: no GPU, {os.cpu_count()} cores; small presets run, 64x64 and larger want a CUDA GPU."


def _server() -> str:
    url = os.environ.get("PREFECT_API_URL")
    return f"ok server: {url}" if url else "ok server: none set; runs start a temporary one (PREFECT_API_URL sets one)."


def _namesake() -> str:
    spec = importlib.util.find_spec("datasets")
    origin = str(spec.origin) if spec is not None else "nowhere"
    if not origin.startswith(str(project_path("datasets").resolve())):
        return f"MISSING package datasets: it is imported from {origin}; run from the project's folder."
    return "ok package datasets: this project's own"


def _preset(name: str) -> str:
    problems = problems_of(load_preset(AugmentConfig, name))
    return "ready" if not problems else "not ready: " + " Also: ".join(problems)


def problems_of(config: AugmentConfig, *, with_backbone: bool = True) -> list[str]:
    """What keeps an augmentation from running, a line each."""
    looks: list[Callable[[], object]] = [
        lambda: planned_real_data(config),
        lambda: Store(config.store).check_writable(config.name),
    ]
    if with_backbone:
        looks.insert(1, lambda: open_backbone(config.backbone, planned_real_data(config)))
    problems = []
    for look in looks:
        try:
            look()
        except (InputError, OSError, ValueError) as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))
