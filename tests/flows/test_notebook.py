"""Flows are called in a notebook's cells, where an event loop runs already."""

import asyncio

import pytest

from flows.augment import augment
from flows.downstream import downstream
from flows.train_backbone import train_backbone
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig, DownstreamConfig, TrainBackboneConfig

pytestmark = pytest.mark.system


def test_flows_run_while_an_event_loop_runs(prefect_api, tiny_overrides, tmp_path):
    out, store = tmp_path / "backbone", {"store": str(tmp_path / "store")}
    tiny = {
        "architecture.block_out_channels": [8, 8],
        "architecture.norm_num_groups": 4,
        "architecture.attention_head_dim": 8,
        "training.steps": 2,
        "training.batch_size": 8,
        "quality": None,
        "out": str(out),
    }
    budget = {name: tiny_overrides[name] for name in ("downstream.seeds", "downstream.budget")}
    training = load_preset(TrainBackboneConfig, "digits", overrides=tiny)
    order = load_preset(AugmentConfig, "digits", overrides=tiny_overrides | store | {"downstream": None})
    comparison = load_preset(DownstreamConfig, "digits", overrides=store | budget | {"downstream.arms": ["real"]})

    async def cells():
        trained = train_backbone(training)
        return trained, augment(order), downstream(comparison)

    trained, published, compared = asyncio.run(cells())

    assert trained == str(out)
    assert "Not evaluated: the evaluation was switched off." in (out / "README.md").read_text()
    assert not (out / "quality.json").exists()
    assert compared.manifest == published.manifest
    assert [row["recipe"] for row in compared.arms] == ["real only"]
