"""The model card of a trained backbone: what it is, what it saw, how good it is, and the commands that say so."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from datasets.storage.escaping import for_markdown
from minority.evaluation.backbone_quality import QualitySettings
from minority.evaluation.backbone_quality_figures import MEMORISED_BELOW, BackboneQuality, CodeLengths
from minority.evaluation.factor_fidelity import FactorFidelity
from tasks.config.presets import load_preset
from tasks.config.runs import AdaptConfig, TrainBackboneConfig
from tasks.errors import InputError
from tasks.inputs.real_data import RealData

#: The figures of a model card, for programs.
QUALITY_FILE = "quality.json"

#: Settings that decide where things are done, not what comes out.
_OF_THIS_MACHINE = ("out", "device", "processes")


def model_card(
    config: TrainBackboneConfig,
    real: RealData,
    *,
    parameters: int,
    quality: BackboneQuality | None,
    averages: Mapping[str, float] | None = None,
    fidelity: FactorFidelity | None = None,
) -> str:
    """The card as Markdown.

    Args:
        config: What it was trained by.
        real: The images it was trained and evaluated on.
        parameters: How many numbers it has learnt.
        quality: Its figures; None where it was not evaluated.
        averages: Bits/dim of held-out images by every average of the weights that was kept.
        fidelity: What samples of every combination show, of a backbone with separate conditions.
    """
    counts = np.bincount(real.train.labels)
    height, width, channels = real.train.image_shape
    settings = config.training
    return f"""# Backbone `{config.name}`

{_kind(config)} diffusion model (diffusers `UNet2DModel`, {parameters:,} parameters)
for images of {height}x{width}x{channels}, {len(real.train.class_names)} classes.

- **Data**: the training split alone, {len(real.train)} images; by class: {", ".join(map(str, counts.tolist()))}. \
It saw no validation or test image.
- **Licence of the data**: {for_markdown(real.licence)}
- **Training**: {settings.steps} steps of {settings.batch_size} images, seed {settings.seed}, {config.schedule} \
schedule of {config.timesteps} timesteps, averaged weights{_options(config)}.
- **Made by**: `{command("train-backbone", config)}`
{_quality(config, quality, averages or {}, fidelity)}
**Published figures**: {for_markdown(config.published or "none were given to compare with.")}

## Limits

It is meant for demonstrations and tests of this project. It knows nothing but these classes, and the rarest of them
from {int(counts.min())} images.
"""


def _quality(
    config: TrainBackboneConfig,
    quality: BackboneQuality | None,
    averages: Mapping[str, float],
    fidelity: FactorFidelity | None,
) -> str:
    if quality is None or config.quality is None:
        evaluated = config.model_copy(update={"quality": QualitySettings()})
        asked = command("evaluate-backbone", evaluated)
        return f"""
## Quality

Not evaluated: the evaluation was switched off. Whether it learnt or memorised is not known; `{asked}` finds out.
"""
    return f"""- **Evaluated by**: `{command("evaluate-backbone", config)}`

## Quality

{bits_table(quality)}

{frechet_table(quality, config.quality)}

{memory_table(quality)}
{fidelity_table(fidelity)}{_averages_table(averages)}"""


def bits_table(quality: BackboneQuality) -> str:
    """Bits/dim of training and held-out images, beside those of two baseline density models."""
    train, held_out = quality.train_bits, quality.held_out_bits

    def row(name: str, figure: str) -> str:
        return f"| {name} | {getattr(train, figure):.3f} | {getattr(held_out, figure):.3f} |"

    return f"""| bits/dim, smaller is better | {train.images} training images | {held_out.images} held-out images |
|---|---|---|
| this backbone: negative ELBO over {quality.bits_steps} steps | {_bound(train)} | {_bound(held_out)} |
{row("baseline: a normal distribution for every pixel", "normal")}
{row("baseline: a histogram of grey levels for every pixel", "histogram")}

After +/-: the standard error over the images. Both baseline density models are fitted on the whole training split;
theirs are exact code lengths, the backbone's is an upper bound.
Of 256 grey levels, {quality.levels} occur in the training split:
a histogram knows which, a diffusion model does not."""


def frechet_table(quality: BackboneQuality, settings: QualitySettings) -> str:
    """The Frechet distances."""
    fid = quality.frechet
    few = f" With {fid.held_out} images for {fid.dimensions} numbers, covariances are singular: read it as a rank."
    return f"""| Frechet distance (FID) to {fid.held_out} held-out images, of {quality.samples} images each | |
|---|---|
| this backbone: plain samples of {quality.sampling_steps} steps | {fid.backbone:.3f} |
| baseline: one normal distribution a class over all pixels | {fid.class_normals:.3f} |
| for orientation: real training images | {fid.training:.3f} |

