"""What `minority plan` foretells, held against a run."""

import pandas as pd

from flows.augment import augment
from minority.sampling.draw import ScoreSettings
from minority.sampling.pace import evaluations_of_scores
from tasks.estimates.augmentation import forecast
from tasks.inputs.real_data import load_real_data


def test_candidates_and_evaluations_are_those_of_the_run(tiny_config, tmp_path):
    config = tiny_config(downstream=None)

    found = forecast(config)
    augment(config)

    rows = pd.read_parquet(next((tmp_path / "store").rglob("metadata.parquet")))
    drawn = rows[rows.source == "synthetic"]
    guided = drawn[drawn.sampler == "minority"]
    first = guided[guided["round"] == 0]
    assert found.rounds[0] == len(first)
    assert {group.group: group.candidates for group in found.groups} == {
        group.group: int((first.group == group.group).sum()) for group in found.groups
    }
    assert found.baseline == len(drawn) - len(guided)
    # The forecast, with the candidates that were really drawn after the first round.
    scoring = evaluations_of_scores(config.scores)
    predicted = found.evaluations + (len(guided) - sum(found.rounds)) * (guided.evaluations.iloc[0] + scoring)
    validation = min(config.scores.held_out, len(load_real_data(config.dataset).validation))
    assert predicted == drawn.evaluations.sum() + scoring * (len(rows) + validation)


def test_classifiers_take_a_training_for_every_recipe_that_trains_a_network(tiny_config, monkeypatch):
    monkeypatch.setattr("tasks.estimates.comparison.seconds_a_training", lambda images, **more: 2.0)
    budget = {"trials": 3, "tuning_seeds": 2}
    config = tiny_config(
        downstream__arms=["real", "dfr", "real+minority"], downstream__seeds=4, downstream__budget=budget
    )

    assert forecast(config).classifier_seconds == 3 * (3 * 2 + 4) * 2.0
    assert forecast(tiny_config(downstream=None)).classifier_seconds == 0


def test_scores_cost_their_draws_and_steps():
    assert evaluations_of_scores(ScoreSettings(draws=3, elbo_steps=20)) == 23


def test_a_budget_that_is_too_small_and_groups_that_are_too_few_are_told(tiny_config):
    found = forecast(tiny_config(plan__expected_yield=0.05, plan__candidates_per_image=2, plan__quota=30))

    assert any("raise plan.candidates_per_image to 20" in warning for warning in found.warnings)
    assert any("fewer than 5 training images" in warning for warning in found.warnings)
    assert sum(found.rounds) <= found.budget


def test_a_quota_that_is_full_already_is_told(tiny_config):
    found = forecast(tiny_config(plan__quota=1))

    assert found.rounds == []
    assert "every group has its quota already" in found.warnings[0]
