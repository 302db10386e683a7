"""Variants of labelled training images as the candidates of a run."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from datasets.runs.units import read_unit_rows
from tasks.augment.drawing import draw_candidates
from tasks.augment.evaluating import evaluate_images
from tasks.augment.planning import UnitPlan, plan_real
from tasks.augment.rows import candidate_rows
from tasks.augment.units import make_unit
from tasks.config.sections import PlanConfig
from tasks.errors import InputError
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace


@pytest.fixture
def workspace(tiny_config):
    return open_workspace(tiny_config(edit__fraction=0.3))


def plan_of(workspace, *, sampler="minority", indices=range(20)):
    groups = tuple(index % len(workspace.real.groups) for index in indices)
    return UnitPlan(unit="a", sampler=sampler, round=0, indices=tuple(indices), groups=groups)


def draw(workspace, plan):
    labels = [workspace.real.group_labels[group] for group in plan.groups]
    return draw_candidates(plan, workspace, sampler=workspace.config.sampler, labels=labels)


def test_a_variant_has_the_label_of_its_source_and_names_it(workspace):
    plan = plan_of(workspace)

    images, rows = candidate_rows(plan, workspace)

    train, rows = workspace.real.train, rows.to_pandas()
    group_of = dict(zip(train.source_ids, train.groups, strict=True))
    assert rows["group"].tolist() == [group_of[source] for source in rows["edited_source_id"]]
    assert rows["edited_fraction"].to_numpy() == pytest.approx(0.3)
    assert rows["edited_source_id"].nunique() > 10
    # A third of the way up, an image is nearer to its own source than to another sample's.
    sources = workspace.train_images[[train.source_ids.index(source) for source in rows["edited_source_id"]]]
    apart = [np.abs(images.astype(float) - np.roll(sources, i, axis=0)).mean() for i in (0, 7)]
    assert apart[0] < apart[1]


def test_a_variant_is_a_function_of_seed_index_label_and_settings(workspace, tiny_config):
    whole = draw(workspace, plan_of(workspace))
    part = draw(workspace, plan_of(workspace, indices=range(7, 12)))
    others = {
        "seed": open_workspace(tiny_config(edit__fraction=0.3, seed=1)),
        "fraction": open_workspace(tiny_config(edit__fraction=0.6)),
        "source": open_workspace(tiny_config()),
    }

    np.testing.assert_array_equal(part.sources, whole.sources[7:12])
    np.testing.assert_array_equal(part.images, whole.images[7:12])
    assert part.evaluations == whole.evaluations
    for other in others.values():
        assert other.recipe != workspace.recipe
        assert not np.array_equal(draw(other, plan_of(other)).images, whole.images)
    assert draw(others["fraction"], plan_of(workspace)).evaluations > whole.evaluations


def test_the_baseline_still_comes_from_noise(workspace, tiny_config):
    plain = plan_of(workspace, sampler="plain")

    images, rows = candidate_rows(plain, workspace)

    assert "edited_source_id" not in rows.column_names
    np.testing.assert_array_equal(images, candidate_rows(plain, open_workspace(tiny_config()))[0])


def test_an_inherited_group_must_be_confirmed_by_the_labeller(tiny_config, make_backbone, tmp_path):
    unconditional = str(make_backbone(tmp_path / "unconditional", num_classes=None))
    workspace = open_workspace(
        tiny_config(edit__fraction=0.3, backbone__path=unconditional, selection__label_floor=0.2, labeller__steps=60)
    )
    # Scans of the training split, half of them under a group that they do not have.
    images, own = workspace.train_images[:40], workspace.real.train_groups[:40]
    planned = np.where(np.arange(40) < 20, own, (own + 1) % len(workspace.real.groups))

    evaluated = evaluate_images(workspace, images, planned, inherited=True)

    recognised, confidence = workspace.labeller.label(images)
    np.testing.assert_array_equal(evaluated.groups, planned)
    np.testing.assert_array_equal(evaluated.verdicts.label_kept, (recognised == planned) & (confidence >= 0.2))
    assert evaluated.verdicts.label_kept[:20].mean() > 0.5 > 0.2 > evaluated.verdicts.label_kept[20:].mean()
    np.testing.assert_array_equal(evaluate_images(workspace, images, planned).groups, recognised)


def test_images_of_other_groups_are_moved_into_the_group_that_is_wanted(tiny_config):
    workspace = open_workspace(tiny_config(edit__fraction=0.3, edit__sources="other_groups"))
    plan = plan_of(workspace, indices=range(40))

    images, rows = candidate_rows(plan, workspace)
    rows = rows.to_pandas()

    train = workspace.real.train
    group_of = dict(zip(train.source_ids, train.groups, strict=True))
    # The label is that of the group which was asked for, not that of the source.
    assert rows["group"].tolist() == [workspace.real.groups[group] for group in plan.groups]
    assert rows["label"].tolist() == [workspace.real.group_labels[group] for group in plan.groups]
    assert rows["edited_source_group"].tolist() == [group_of[source] for source in rows["edited_source_id"]]
    assert (rows["edited_source_group"] != rows["group"]).all()
    assert rows["edited_source_group"].nunique() > 5
    assert rows[["rare", "valid", "new", "label_kept"]].notna().all().all()
    own = open_workspace(tiny_config(edit__fraction=0.3))
    assert own.recipe != workspace.recipe
    assert not np.array_equal(candidate_rows(plan, own)[0], images)


def test_a_near_copy_of_its_own_source_is_not_new(tiny_config):
    workspace = open_workspace(tiny_config(edit__fraction=0.3, edit__sources="other_groups"))
    sources = workspace.train_images[:30]

    copies = evaluate_images(workspace, sources, (workspace.real.train_groups[:30] + 1) % 10, inherited=True)

    assert not copies.verdicts.new.any()
    assert not copies.verdicts.label_kept.all()


def test_units_of_a_run_that_moves_images_have_one_schema(tiny_config):
    workspace = open_workspace(tiny_config(edit__fraction=0.3, edit__sources="other_groups"))
    store = open_run_store(workspace.run)
    planned = [plan_of(workspace), plan_of(workspace, sampler="plain"), plan_real(PlanConfig(), workspace.real)[0]]

    for name, plan in zip("abc", planned, strict=True):
        make_unit(replace(plan, unit=name), workspace, store)
    rows = [read_unit_rows(store, name) for name in "abc"]

    assert rows[0].schema == rows[1].schema == rows[2].schema
    assert [table["edited_source_group"].null_count == len(table) for table in rows] == [False, True, True]
    assert "edited_source_group" not in candidate_rows(planned[0], open_workspace(tiny_config(edit={})))[1].column_names


def test_a_backbone_that_is_not_told_the_group_moves_no_images(tiny_config, make_backbone, tmp_path):
    unconditional = str(make_backbone(tmp_path / "unconditional", num_classes=None))

    with pytest.raises(InputError, match=r"edit.sources is other_groups, but backbone .* is not told the group"):
        open_workspace(tiny_config(edit__sources="other_groups", backbone__path=unconditional))
    with pytest.raises(InputError, match=r"edit.sources: Input should be .*'other_groups', got 'all'"):
        tiny_config(edit__sources="all")
    with pytest.raises(InputError, match=r"edit.masked is set, but the set has no masks; .*dataset.table.mask_column"):
        open_workspace(tiny_config(edit__masked=True))


def test_only_what_a_mask_marks_is_redrawn(tiny_config, tmp_path):
    folder = masked_set(tmp_path / "set")
    table = {"name": "bars", "table": "labels.csv", "image_column": "file", "label_column": "label", "images": "images"}
    dataset = {"reader": "image_table", "folder": str(folder), "table": table | {"mask_column": "mask"}}
    small = {"plan": {"quota": 4}, "edit": {"fraction": 0.9, "masked": True, "sources": "other_groups"}}
    workspace = open_workspace(tiny_config(dataset=dataset, name="bars", **small))
    plan = plan_of(workspace, indices=range(12))

    images, rows = candidate_rows(plan, workspace)

    train = workspace.real.train
    positions = [train.source_ids.index(source) for source in rows["edited_source_id"].to_pylist()]
    assert train.has_mask[positions].all()
    assert not train.has_mask.all()
    masks = np.stack([train.mask(position) for position in positions])
    sources = workspace.train_images[positions]
    np.testing.assert_array_equal(images[~masks], sources[~masks])
    assert (images[masks] != sources[masks]).mean() > 0.5
    unmasked = open_workspace(tiny_config(dataset=dataset | {"table": table}, name="bars", edit={"fraction": 0.9}))
    assert unmasked.real.digest != workspace.real.digest


def masked_set(folder):
    """Ten classes of 12 random images, most of them with a mask over the left half."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:, :4] = 255
    rows = ["file,label,mask"]
    for number in range(120):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        if number % 7:
            Image.fromarray(mask).save(folder / "images" / f"{number}-mask.png")
        rows.append(f"{number}.png,{number % 10},{f'{number}-mask.png' if number % 7 else ''}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_settings_that_want_another_start_are_refused(tiny_config):
    with pytest.raises(InputError, match=r"edit starts every sample from an image.*leave sampler.boost_and_skip out"):
        tiny_config(edit__fraction=0.3, sampler__boost_and_skip__boost=3.0)
    with pytest.raises(InputError, match=r"EditSettings.fraction must lie in \(0, 1\), got 1"):
        tiny_config(edit__fraction=1.0)
