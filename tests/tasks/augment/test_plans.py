import numpy as np
import pytest

from tasks.augment.candidates import Candidates
from tasks.augment.planning import plan_baseline, plan_real, plan_round, quotas
from tasks.augment.plans import load_or_create_plan, open_plan, run_plans
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace


@pytest.fixture
def run(tiny_config):
    """The workspace, run store, first round and baseline of a tiny run."""
    workspace = open_workspace(tiny_config())
    config, store = workspace.config.plan, open_run_store(workspace.run)
    wanted = quotas(workspace.real, config)
    tallies = Candidates(workspace, store).tallies()
    first = plan_round(config, tallies, round_number=0, first_index=0, wanted=wanted)
    return workspace, store, first, plan_baseline(config, first, wanted)


def test_a_task_finds_in_the_store_the_plan_that_the_flow_made(run):
    workspace, store, first, baseline = run
    real = plan_real(workspace.config.plan, workspace.real)
    for plan in (real, first, baseline):
        load_or_create_plan(plan, store)

        found = open_plan(plan.name, workspace.run, store)

        assert list(found) == list(plan)
        assert found.sampler == plan.sampler
    assert [plan.name for plan in run_plans(workspace.run, store, rounds=1)] == ["real-00", "minority-00", "plain-00"]


def test_the_plan_that_lies_in_the_store_stands(run):
    _, store, first, _ = run
    load_or_create_plan(first, store)
    other = type(first)(**{**first.__dict__, "indices": first.indices + 1})

    np.testing.assert_array_equal(load_or_create_plan(other, store).indices, first.indices)


def test_a_plan_that_is_missing_is_named(run):
    workspace, store, *_ = run

    with pytest.raises(ValueError, match=r"has no sound plan minority-07; run the same command again"):
        open_plan("minority-07", workspace.run, store)
