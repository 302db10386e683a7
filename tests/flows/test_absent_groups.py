"""From training on separate conditions to a published set with a combination that has no real image."""

from pathlib import Path

import pytest

from flows.augment import augment
from minority.training.process_group import SingleProcess
from tasks.backbone.train import evaluate, train_here
from tasks.config.runs import AugmentConfig, TrainBackboneConfig
from tasks.inputs.published_run import open_published
from tests.marked_set import make_marked_set

pytestmark = pytest.mark.system

ABSENT = "shape=standing,colour=blue"


def is_blue(images):
    return images[..., 2].astype(int).sum(axis=(1, 2)) > images[..., 0].astype(int).sum(axis=(1, 2))


def is_standing(images):
    bright = images.astype(float).sum(axis=3)
    return bright.sum(axis=1).std(axis=1) > bright.sum(axis=2).std(axis=1)


@pytest.mark.slow
def test_a_combination_that_no_training_image_shows_is_drawn_and_the_gate_sees_what_is_there(tmp_path, prefect_api):
    dataset = make_marked_set(tmp_path / "set")
    training = TrainBackboneConfig(
        name="bars",
        dataset=dataset,
        conditions=("label", "colour"),
        out=str(tmp_path / "bars"),
        architecture={"block_out_channels": (16, 32), "dropout": 0.0},
        training={
            "steps": 400,
            "batch_size": 32,
            "label_dropout": 0.1,
            "prediction": "v_prediction",
            "augmentation": None,
            "learning_rate": 3e-3,
            "ema_decay": 0.98,
        },
        quality={
            "samples": 32,
            "sampling_steps": 10,
            "bits_images": 4,
            "bits_steps": 5,
            "features": {"kind": "pixels"},
        },
    )
    train_here(
        training, process_group=SingleProcess("cpu"), on_step=lambda step: None, on_evaluation=lambda picture: None
    )
    card = evaluate(training).read_text()

    summary = augment(
        AugmentConfig(
            name="bars",
            dataset=dataset,
            backbone={"path": str(tmp_path / "bars")},
            sampler={"steps": 20, "composed_conditions": {"joint": 2.0}},
            plan={"groups": "all", "unit_size": 64, "max_rounds": 2, "candidates_per_image": 4.0, "baseline": False},
            labeller={"steps": 60, "width": 8, "max_rotation": 0.0},
            store=str(tmp_path / "runs"),
        )
    )

    run = open_published(summary.manifest)
    rows = run.metadata
    drawn = rows[(rows["source"] == "synthetic") & (rows["group"] == ABSENT)]
    first, kept = drawn[drawn["round"] == 0], drawn[drawn["kept"]]
    images = run.images(first["key"].tolist())
    # By pixels, which no classifier was asked for: the gate sees what is there.
    assert abs(first["shows_attributes"].astype(float).mean() - is_blue(images).mean()) < 0.2
    assert abs(first["shows_label"].astype(float).mean() - is_standing(images).mean()) < 0.3
    is_open = min(first[name].astype(float).mean() for name in ("shows_attributes", "shows_label")) >= 0.5
    assert len(kept) == 0 or is_open
    assert len(kept) > 0 or not is_open
    page = Path(summary.report).read_text(encoding="utf-8")
    assert "Groups with few or no real images" in page
    assert (f"{ABSENT} is refused" in page) is not is_open
    assert "| label standing, colour blue |" in card
