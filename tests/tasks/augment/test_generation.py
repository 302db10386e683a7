import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.runs.records import METADATA_SCHEMA, OPTIONAL_SCHEMA
from datasets.runs.units import read_unit
from tasks.augment.candidates import Candidates, choose_candidates, read_rows
from tasks.augment.evaluating import evaluate_images
from tasks.augment.planning import plan_baseline, plan_real, plan_round, quotas, tally
from tasks.augment.units import is_done, make_unit
from tasks.inputs.run_store import open_run_store, published_config
from tasks.inputs.workspace import open_workspace

#: Filled where a discriminator evaluates.
DISCRIMINATOR = {"p_real", "label_probability", "label_margin"}
DISCRIMINATOR |= {f"{name}_quantile" for name in DISCRIMINATOR}
#: Filled in when images are published.
LATER = {"near_duplicate_group", "shard"}
SCORES = ("minority_score", "negative_elbo", "knn_distance", "nearest_distance", "realism")


def first_round(workspace):
    """The plan of the first round, and the synthetic images wanted for every group."""
    config, groups = workspace.config, workspace.real.groups
    wanted = quotas(workspace.real, config.plan)
    nothing = tally(wanted, {"group": [], "kept": [], "passed": []}, groups)
    units = plan_round(
        config.plan, nothing, round_number=0, first_index=0, wanted=wanted, particle_group=config.sampler.particle_group
    )
    return units, wanted


@pytest.fixture
def run(tiny_config):
    """The workspace, run store, plans of candidates, baseline and real images of a tiny run."""
    workspace = open_workspace(tiny_config())
    config, real = workspace.config.plan, workspace.real
    units, wanted = first_round(workspace)
    store = open_run_store(workspace.run)
    return workspace, store, units, plan_baseline(config, units, wanted), plan_real(config, real)


def files_of(store, unit):
    return {path: store.read(path) for path in store.list("units") if path.startswith(f"units/{unit}.")}


def test_a_unit_made_twice_has_the_same_bytes(run, tiny_config, tmp_path):
    workspace, store, (plan, *_), *_ = run
    make_unit(plan, workspace, store)
    first = files_of(store, plan.unit)
    again = open_workspace(tiny_config(store=str(tmp_path / "again")))

    make_unit(plan, again, open_run_store(again.run))

    assert files_of(open_run_store(again.run), plan.unit) == first
    assert len(first) == 3


def test_a_finished_unit_is_left_alone(run):
    workspace, store, (plan, *_), *_ = run
    make_unit(plan, workspace, store)
    tar = Path(store.url(f"units/{plan.unit}.tar"))
    before = (tar.stat().st_ino, tar.stat().st_mtime_ns)

    make_unit(plan, workspace, store)

    assert (tar.stat().st_ino, tar.stat().st_mtime_ns) == before
    assert is_done(plan, store, recipe=workspace.recipe)
    assert not is_done(plan, store, recipe="another")


@pytest.mark.parametrize("ending", ["json", "tar", "parquet"])
def test_a_torn_unit_is_made_again(run, ending):
    workspace, store, (plan, *_), *_ = run
    make_unit(plan, workspace, store)
    whole = files_of(store, plan.unit)
    file = Path(store.url(f"units/{plan.unit}.{ending}"))
    file.write_bytes(file.read_bytes()[:-7])

    assert not is_done(plan, store, recipe=workspace.recipe)
    make_unit(plan, workspace, store)

    assert files_of(store, plan.unit) == whole


def test_a_candidate_has_every_column_but_its_shard(run):
    workspace, store, (plan, *_), *_ = run
    make_unit(plan, workspace, store)

    _, rows = read_unit(store, plan.unit)

    synthetic = set(METADATA_SCHEMA.names) - LATER - {"source_id"} - DISCRIMINATOR
    empty = {name for name in synthetic if rows[name].null_count}
    # Nothing was edited or drawn by a prompt here, and the backbone's label tells the group.
    assert empty == {"edited_source_id", "edited_fraction", "labeller_confidence", "prompt"}
    assert rows["sample_index"].to_pylist() == list(plan.indices)
    assert rows["label"].to_pylist() == [workspace.real.group_labels[group] for group in plan.groups]
    assert all(np.isfinite(rows[name].to_numpy()).all() for name in SCORES)


