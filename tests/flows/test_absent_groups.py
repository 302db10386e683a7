"""From training on separate conditions to a published set with a combination that has no real image."""

from pathlib import Path

import numpy as np
import pytest
from minority.training.team import Alone

from flows.augment import augment
from tasks.backbone.train import candidate_filter, train_here
from tasks.config.runs import AugmentConfig, TrainBackboneConfig
from tasks.inputs.published_run import open_published
from tests.marked_set import make_marked_set

ABSENT = "shape=standing,colour=blue"


def is_blue(images):
    return images[..., 2].astype(int).sum(axis=(1, 2)) > images[..., 0].astype(int).sum(axis=(1, 2))


def is_standing(images):
    bright = images.astype(float).sum(axis=3)
    return bright.sum(axis=1).std(axis=1) > bright.sum(axis=2).std(axis=1)


@pytest.mark.slow
def test_a_combination_that_no_training_image_shows_is_composed_evaluated_and_published(tmp_path, prefect_api):
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
    train_here(training, team=Alone("cpu"), on_step=lambda step: None, on_look=lambda picture: None)
    card = candidate_filter(training).read_text()

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
    kept = rows[(rows["source"] == "synthetic") & rows["kept"]]
    assert set(kept["group"]) == {ABSENT}
    assert len(kept) >= 10
    images = run.images(kept["key"].tolist())
    # By pixels, which no evaluate looked at. Chance would be a quarter of all samples.
    right = is_blue(images) & is_standing(images)
    assert right.mean() > 0.7
    real = run.images(rows.loc[rows["source"] == "real", "key"].tolist())
    assert not (is_blue(real) & is_standing(real)).any()
    assert "Groups with few or no real images" in Path(summary.report).read_text(encoding="utf-8")
    assert "| label standing, colour blue |" in card
    assert np.isfinite(kept["labeller_confidence"]).all()
