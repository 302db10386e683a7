"""The file of a preset of one's own: four deployments of one set, with the reason beside each setting."""

import json
from textwrap import indent

from datasets.readers.names.class_names import in_class_order, whole_numbers
from tasks.commands.preset_choices import Choices, beside

_HEAD = """\
# Presets for {name}, written by `minority init`. Edit what you like; `minority plan {name}` tells what a run will cost.
#
#   {commands}
#
# Workers run it by a Prefect server: minority deploy {name}
name: minority-augment
prefect-version: 3.8.8
pull:
  - flows.checkout.enter_checkout: {{}}

definitions:
  pool: &pool {{name: gpu, work_queue_name: default, job_variables: {{env: {{PYTHONUNBUFFERED: "1"}}}}}}
  one_at_a_time: &one_at_a_time {{limit: 1, collision_strategy: ENQUEUE}}
  store: &store {store}

  # The real images: {seen}
  images: &images
{images}
deployments:
"""
_DEPLOYMENT = """\
  - name: {name}
    version: "1"
    entrypoint: {entrypoint}
    description: {description}
    tags: [{tag}]
    work_pool: *pool
    concurrency_limit: *one_at_a_time
    schedules: []
    parameters:
      config:
        name: {name}
{config}
"""


def preset_text(choices: Choices, *, on_gpu: bool) -> str:
    """The file's content.

    Args:
        choices: What was seen and chosen.
        on_gpu: Whether settings are to fit a GPU.
    """
    out = choices.backbone or f"models/{choices.name}"
    parts = [] if choices.backbone is not None else [("backbone", _training(choices, on_gpu=on_gpu))]
    parts += [
        ("calibrate", _calibration(choices, out, on_gpu=on_gpu)),
        ("augment", _augmentation(choices, out, on_gpu=on_gpu)),
        ("downstream", _comparison(choices, on_gpu=on_gpu)),
    ]
    commands = "\n#   ".join(f"minority {command} {choices.name}" for command in commands_of(choices))
    survey = choices.survey
    seen = f"{survey.num_images} files, {'grey' if survey.grey else 'colour'}, {len(choices.class_counts)} classes."
    head = _HEAD.format(
        name=choices.name,
        commands=commands,
        store=_text(choices.store),
        seen=seen,
        images=indent(_images(choices), " " * 4),
    )
    return head + "\n".join(
        _DEPLOYMENT.format(
            name=_text(choices.name),
            entrypoint=_ENTRYPOINTS[flow].format(reader=_reader(choices)),
            description=_text(_DESCRIPTIONS[flow].format(name=choices.name)),
            tag=flow,
            config=indent(config.strip("\n"), " " * 8),
        )
        for flow, config in parts
    )


def commands_of(choices: Choices) -> list[str]:
    """The commands of the presets, in the order in which they are run; the calibration may be left out."""
    return [*(["train-backbone"] if choices.backbone is None else []), "plan", "calibrate", "augment", "downstream"]


_ENTRYPOINTS = {
    "backbone": "flows.reader_forms.{reader}:backbone",
    "calibrate": "flows.reader_forms.{reader}:calibrate",
    "augment": "flows.reader_forms.{reader}:augment",
    "downstream": "flows.downstream:downstream",
}
_DESCRIPTIONS = {
    "backbone": "Train a class-conditional backbone on the training split of {name} alone.",
    "calibrate": "Search the sampler settings of augment/{name}.",
    "augment": "Fill up the rare groups of {name} with guided samples, and publish the balanced set.",
    "downstream": "Compare training recipes on the latest published {name}.",
}


def _reader(choices: Choices) -> str:
    if choices.survey.tars is not None:
        return "image_tars"
    return "folder" if choices.label_column is None else "image_table"


