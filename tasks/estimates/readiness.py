"""Whether the presets of one name can run here: looked at in seconds, before anything is trained or drawn."""

from datasets.runs.latest import read_latest
from datasets.storage.store import Store
from tasks.backbone.network import build_network
from tasks.backbone.train import check_data
from tasks.commands.doctor import problems_of
from tasks.config.paths import project_path
from tasks.config.preset_files import list_presets, options
from tasks.config.presets import load_preset, training_of
from tasks.config.runs import AugmentConfig, CalibrateConfig, DownstreamConfig, TrainBackboneConfig
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data


def examine_presets(name: str) -> list[str]:
    """What the presets of one name lack, a line each, in the order in which they are run.

    A preset that only waits for the one before it (a backbone that is not trained yet, a run that is not published
    yet) lacks nothing; what has to be mended begins with MISSING.

    Raises:
        InputError: There is no preset of that name, or a file of presets is wrong.
    """
    listed = {flow: text for flow, preset, text in list_presets() if preset == name}
    if not listed:
        raise InputError(
            f"there is no preset {name}; {options(name, sorted({known for _, known, _ in list_presets()}))}."
        )
    examine = {"backbone": _backbone, "calibrate": _calibration, "augment": _augmentation, "downstream": _downstream}
    findings = []
    for flow, function in examine.items():
        if flow in listed:
            try:
                findings.append(f"ok {flow}/{name}: {function(name)}")
            except (InputError, OSError, ValueError) as error:
                findings.append(f"MISSING {flow}/{name}: {error}")
    if "backbone" in listed and "augment" not in listed:
        findings.append(f"note augment/{name}: there is none. {listed['backbone']}")
    return findings


def _backbone(name: str) -> str:
    config = load_preset(TrainBackboneConfig, name)
    real = load_real_data(config.dataset)
    check_data(config, real)
    if config.text is None:
        network, _ = build_network(config, real)
        size = f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters"
    else:  # its networks are built when it is trained
        size = "a text-to-image model"
    out = project_path(config.out)
    if (out / "model_index.json").is_file():
        return f"trained already, {out}; {size}"
    if out.exists():
        raise InputError(f"out: {out} exists and is no backbone; name another folder.")
    return f"ready to be trained; {size}, {len(real.train)} training images"


def _calibration(name: str) -> str:
    return _waits(load_preset(CalibrateConfig, name).augment()) or "ready"


def _augmentation(name: str) -> str:
    return _waits(load_preset(AugmentConfig, name)) or "ready"


def _waits(config: AugmentConfig) -> str | None:
    """What an augmentation waits for, or None where it can begin.

    Raises:
        InputError: Something else is missing, all of it in a line.
    """
    path, command = config.backbone.path, training_of(config.backbone.path)
    if not project_path(path).exists() and command is not None:
        problems = problems_of(config, with_backbone=False)
        waits = f"waits for its backbone {path}: {command}"
    else:
        problems, waits = problems_of(config), None
    if problems:
        raise InputError(" Also: ".join(problems))
    return waits


def _downstream(name: str) -> str:
    config = load_preset(DownstreamConfig, name)
    if config.manifest is None and read_latest(Store(config.store), config.name) is None:
        return f"waits for a published run of {name}: minority augment {name}"
    return "ready"
