import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from minority.backbones import load_backbone
from minority.evaluation.backbone_quality import bound_of
from minority.guidance.classifier_free import ClassifierFree
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, score_images
from minority.training import Progress
from minority.training.process_group import SingleProcess
from minority.training.watch import Evaluation
from tasks.backbone.progress_folder import EVALUATIONS, LOSSES, TrainingFolder
from tasks.backbone.train import train_here
from tasks.config.presets import load_preset
from tasks.config.runs import TrainBackboneConfig
from tasks.errors import InputError

TINY = {
    "architecture.block_out_channels": [8, 8],
    "architecture.norm_num_groups": 4,
    "architecture.attention_head_dim": 8,
    "architecture.dropout": 0.0,
    "training.steps": 6,
    "training.batch_size": 8,
    "training.checkpoint_every": 2,
    "quality.features.classifier.steps": 2,
    "device": "cpu",
}


def config_for(out, overrides=None):
    return load_preset(TrainBackboneConfig, "digits", overrides=TINY | {"out": str(out)} | (overrides or {}))


def ignore(_):
    pass


class Killed(BaseException):
    """Stands for a death in the middle of the run."""


def test_a_run_that_dies_and_goes_on_leaves_the_same_weights_lines_and_pictures(tmp_path):
    watch = {"watch": {"every": 3, "samples": 10, "sampling_steps": 2, "bits_images": 2, "bits_steps": 2}}

    def go(name, *, dies_at=None):
        def die(step):
            if step == dies_at:
                raise Killed

        train_here(config_for(tmp_path / name, watch), process_group=SingleProcess(), on_step=die, on_evaluation=ignore)

    go("whole")
    with pytest.raises(Killed):
        go("torn", dies_at=5)
    go("torn")

    whole, torn = tmp_path / "whole.progress", tmp_path / "torn.progress"
    names = sorted(path.name for path in whole.iterdir())
    assert names == [EVALUATIONS, LOSSES, "samples-00000003.png", "samples-00000006.png"]
    assert {name: (torn / name).read_bytes() for name in names} == {n: (whole / n).read_bytes() for n in names}
    assert load_backbone(tmp_path / "torn").sha256 == load_backbone(tmp_path / "whole").sha256
    looks = [json.loads(line) for line in (whole / EVALUATIONS).read_text().splitlines()]
    assert [look["step"] for look in looks] == [3, 6]
    assert all(np.isfinite([look["bits_per_dim"], look["frechet_distance"]]).all() for look in looks)


def test_a_backbone_trained_with_labels_left_out_learns_its_variance_and_can_be_guided_by_labels(tmp_path):
    options = {
        "training.label_dropout": 0.2,
        "training.variance": "learned_range",
        "training.average_lengths": [0.1],
        "training.channels_last": True,
    }
    train_here(
        config_for(tmp_path / "free", options), process_group=SingleProcess(), on_step=ignore, on_evaluation=ignore
    )

    for folder in (tmp_path / "free", tmp_path / "free.averages" / "0.1"):
        backbone = load_backbone(folder)
        settings = SamplerSettings(steps=2, classifier_free=ClassifierFree(scale=2.0))
        images, _ = draw_images(backbone, seed=0, indices=range(2), labels=[0, 1], settings=settings)
        assert backbone.num_classes == 10
        assert backbone.denoiser.unet.config.out_channels == 2
        likely = bound_of(backbone, images, np.array([0, 1]), steps=4, seed=0)
        scores = ScoreSettings(draws=1, elbo_steps=4, variance="learned_range")
        learned = score_images(backbone, images, seed=0, indices=range(2), labels=[0, 1], settings=scores)
        assert likely.tolist() == learned.negative_elbo.tolist()
        assert images.shape == (2, 8, 8, 1)


def test_a_backbone_that_predicts_velocity_is_loaded_as_one(tmp_path):
    options = {"training.prediction": "v_prediction", "training.steps": 150, "training.warmup": 10}
    train_here(
        config_for(tmp_path / "velocity", options), process_group=SingleProcess(), on_step=ignore, on_evaluation=ignore
    )

    denoiser = load_backbone(tmp_path / "velocity").denoiser
    assert denoiser.prediction_type == "v_prediction"
    x = torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    step = torch.full((4,), len(denoiser.sqrt_abar) - 1)
    # Where hardly anything but noise is left, the velocity is minus the image: it is read off, not divided out.
    with torch.no_grad():
        said = denoiser(x, step, torch.arange(4))
    torch.testing.assert_close(said.eps, x, atol=0.1, rtol=0)
    assert said.x0_hat.abs().max() < 2


