"""The study by draws: disjoint parts, equal budgets, results that are kept, a table that says what is missing."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.draws.construction import DRAWN
from benchmarks.draws.results import DrawResult
from benchmarks.draws.run import run_draw
from benchmarks.draws.sets import celeba_blond_male, digits_pool
from benchmarks.draws.table import markdown
from benchmarks.draws.verdict_over_draws import DrawAnswers
from minority.downstream.cost import ArmCost
from minority.downstream.settings import DownstreamSettings, NetworkSettings
from minority.downstream.trials import trials_for
from minority.evaluation.backbone_reading import ReadingSettings
from minority.sampling.diffusion_classifier import ZeroShotSettings
from minority.sampling.settings import SamplerSettings


def keys(images):
    return {pixels.tobytes() for pixels in images.images}


@pytest.mark.parametrize("draw", [0, 3])
def test_pool_training_validation_and_test_images_are_disjoint(draw):
    pool, data = digits_pool(largest=10).cut(draw)

    parts = [pool, data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [901, 42, 100, 451]
    # The 1,797 scans have no two of equal pixels, so pixels tell them apart.
    assert len(set().union(*map(keys, parts))) == sum(map(len, parts))


def test_draws_differ_in_split_and_in_which_class_is_rare():
    construction = digits_pool(largest=10)
    (_, first), (_, second) = construction.cut(0), construction.cut(1)

    assert first.class_names != second.class_names
    assert keys(first.train) != keys(second.train)
    assert np.bincount(first.train.labels).tolist() == np.bincount(second.train.labels).tolist()


def test_every_arm_of_every_family_gets_as_many_trials():
    construction = digits_pool()
    arms = {arm.name: arm for arm in construction.arms()}
    families = construction.families()

    assert set().union(*families.values()) == set(arms)
    assert {len(trials_for(arm, construction.settings)) for arm in arms.values()} == {construction.settings.trials}
    assert not [
        name for family, names in families.items() for name in names if arms[name].is_generative != (family == DRAWN)
    ]


def test_a_draw_runs_from_its_split_to_its_result_and_goes_on_where_it_was(tmp_path):
    whole = digits_pool(largest=10)
    construction = replace(
        whole,
        training=replace(whole.training, steps=3, batch_size=8),
        sampler=SamplerSettings(steps=2),
        samples=2,
        test_each=2,
        seeds=1,
        real_arms=("real",),
        settings=DownstreamSettings(
            network=NetworkSettings(width=2), steps=2, batch_size=4, learning_rates=(1e-3,), trials=2, tuning_seeds=1
        ),
        reading=ReadingSettings(copies=1, zero_shot=ZeroShotSettings(levels=1)),
    )
    said = []

    result = run_draw(construction, 0, tmp_path, device="cpu", say=said.append)
    predictions = sorted(path.stat().st_mtime_ns for path in (tmp_path / "predictions").iterdir())
    (tmp_path / "result.npz").unlink()
    again = run_draw(construction, 0, tmp_path, device="cpu", say=said.append)

    assert sum("training a backbone" in line for line in said) == 1
    assert sum("reading the images" in line for line in said) == 1
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "predictions").iterdir()) == predictions
    back = DrawResult.read(tmp_path / "result.npz")
    assert set(back.answers) == {arm.name for arm in construction.arms()}
    for arm, found in again.answers.items():
        np.testing.assert_array_equal(found.right, result.answers[arm].right)
        np.testing.assert_array_equal(found.right, back.answers[arm].right)
    assert back.validated == result.validated
    assert back.costs["zero-shot"].evaluations == 10


def made_up(construction, draw, *, drawn, others):
    parts = np.repeat(np.arange(2), 40)
    rng = np.random.default_rng(draw)
    answers, validated = {}, {}
    for arm in construction.arms():
        rate = drawn if arm.is_generative else others
        answers[arm.name] = DrawAnswers(right=rng.random((2, 80)) < rate, parts=parts)
        validated[arm.name] = rate
    costs = dict.fromkeys(answers, ArmCost(training=1e9, drawing=0, image=4e8))
    return DrawResult(draw=draw, sizes=(9, 1), parts=parts, answers=answers, validated=validated, costs=costs)


def test_the_table_has_a_row_a_recipe_and_a_verdict_a_family():
    construction = digits_pool()
    results = [made_up(construction, draw, drawn=0.9, others=0.6) for draw in range(5)]

    text = markdown(construction, results)

    assert all(f"| {arm.name} " in text for arm in construction.arms())
    assert text.count("| pays ") == len(construction.families()) - 1
    assert "400 M" in text


def test_what_was_not_run_stands_beside_what_was_published(tmp_path):
    text = markdown(construction := celeba_blond_male(tmp_path), [], lacking=construction.missing())

    assert "Not run here: bring CelebA to" in text
    row = next(line for line in text.splitlines() if line.startswith("| group-dro "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:-1] == [""] * (len(cells) - 2)
    assert cells[-1] == "88.9 (Liu et al. 2021, table 1)"
