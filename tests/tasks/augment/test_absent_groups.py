"""A run that also fills a combination without real images: what its units hold, and what the gate makes of them."""

import pandas as pd
import pytest
import torch

from datasets.runs.units import read_unit_rows
from minority.backbones import save_folder
from minority.diffusion.schedule import NoiseSchedule
from tasks.augment.candidates import Candidates
from tasks.augment.group_gate import REFUSED_GROUP
from tasks.augment.planning import plan_real, plan_round, quotas
from tasks.augment.plans import load_or_create_plan
from tasks.augment.publishing import publish_rounds
from tasks.augment.units import make_unit
from tasks.backbone.network import build_network
from tasks.config.runs import AugmentConfig, TrainBackboneConfig
from tasks.errors import InputError
from tasks.inputs.published_run import open_published
from tasks.inputs.real_data import load_real_data
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace
from tasks.report import render_report
from tasks.report.publish import _inputs
from tests.marked_set import make_marked_set

ABSENT = "shape=standing,colour=blue"
COUNTS = {("lying", "red"): 14, ("lying", "blue"): 14, ("standing", "red"): 14, ("standing", "blue"): 0}
ARCHITECTURE = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "attention_head_dim": 8,
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A set, and an untrained backbone that is told shape and colour."""
    folder = tmp_path_factory.mktemp("bars")
    dataset = make_marked_set(folder / "set", counts=COUNTS)
    training = {"label_dropout": 0.1}
    config = TrainBackboneConfig(
        name="bars",
        dataset=dataset,
        conditions=("label", "colour"),
        out=str(folder / "backbone"),
        architecture=ARCHITECTURE,
        training=training,
    )
    unet, told = build_network(config, load_real_data(config.dataset))
    save_folder(folder / "backbone", unet, schedule=NoiseSchedule.cosine(50), settings=told)
    return {
        "name": "bars",
        "dataset": dataset,
        "backbone": {"path": str(folder / "backbone")},
        "sampler": {"steps": 2},
        "scores": {"elbo_steps": 1, "draws": 1},
        "labeller": {"steps": 2, "width": 2},
    }


def open_run(settings, store, *, plan, **changes):
    plan = {"groups": "all", "quota": 16, "max_rounds": 1, "baseline": False} | plan
    return open_workspace(AugmentConfig(**(settings | {"plan": plan, "store": str(store)} | changes)))


def generate(workspace):
    """Every unit of the run, and its published table."""
    store, wanted = open_run_store(workspace.run), quotas(workspace.real, workspace.config.plan)
    candidates, rounds = Candidates(workspace, store), 0
    for unit in load_or_create_plan(plan_real(workspace.config.plan, workspace.real), store):
        make_unit(unit, workspace, store)
    while planned := plan_round(
        workspace.config.plan,
        candidates.tallies(),
        round_number=rounds,
        first_index=candidates.num_samples,
        wanted=wanted,
        sparse=workspace.sparse_groups,
    ):
        plan = load_or_create_plan(planned, store)
        for unit in plan:
            make_unit(unit, workspace, store)
        candidates.add(plan)
        rounds += 1
    publish_rounds(workspace, store, rounds=rounds)
    return store, candidates


def test_the_gate_refuses_a_group_and_nothing_of_it_is_published(settings, tmp_path):
    workspace = open_run(settings, tmp_path, plan={"gate": 1.0}, selection={"policy": "all"})

    store, candidates = generate(workspace)

    rows = pd.read_parquet(f"{store.root}/metadata.parquet")
    drawn = rows[rows["source"] == "synthetic"]
    absent = drawn[drawn["group"] == ABSENT]
    assert len(absent) >= 20
    (gate,) = candidates.gates()
    assert (gate.group, gate.real, gate.is_open) == (ABSENT, 0, False)
    assert gate.shows_attributes == pytest.approx(absent["shows_attributes"].astype(bool).mean())
    assert gate.shows_label == pytest.approx(absent["shows_label"].astype(bool).mean())
    assert not absent["kept"].any()
    assert set(absent["reason"]) == {REFUSED_GROUP}
    assert drawn.loc[drawn["group"] != ABSENT, "kept"].any()
    assert rows.loc[rows["source"] == "real", "shows_label"].isna().all()
    run = open_published(store.url("manifest.json"))
    page = render_report(_inputs(run, None, thresholds=workspace.thresholds, config={}, reproduce=[]))
    assert f"{ABSENT} is refused: of {len(absent)} samples" in page["report.html"].decode()
    assert f'"{ABSENT}"' in page["metrics.json"].decode()


def test_a_group_that_is_let_through_is_kept_where_it_shows_what_was_asked(settings, tmp_path):
    workspace = open_run(settings, tmp_path, plan={"gate": 0.0, "groups": [ABSENT]})

    store, candidates = generate(workspace)

    rows = pd.read_parquet(f"{store.root}/metadata.parquet")
    absent = rows[rows["source"] == "synthetic"]
    assert set(absent["group"]) == {ABSENT}
    assert candidates.gates()[0].is_open
    shown = absent["shows_label"].astype(bool) & absent["shows_attributes"].astype(bool)
    assert absent["label_kept"].astype(bool).tolist() == shown.tolist()
    assert absent["rare"].all()


def test_a_run_of_observed_groups_has_the_columns_that_it_always_had(settings, tmp_path, tiny_config):
    plain = open_workspace(tiny_config())
    plan = plan_real(plain.config.plan, plain.real)
    store = open_run_store(plain.run)
    load_or_create_plan(plan, store)
    make_unit(plan[0], plain, store)

    assert "shows_label" not in read_unit_rows(store, plan[0].unit).column_names
    assert plain.sparse_groups == []


def test_an_edit_moves_images_of_the_labels_other_groups_and_names_them(settings, tmp_path):
    workspace = open_run(
        settings, tmp_path, plan={"groups": [ABSENT], "gate": 0.0}, edit={"fraction": 0.4, "sources": "label"}
    )

    store, _ = generate(workspace)

    rows = pd.read_parquet(f"{store.root}/metadata.parquet")
    drawn = rows[rows["source"] == "synthetic"]
    train = workspace.real.train
    group_of = dict(zip(train.source_ids, train.groups, strict=True))
    assert {group_of[source] for source in drawn["edited_source_id"]} == {"shape=standing,colour=red"}
    assert drawn["edited_fraction"].to_numpy() == pytest.approx(0.4)
    assert drawn["edited_source_id"].nunique() > 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"plan": {"groups": "all"}}, "is told no attributes"),
        ({"plan": {"groups": "observed"}, "edit": {"sources": "label"}}, "edit.sources is label"),
    ],
)
def test_a_backbone_that_is_told_the_label_alone_is_refused(settings, tmp_path, changes, says):
    config = TrainBackboneConfig(
        name="bars", dataset=settings["dataset"], out=str(tmp_path / "plain"), architecture=ARCHITECTURE
    )
    unet, told = build_network(config, load_real_data(config.dataset))
    save_folder(tmp_path / "plain", unet, schedule=NoiseSchedule.cosine(50), settings=told)

    with pytest.raises(InputError, match=says):
        open_workspace(
            AugmentConfig(
                **(settings | {"backbone": {"path": str(tmp_path / "plain")}, "store": str(tmp_path)} | changes)
            )
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"conditions": ("colour", "label")}, "the label first"),
        ({"training": {"label_dropout": 0.0}}, "label_dropout above 0"),
        ({"conditional": False}, "conditional to true"),
    ],
)
def test_conditions_that_cannot_be_trained_are_refused_before_any_training(settings, changes, says):
    good = {"name": "bars", "dataset": settings["dataset"], "conditions": ("label", "colour"), "out": "somewhere"}

    with pytest.raises(ValueError, match=says):
        TrainBackboneConfig(**(good | {"training": {"label_dropout": 0.1}} | changes))


def test_an_attribute_that_the_set_has_not_is_refused_with_those_that_it_has(settings):
    config = TrainBackboneConfig(
        name="bars",
        dataset=settings["dataset"],
        conditions=("label", "size"),
        out="somewhere",
        training={"label_dropout": 0.1},
    )

    with pytest.raises(InputError, match=r"'size', of which the training images have 0 values; .* are colour"):
        build_network(config, load_real_data(config.dataset))


def test_the_network_in_training_has_one_table_a_condition(settings):
    config = TrainBackboneConfig(
        name="bars",
        dataset=settings["dataset"],
        conditions=("label", "colour"),
        out="somewhere",
        training={"label_dropout": 0.1},
        architecture=ARCHITECTURE,
    )

    unet, told = build_network(config, load_real_data(config.dataset))

    assert [table.num_embeddings for table in unet.class_embedding.tables] == [3, 3]
    assert told.factors.to_json()[1] == {"name": "colour", "values": ["blue", "red"]}
    assert torch.is_tensor(unet.class_embedding(torch.tensor([0, 8])))