def test_an_unconditional_backbone_takes_no_labels(tmp_path):
    train_here(
        config_for(tmp_path / "plain", {"conditional": False}),
        process_group=SingleProcess(),
        on_step=ignore,
        on_evaluation=ignore,
    )

    assert load_backbone(tmp_path / "plain").num_classes is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"processes": 3}, r"batch_size must be a multiple of training.accumulate x processes = 3, got 8"),
        ({"training.label_dropout": 0.1, "conditional": False}, "needs labels to leave out"),
        ({"watch": {"every": 0}}, "WatchSettings.every must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, overrides, message):
    with pytest.raises(InputError, match=message):
        config_for(tmp_path, overrides)


def test_one_setting_of_the_features_leaves_the_others_at_their_defaults(tmp_path):
    assert config_for(tmp_path).quality.features.kind == "classifier"


def test_what_is_told_again_takes_the_place_of_what_was_told_before(tmp_path):
    training_log = TrainingFolder(tmp_path / "run")
    for step, loss in ((1, 1.0), (2, 0.9), (3, 0.8), (2, 0.7)):
        training_log.add_losses(Progress(step, 3, loss, (float("nan"), 0.5)))

    assert [(line["step"], line["loss"]) for line in training_log.lines(LOSSES)] == [(1, 1.0), (2, 0.7)]
    assert training_log.lines(LOSSES)[0]["bucket_losses"] == [None, 0.5]


def test_a_picture_has_a_row_for_every_class_that_was_drawn(tmp_path):
    training_log = TrainingFolder(tmp_path / "run")
    samples = np.zeros((4, 8, 8, 1), np.uint8)

    sizes = []
    for step, labels in ((1, np.array([0, 0, 1, 2])), (2, np.array([0, 0, 0, 0]))):
        picture = training_log.add_evaluation(step, Evaluation(samples, labels, 3.0, 1.0), class_names=["a", "b", "c"])
        sizes.append(int.from_bytes(picture.read_bytes()[20:24], "big"))  # height, of the PNG's header

    assert sizes[0] - 2 == 3 * (sizes[1] - 2)


@pytest.mark.slow  # starts torch in three processes
def test_two_processes_train_as_one_does_up_to_rounding(tmp_path):
    from tasks.backbone.training_processes import train_in_processes

    one, two = config_for(tmp_path / "one"), config_for(tmp_path / "two", {"processes": 2})
    steps = []

    train_here(one, process_group=SingleProcess(), on_step=ignore, on_evaluation=ignore)
    train_in_processes(two, folder=tmp_path / "two.progress", on_step=steps.append, on_evaluation=ignore)

    losses = [TrainingFolder(tmp_path / f"{name}.progress").lines(LOSSES) for name in ("one", "two")]
    assert [line["step"] for line in losses[1]] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in losses[1]] == pytest.approx([line["loss"] for line in losses[0]], rel=1e-4)
    assert steps[-1] == 6
    parameters = [
        torch.cat([p.flatten() for p in load_backbone(tmp_path / name).denoiser.parameters()])
        for name in ("one", "two")
    ]
    # Adam turns a gradient near 0, of either sign by rounding, into a step of the full rate: warm-up keeps it small.
    torch.testing.assert_close(*parameters, rtol=0, atol=2e-4)


@pytest.mark.slow  # starts torch in three processes
def test_a_process_that_fails_says_why(tmp_path):
    from tasks.backbone.training_processes import train_in_processes
    from tasks.errors import RunIncompleteError

    (tmp_path / "two.checkpoint.pt").write_bytes(b"no checkpoint")

    with pytest.raises(RunIncompleteError, match=r"training in 2 processes ended with exit code 1"):
        train_in_processes(
            config_for(tmp_path / "two", {"processes": 2}),
            folder=tmp_path / "two.progress",
            on_step=ignore,
            on_evaluation=ignore,
        )
    assert "is not a readable training checkpoint" in (tmp_path / "two.progress" / "processes.log").read_text()


PARENT = """
import sys
from pathlib import Path
from tasks.config.runs import TrainBackboneConfig
from tasks.backbone.training_processes import train_in_processes
config = TrainBackboneConfig.model_validate_json(Path(sys.argv[1]).read_text())
train_in_processes(config, folder=Path(sys.argv[2]), on_step=print, on_evaluation=print)
"""


def processes_with(text):
    """Process ids and command lines of the processes that were started with some text in their command line."""
    found = {}
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in line:
                found[int(place.parent.name)] = line
    return found


def wait_until(holds, *, seconds=120):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.mark.slow  # starts torch in ten processes
@pytest.mark.parametrize("victim", ["the one that was started", "one of the two that train"])
def test_two_processes_killed_and_started_again_end_in_the_same_weights_and_losses(tmp_path, monkeypatch, victim):
    from tasks.backbone.training_processes import train_in_processes

    many = {"processes": 2, "training.steps": 60, "training.checkpoint_every": 20, "training.average_lengths": [0.1]}
    whole, torn = (config_for(tmp_path / name, many) for name in ("whole", "torn"))
    training_log = {name: TrainingFolder(tmp_path / f"{name}.progress") for name in ("whole", "torn")}
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the order to the processes lies, by which they are found
    train_in_processes(whole, folder=training_log["whole"].path, on_step=ignore, on_evaluation=ignore)
    (tmp_path / "config.json").write_text(torn.model_dump_json())
    command = [sys.executable, "-c", PARENT, str(tmp_path / "config.json"), str(training_log["torn"].path)]

    with subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL) as parent:
        wait_until(lambda: len(training_log["torn"].lines(LOSSES)) >= 30)
        process_group = [pid for pid, line in processes_with(str(tmp_path)).items() if "distributed" not in line]
        workers = [pid for pid in process_group if pid != parent.pid]
        os.kill(parent.pid if victim == "the one that was started" else max(workers), signal.SIGKILL)
        parent.wait(timeout=120)
    wait_until(lambda: not processes_with(str(tmp_path)))  # nobody goes on writing
    reached = torch.load(tmp_path / "torn.checkpoint.pt", weights_only=True)["step"]
    before = training_log["torn"].lines(LOSSES)
    train_in_processes(torn, folder=training_log["torn"].path, on_step=ignore, on_evaluation=ignore)

    assert len(workers) == 2
    assert parent.returncode == (-signal.SIGKILL if victim == "the one that was started" else 1)
    assert reached in (20, 40)
    assert len(before) < 60
    assert training_log["torn"].lines(LOSSES) == training_log["whole"].lines(LOSSES)
    assert [line["step"] for line in training_log["torn"].lines(LOSSES)] == list(range(1, 61))
    for name in ("{}", "{}.averages/0.1"):
        shas = [load_backbone(tmp_path / name.format(run)).sha256 for run in ("whole", "torn")]
        assert shas[0] == shas[1]
