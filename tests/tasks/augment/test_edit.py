"""Variants of labelled training images as the candidates of a run."""

import numpy as np
import pytest

from tasks.augment.drawing import draw_candidates
from tasks.augment.evaluating import evaluate_images
from tasks.augment.planning import UnitPlan
from tasks.augment.rows import candidate_rows
from tasks.errors import InputError
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


def test_settings_that_want_another_start_are_refused(tiny_config):
    with pytest.raises(InputError, match=r"edit starts every sample from an image.*leave sampler.boost_and_skip out"):
        tiny_config(edit__fraction=0.3, sampler__boost_and_skip__boost=3.0)
    with pytest.raises(InputError, match=r"EditSettings.fraction must lie in \(0, 1\), got 1"):
        tiny_config(edit__fraction=1.0)