def test_baseline_and_candidates_of_one_index_start_from_the_same_noise_but_end_apart(run):
    workspace, store, units, baseline, _ = run
    for plan in (units[0], baseline[0]):
        make_unit(plan, workspace, store)

    guided, guided_rows = read_unit(store, units[0].unit)
    plain, plain_rows = read_unit(store, baseline[0].unit)

    index = plain_rows["sample_index"][0].as_py()
    position = guided_rows["sample_index"].to_pylist().index(index)
    assert not np.array_equal(plain[0], guided[position])
    assert "scale" in guided_rows["guidance"][position].as_py()
    assert set(plain_rows["reason"].to_pylist()) == {"baseline"}
    # Guidance costs evaluations; plain sampling costs one a step.
    assert plain_rows["evaluations"][0].as_py() == 4
    assert guided_rows["evaluations"][position].as_py() > 4


def test_real_images_are_scored_and_keep_their_pixels(run):
    workspace, store, *_, real_units = run
    make_unit(real_units[1], workspace, store)

    images, rows = read_unit(store, real_units[1].unit)

    np.testing.assert_array_equal(images, workspace.train_images[list(real_units[1].indices)])
    assert all(np.isfinite(rows[name].to_numpy()).all() for name in SCORES)
    assert rows["rare"].null_count == rows.num_rows  # no verdicts: the filters are for candidates
    assert all(own != other for own, other in zip(rows["source_id"], rows["nearest_source_id"], strict=True))


def test_published_settings_name_no_place_of_this_machine(tiny_config, tmp_path):
    assert str(tmp_path / "store") not in str(published_config(tiny_config()))


def test_where_the_backbone_takes_no_label_groups_are_recognised(tiny_config, tiny_celeba, make_backbone, tmp_path):
    backbone = make_backbone(tmp_path / "faces", channels=3, num_classes=None)
    config = tiny_config(
        name="celeba",
        dataset={"reader": "celeba", "folder": str(tiny_celeba), "image_size": 8},
        backbone__path=backbone,
        labeller__steps=5,
        selection__label_floor=0.3,
        plan__quota=8,
    )
    workspace = open_workspace(config)
    store = open_run_store(workspace.run)
    real = workspace.real
    (plan, *_), _ = first_round(workspace)

    make_unit(plan, workspace, store)

    images, rows = read_unit(store, plan.unit)
    groups, confidence = workspace.labeller.label(images)
    assert rows["group"].to_pylist() == [real.groups[group] for group in groups]
    assert rows["label"].to_pylist() == [real.group_labels[group] for group in groups]
    np.testing.assert_array_equal(rows["label_kept"].to_numpy(), confidence >= 0.3)
    np.testing.assert_allclose(rows["labeller_confidence"].to_numpy(), confidence, rtol=1e-6)
    agreement = workspace.candidate_filter.evaluate(workspace.extract(images), rows["label"].to_numpy()).label_agreement
    np.testing.assert_allclose(rows["label_agreement"].to_numpy(), agreement, rtol=1e-6)