Features: {_features(settings)}, {fid.dimensions} numbers an image (`{fid.features}`). All three sets have the same
size and classes; training images of rare classes come more than once. Compare within this table only.\
{few if fid.held_out <= fid.dimensions else ""}"""


def memory_table(quality: BackboneQuality) -> str:
    """Whether it learned or memorised."""
    return f"""| figure | value |
|---|---|
| plain samples inside the k-NN manifold of the training images (pixels) | {quality.valid:.1%} of {quality.samples} |
| mean distance to the nearest training image (pixels): samples | {quality.sample_distance:.3f} |
| the same: held-out real images | {quality.held_out_distance:.3f} |
| memorised (samples nearer than {MEMORISED_BELOW:g} of held-out) | {"yes" if quality.memorised else "no"} |"""


def fidelity_table(fidelity: FactorFidelity | None) -> str:
    """How faithfully every condition is drawn; nothing where there is the label alone."""
    if fidelity is None:
        return ""
    rows = "\n".join(
        f"| {for_markdown(name)} | {_percent(right)} | {_percent(fidelity.mean(name, observed=True))} | "
        f"{_percent(fidelity.mean(name, observed=False))} |"
        for name, right in fidelity.held_out.items()
    )
    absent = [one for one in fidelity.combinations if one.training == 0]
    listed = "\n".join(
        f"| {for_markdown(', '.join(f'{name} {value}' for name, value in one.values.items()))} | "
        f"{' | '.join(_percent(share) for share in one.shown.values())} |"
        for one in absent
    )
    names = " | ".join(map(for_markdown, fidelity.held_out))
    seldom = (
        ""
        if not absent
        else f"""
| combination without training image | {names} |
|---|{"---|" * len(fidelity.held_out)}
{listed}
"""
    )
    return f"""
| condition: the value asked for is shown | held-out real images | samples of seen combinations | of unseen ones |
|---|---|---|---|
{rows}

By classifiers of every condition, fitted on the training images; {fidelity.samples} samples of each of \
{len(fidelity.combinations)} combinations, conditions composed (`composed_conditions`).
{seldom}"""


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.0%}"


def _kind(config: TrainBackboneConfig) -> str:
    if not config.conditional:
        return "An unconditional"
    return "A class-conditional" + (
        " (and unconditional, by label dropout)" if config.training.label_dropout > 0 else ""
    )


def _options(config: TrainBackboneConfig) -> str:
    settings = config.training
    options = []
    if settings.prediction == "v_prediction":
        options.append("predicting velocity")
    if settings.variance == "learned_range":
        options.append("learned-range variance (hybrid loss)")
    if settings.min_snr_gamma is not None:
        options.append(f"min-SNR weighting, gamma {settings.min_snr_gamma:g}")
    if config.conditions:
        shares = ", ".join(f"{share:.0%}" for share in settings.condition_dropout)
        options.append(
            f"conditions {', '.join(config.conditions)} apart, each left out for {shares} of the images, all for "
            f"{settings.label_dropout:.0%}"
        )
    elif settings.label_dropout > 0:
        options.append(f"{settings.label_dropout:.0%} of the labels left out")
    if settings.precision != "fp32":
        options.append(f"arithmetic in {settings.precision}")
    return "".join(f", {option}" for option in options)


def _averages_table(averages: Mapping[str, float]) -> str:
    if not averages:
        return ""
    rows = "\n".join(f"| {name} | {bits:.3f} |" for name, bits in averages.items())
    return f"""
| average of the weights | bits/dim of held-out images |
|---|---|
{rows}

The exponential average is this backbone; the others are power-function profiles, named by their lengths. Each is a
backbone of its own in the folder `<this folder>.averages/`; these figures are here to choose by.
"""


def command(verb: str, config: TrainBackboneConfig | AdaptConfig) -> str:
    """The command line that asks for this config: a preset, and every setting in which it differs.

    Args:
        verb: The command, e.g. "train-backbone".
        config: What is asked for.
    """
    try:
        preset = dict(_leaves(load_preset(type(config), config.name).model_dump(mode="json")))
    except InputError:
        preset = {}  # a config of one's own, all of which has to be said
    changed = {
        key: value
        for key, value in _leaves(config.model_dump(mode="json"))
        if key not in _OF_THIS_MACHINE and (key not in preset or preset[key] != value)
    }
    options = [f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in changed.items()]
    return " ".join(["minority", verb, config.name, *options])


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _bound(lengths: CodeLengths) -> str:
    return f"{lengths.backbone:.3f} +/- {lengths.error:.3f}"


def _features(settings: QualitySettings) -> str:
    if settings.features.kind == "classifier":
        return "the last maps of a small classifier trained on the training split"
    return f"of kind {settings.features.kind}"