def _images(choices: Choices) -> str:
    shares = "validation_fraction: 0.1, imbalance: null, seed: 0"
    split = (
        f"# {choices.test_fraction:.0%} of each class test; nothing is thinned out.\n"
        f"split: {{test_fraction: {choices.test_fraction:g}, {shares}}}"
    )
    if choices.split_column is not None or choices.survey.has_test_folder:
        split = (
            "# The makers' parts; where they gave no validation part, it is taken from the training part.\n"
            f"split: {{{shares}}}"
        )
    tars = choices.survey.tars
    if tars is not None:
        lines = [
            "reader: image_tars",
            f"folder: {_text(str(tars.folder.resolve()))}",
            "# Side in pixels of the central square that images are cut and resized to.",
            f"image_size: {choices.image_size}",
            "tars:",
            f"  name: {_text(choices.name)}",
            f"  pattern: {_text(tars.pattern)}",
            "  # Which member of a sample tells its class, by a number (cls) or by a word.",
            f"  label_extension: {_text(tars.label_extension)}",
            f"  channels: {1 if choices.survey.grey else 3}",
            "  # In the order of their numbers; better names may be given.",
            f"  classes: [{', '.join(_text(name) for name in tars.class_names)}]",
            split,
        ]
        return "\n".join(lines) + "\n"
    if choices.label_column is None:
        lines = [
            "reader: folder",
            f"folder: {_text(str(choices.survey.images.resolve()))}",
            "# Side in pixels of the central square that images are cut and resized to.",
            f"image_size: {choices.image_size}",
            split,
        ]
        return "\n".join(lines) + "\n"
    root, images, table = beside(choices.survey)
    assert choices.survey.image_column is not None, "checked when it was asked for"
    image_column, ending = choices.survey.image_column
    numbered = whole_numbers(choices.class_counts) is not None
    classes = in_class_order(choices.class_counts) if numbered else list(choices.class_counts)
    lines = [
        "reader: image_table",
        f"folder: {_text(str(root))}",
        "# Side in pixels of the central square that images are cut and resized to.",
        f"image_size: {choices.image_size}",
        "table:",
        f"  name: {_text(choices.name)}",
        f"  images: {_text(images)}",
        f"  table: {_text(table)}",
        f"  image_column: {_text(image_column)}",
        *([f"  image_suffix: {_text(ending)}"] if ending else []),
        f"  label_column: {_text(choices.label_column)}",
        f"  # {'In their order' if numbered else 'The commonest first'}. A row of another class is left out, and told.",
        f"  classes: [{', '.join(_text(name) for name in classes)}]",
    ]
    if choices.groups:
        lines += ["  # A group is a class with these; its quota is filled by itself.", "  groups:"]
        lines += [f"    - {_group(column, edges)}" for column, edges in choices.groups.items()]
    if choices.identity_column is not None:
        lines += [
            "  # All images of one of these stay in one part.",
            f"  identity_column: {_text(choices.identity_column)}",
        ]
    if choices.split_column is not None:
        lines.append(f"  split_column: {_text(choices.split_column)}")
    return "\n".join([*lines, split]) + "\n"


def _group(column: str, edges: tuple[float, ...] | None) -> str:
    if edges is None:
        return _text(column)
    return f"{{column: {_text(column)}, edges: [{', '.join(f'{edge:g}' for edge in edges)}]}}"


def _training(choices: Choices, *, on_gpu: bool) -> str:
    side = choices.image_size
    widths = _widths(side, on_gpu=on_gpu)
    deep = len(widths)
    attention = min(2, deep - 1)
    down = ["DownBlock2D"] * (deep - attention) + ["AttnDownBlock2D"] * attention
    up = ["AttnUpBlock2D"] * attention + ["UpBlock2D"] * (deep - attention)
    steps, batch = _steps(side, on_gpu=on_gpu)
    few = choices.survey.num_images < 20000
    augmentation = "{rotation: 5, translation: 0.04, scaling: 0.06, shear: 0.04}" if few else "null"
    return f"""
dataset: *images
architecture:
  # {side} pixels, {"a GPU" if on_gpu else "a machine without a GPU: small, for a first try"}.
  block_out_channels: [{", ".join(map(str, widths))}]
  layers_per_block: {2 if on_gpu else 1}
  down_block_types: [{", ".join(down)}]
  up_block_types: [{", ".join(up)}]
  {"attention_head_dim: 32" if on_gpu else "attention_head_dim: 16"}
  dropout: 0.1
schedule: cosine
training:
  # More steps learn more, until the backbone knows its images by heart; the model card tells.
  steps: {steps}
  batch_size: {batch}
  learning_rate: {"0.0002" if on_gpu else "0.001"}
  ema_decay: {"0.9999" if on_gpu else "0.998"}
  checkpoint_every: {5000 if on_gpu else 500}
  # From 64 pixels on velocity teaches the mean colour better than noise.
  prediction: {"v_prediction" if side >= 64 else "epsilon"}
  # {"Few images: moved a little, so that they are not learnt by heart." if few else "Many images: as they are."}
  augmentation: {augmentation}
# Images for bits/dim in the model card; each costs 250 evaluations.
quality: {{bits_images: {1000 if on_gpu else 50}}}
out: models/{choices.name}
"""