@pytest.mark.parametrize("weight_by", ["features", "metric"])
def test_pruned_chains_say_whom_they_descend_from_and_cost_no_second_drawing(tiny_config, weight_by):
    config = tiny_config(
        sampler={"steps": 6, "prune_and_branch": {"particle_group": 3, "keep": 1, "weight_by": weight_by, "draws": 1}},
        plan__unit_size=8,
    )
    workspace = open_workspace(config)
    store = open_run_store(workspace.run)
    units, wanted = first_round(workspace)
    (plain, *_) = plan_baseline(config.plan, units, wanted)

    make_unit(units[0], workspace, store)
    make_unit(plain, workspace, store)

    rows = read_unit(store, units[0].unit)[1].to_pandas()
    plain_rows = read_unit(store, plain.unit)[1].to_pandas()
    assert len(rows) == 9
    assert (rows["root_ancestor"] // 3 == rows["sample_index"] // 3).all()
    assert (rows.groupby("root_ancestor").size() <= 2).all()
    assert (rows["root_ancestor"] != rows["sample_index"]).sum() == 3
    assert (rows.groupby(rows["sample_index"] // 3)["label"].nunique() == 1).all()
    # The metric asks the network once more of every chain; the features do not.
    assert rows["evaluations"].eq(6 if weight_by == "features" else 7).all()
    assert (plain_rows["root_ancestor"] == plain_rows["sample_index"]).all()


def test_a_moved_store_still_holds_its_units(run, tiny_config, tmp_path):
    workspace, store, (plan, *_), *_ = run
    make_unit(plan, workspace, store)

    shutil.move(tmp_path / "store", tmp_path / "moved")

    moved = open_workspace(tiny_config(store=str(tmp_path / "moved")))
    assert is_done(plan, open_run_store(moved.run), recipe=moved.recipe)


def test_with_groups_finer_than_labels_discriminator_and_labeller_must_both_keep_the_label(
    tiny_config, tiny_celeba, make_backbone, tmp_path
):
    workspace = open_workspace(
        tiny_config(
            name="celeba",
            dataset={"reader": "celeba", "folder": str(tiny_celeba), "image_size": 8},
            backbone__path=make_backbone(tmp_path / "faces", channels=3, num_classes=2),
            labeller__steps=40,
            selection={"label_floor": 0.4, "held_out": {"discriminator": {"folds": 2, "classifier": {"steps": 40}}}},
        )
    )
    images, planned = workspace.train_images, workspace.real.train_groups
    asked = np.where(np.arange(len(images)) % 3 == 0, (planned + 2) % 4, planned)  # some under another label

    evaluated = evaluate_images(workspace, images, asked)

    recognised, confidence = workspace.labeller.label(images)
    labels = np.array(workspace.real.group_labels)
    discriminator = workspace.candidate_filter.evaluate(
        workspace.extract(images), labels[recognised], images=images
    ).label_kept
    labeller = (confidence >= 0.4) & (labels[recognised] == labels[asked])
    np.testing.assert_array_equal(evaluated.verdicts.label_kept, discriminator & labeller)
    assert (labeller & ~discriminator).any() or (discriminator & ~labeller).any()
    assert evaluated.verdicts.label_kept.any()


@pytest.mark.parametrize("policy", ["all", "clean", "moderate", "rare"])
def test_a_run_chooses_by_its_policy(tiny_config, policy):
    workspace = open_workspace(tiny_config(selection__policy=policy, selection__rare_quantile=0.98))
    store = open_run_store(workspace.run)
    units, wanted = first_round(workspace)
    made = [make_unit(plan, workspace, store) for plan in units]
    candidates = Candidates(workspace, store)

    candidates.add(units)

    rows = read_rows(store, units).to_pandas()
    good = rows["valid"] & rows["new"] & rows["label_kept"]
    let_through = {
        "all": rows["valid"] | True,
        "clean": good,
        "moderate": good & (rows["knn_distance_quantile"] > 0.5),
        "rare": good & rows["rare"],
    }[policy]
    quota = rows["group"].map(dict(zip(workspace.real.groups, wanted, strict=True)))
    expected = let_through & (let_through.groupby(rows["group"]).cumsum() <= quota)
    assert candidates.choose()["kept"].to_pylist() == expected.tolist()
    assert sum(work.passed for work in made) == let_through.sum()
    assert sum(tally.accepted for tally in candidates.tallies()) == let_through.sum()


def test_a_policy_is_part_of_the_recipe_and_the_usual_one_renames_no_run(tiny_config):
    usual, clean = (tiny_config(selection__policy=policy) for policy in ("rare", "clean"))

    assert usual.recipe(backbone_identity="a", real_digest="b") == tiny_config().recipe(
        backbone_identity="a", real_digest="b"
    )
    assert clean.recipe(backbone_identity="a", real_digest="b") != usual.recipe(backbone_identity="a", real_digest="b")


def test_the_zero_shot_classifier_judges_labels_where_it_is_asked(run, tiny_config, tmp_path):
    workspace, store, (plan, *_), _, (real_plan, *_) = run
    make_unit(plan, workspace, store)
    asked = open_workspace(
        tiny_config(store=str(tmp_path / "asked"), scores__zero_shot={"levels": 2}, selection__policy="recognised")
    )
    other = open_run_store(asked.run)
    for each in (plan, real_plan):
        make_unit(each, asked, other)

    images, rows = read_unit(other, plan.unit)
    _, real_rows = read_unit(other, real_plan.unit)
    plain_images, plain_rows = read_unit(store, plan.unit)

    np.testing.assert_array_equal(images, plain_images)
    assert plain_rows.column_names == METADATA_SCHEMA.names  # a run that does not ask has no column more
    assert rows.column_names == METADATA_SCHEMA.names + OPTIONAL_SCHEMA.names
    for table in (rows, real_rows):
        kept = (table["zero_shot_label"].to_numpy() == table["label"].to_numpy()).tolist()
        assert table["zero_shot_kept"].to_pylist() == kept
        assert all(0 <= value <= 1 for value in table["zero_shot_probability"].to_pylist())
    chosen = choose_candidates(rows, groups=asked.real.groups, wanted=[1000] * 10, policy="recognised")
    expected = np.logical_and(rows["new"].to_numpy(), rows["zero_shot_kept"].to_numpy())
    assert chosen["kept"].to_pylist() == expected.tolist()
    columns = (chosen[name].to_pylist() for name in ("reason", "new", "zero_shot_kept"))
    refused = [reason for reason, new, ok in zip(*columns, strict=True) if new and not ok]
    assert set(refused) == {"taken for another class by the backbone"}
