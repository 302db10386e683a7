"""Flows are called in a notebook's cell, where an event loop runs already."""

import asyncio

from flows.augment import augment
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig


def test_flows_run_while_an_event_loop_runs(prefect_api, tiny_overrides, tmp_path):
    store = {"store": str(tmp_path / "store")}
    order = load_preset(AugmentConfig, "digits", overrides=tiny_overrides | store)

    async def cell():
        return augment(order)

    summary = asyncio.run(cell())

    assert summary.manifest.startswith(str(tmp_path))