def _sampler(*, on_gpu: bool) -> str:
    return f"""\
sampler:
  # A gentle start: small backbones of photographs bear no more. minority calibrate searches for yours.
  steps: 50
  self_guidance: {{scale: 1.0, interval: 5, perturbation: 0.5, above: 0.3, jacobian: false}}
  batch_size: {256 if on_gpu else 64}
"""


def _filtering(choices: Choices) -> str:
    features = (
        ""
        if choices.image_size <= 32
        else (
            "# Pixels say little about pictures of this size: they are compared in the backbone's bottleneck.\n"
            "features: {kind: backbone, batch_size: 64}\n"
        )
    )
    mirrored = "true" if choices.mirrored else "false"
    return f"""\
{features}# A mirrored image {"is as good an example of its class" if choices.mirrored else "may mean something else"}.
labeller: {{flip: {mirrored}}}
selection: {{diverse: true}}
"""


def _augmentation(choices: Choices, backbone: str, *, on_gpu: bool) -> str:
    scores = (
        "# The tighter bound where the backbone does not learn its variance.\nscores: {variance: fixed_large}\n"
        if on_gpu
        else (
            "# The tighter bound where the backbone does not learn its variance; without a GPU a random sample of\n"
            "# the real images says how rare they are.\n"
            "scores: {variance: fixed_large, real_images: 1000}\n"
        )
    )
    return f"""
dataset: *images
backbone: {{path: {_text(backbone)}}}
{_sampler(on_gpu=on_gpu)}\
{scores}\
{_filtering(choices)}\
plan:
  # Images a group, real and synthetic together.
  quota: {choices.quota}
  # Share of the candidates that is kept, a guess: a round that keeps less is followed by another.
  expected_yield: 0.1
  candidates_per_image: 12
  # A first round of one candidate an image that is wanted; where nothing of it is kept, the run ends there and says so.
  pilot: true
  unit_size: {512 if on_gpu else 64}
# Recipes that are compared at the end of the run; downstream/{choices.name} compares all of them.
downstream:
  arms: [real, oversampling, randaugment, dfr, real+plain, real+minority]
  seeds: 3
  budget: {{network: {{width: 16}}, trials: 2, tuning_seeds: 1}}
store: *store
"""


def _calibration(choices: Choices, backbone: str, *, on_gpu: bool) -> str:
    return f"""
dataset: *images
backbone: {{path: {_text(backbone)}}}
{_sampler(on_gpu=on_gpu)}\
{_filtering(choices)}\
# Denoiser evaluations in all.
calibration: {{budget: {2000000 if on_gpu else 300000}}}
unit_size: {512 if on_gpu else 64}
store: *store
"""


def _comparison(choices: Choices, *, on_gpu: bool) -> str:
    return f"""
downstream:
  budget:
    network: {{width: {32 if on_gpu else 16}}}
    jitter: {{shift: 0.06, flip: {"true" if choices.mirrored else "false"}}}
store: *store
"""


def _widths(side: int, *, on_gpu: bool) -> list[int]:
    if side <= 16:
        return [64, 128] if on_gpu else [32, 64]
    if side <= 32:
        return [128, 256, 256, 256] if on_gpu else [16, 32, 64, 96]
    if side <= 64:
        return [96, 192, 288, 384] if on_gpu else [8, 16, 32, 64, 96]
    wide = [64, 128, 192, 256, 384] if on_gpu else [8, 16, 24, 32, 64, 96]
    return wide if side <= 128 else [wide[0], *wide]


def _steps(side: int, *, on_gpu: bool) -> tuple[int, int]:
    """Training steps and images a step."""
    if on_gpu:
        return (20000, 128) if side <= 32 else (60000, 64 if side <= 64 else 32)
    return (2400, 64) if side <= 16 else (3000, 32) if side <= 32 else (6000, 16)


def _text(value: str) -> str:
    """A text as YAML writes it in quotes, whatever it looks like: JSON's strings are YAML's."""
    return json.dumps(value, ensure_ascii=False)
