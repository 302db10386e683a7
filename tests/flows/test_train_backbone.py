"""`minority train-backbone` as an operator runs it: killed with kill -9 and started again, until it is done."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tasks.backbone.progress_folder import EVALUATIONS, LOSSES

pytestmark = pytest.mark.system

STEPS = 60
TINY = {
    "architecture.block_out_channels": [8, 8],
    "architecture.norm_num_groups": 4,
    "architecture.attention_head_dim": 8,
    "architecture.layers_per_block": 1,
    "training.steps": STEPS,
    "training.batch_size": 8,
    "training.checkpoint_every": 20,
    "training.average_lengths": [0.1],
    "quality.features.classifier.steps": 2,
    "quality.samples": 20,
    "quality.sampling_steps": 2,
    "quality.bits_images": 4,
    "quality.bits_steps": 4,
    "watch": {"every": 30, "samples": 10, "sampling_steps": 2, "bits_images": 2, "bits_steps": 2},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def command(as_options):
    """`minority train-backbone digits` at tiny size, into a folder."""
    return lambda out: ["train-backbone", "digits", *as_options(TINY | {"out": str(out)})]


@pytest.fixture(scope="module")
def whole(minority, command, tmp_path_factory):
    """The backbone of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "digits"
    finished = minority(*command(out))
    assert finished.code == 0, finished.stderr
    return out


def losses(out):
    """What the run has told of its losses so far."""
    file = out.with_name(f"{out.name}.progress") / LOSSES
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def kill_when(holds, pid):
    """Kill -9 the run as soon as something holds."""
    while not holds():
        assert Path("/proc", str(pid), "exe").exists(), "the run ended before it could be killed"
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)


def left_behind(out):
    """Path beside `out` -> bytes of all that a run leaves; where it lies is taken out of the texts."""
    files = [path for path in out.parent.rglob("*") if path.is_file()]
    return {str(path.relative_to(out.parent)): path.read_bytes().replace(str(out).encode(), b"OUT") for path in files}


def test_killed_and_started_again_it_goes_on_from_its_checkpoint_to_the_same_weights_and_losses(
    minority, command, whole, tmp_path
):
    torn = tmp_path / "digits"
    kill_when(lambda: len(losses(torn)) >= 30, minority.start(*command(torn)))
    killed = minority.finish()
    reached = torch.load(tmp_path / "digits.checkpoint.pt", weights_only=True)["step"]
    # A step that is trained again is told again, in the place of what was told before.
    marked = [line | {"told": "before the death"} for line in losses(torn)]
    file = tmp_path / "digits.progress" / LOSSES
    file.write_text("".join(json.dumps(line) + "\n" for line in marked))

    resumed = minority(*command(torn))

    assert killed.code == -signal.SIGKILL
    assert (resumed.code, resumed.stdout.strip().splitlines()[-1]) == (0, f"backbone: {torn}")
    assert reached in (20, 40)
    assert [line["step"] for line in losses(torn) if "told" in line] == list(range(1, reached + 1))
    file.write_text(file.read_text().replace(', "told": "before the death"', ""))
    assert [line["step"] for line in losses(torn)] == list(range(1, STEPS + 1))
    assert left_behind(torn) == left_behind(whole)


def test_a_finished_run_leaves_weights_card_losses_and_looks_and_no_checkpoint(whole):
    assert set(left_behind(whole)) == {
        "digits/README.md",
        "digits/minority.json",
        "digits/model_index.json",
        "digits/quality.json",
        "digits/scheduler/scheduler_config.json",
        "digits/unet/config.json",
        "digits/unet/diffusion_pytorch_model.safetensors",
        "digits.averages/0.1/README.md",
        "digits.averages/0.1/minority.json",
        "digits.averages/0.1/model_index.json",
        "digits.averages/0.1/scheduler/scheduler_config.json",
        "digits.averages/0.1/unet/config.json",
        "digits.averages/0.1/unet/diffusion_pytorch_model.safetensors",
        f"digits.progress/{EVALUATIONS}",
        f"digits.progress/{LOSSES}",
        "digits.progress/samples-00000030.png",
        "digits.progress/samples-00000060.png",
    }


@pytest.mark.slow  # five runs
def test_it_may_be_killed_before_the_first_checkpoint_between_two_and_while_it_is_evaluated(
    minority, command, whole, tmp_path
):
    torn, checkpoint = tmp_path / "digits", tmp_path / "digits.checkpoint.pt"
    deaths = [
        (lambda: len(losses(torn)) >= 1, {None}),
        (lambda: len(losses(torn)) >= 25, {20, 40}),
        (lambda: len(losses(torn)) >= 45, {40, 60}),
        (lambda: (torn / "unet").exists(), {60}),  # trained, and not evaluated yet
    ]

    for holds, steps in deaths:
        kill_when(holds, minority.start(*command(torn)))
        assert minority.finish().code == -signal.SIGKILL
        assert (torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else None) in steps
    finished = minority(*command(torn))

    assert finished.code == 0, finished.stderr
    assert left_behind(torn) == left_behind(whole)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "a shard is missing"])
def test_it_trains_on_what_augment_published_or_says_in_one_line_what_is_missing(
    minority, command, as_options, undisturbed, tmp_path, is_whole
):
    run = shutil.copytree(undisturbed.folder, tmp_path / "run")
    shard = run / "shards" / "digits-000000.tar"
    if not is_whole:
        shard.unlink()
    split = {"imbalance": None, "test_fraction": 0.3, "validation_fraction": 0.3}
    source = {"dataset": {"reader": "published", "folder": f"{run}/manifest.json", "split": split}}

    finished = minority(*command(tmp_path / "digits"), *as_options(source))

    assert (tmp_path / "digits" / "unet").exists() is is_whole
    if is_whole:
        assert finished.code == 0, finished.stderr
        assert f"{run}/manifest.json" in (tmp_path / "digits" / "README.md").read_text()
    else:
        assert finished.code == 2
        assert finished.stderr == f"error: {shard} does not exist; check the path.\n"
