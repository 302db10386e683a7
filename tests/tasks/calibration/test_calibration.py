"""A calibration from rungs to preset, with a backbone that draws noise and filters that let everything through."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from datasets.storage.checked import DamagedError
from datasets.storage.store import Store
from minority.calibration.outcome import Measured
from minority.guidance.prune_and_branch import PruneAndBranch
from tasks.augment.evaluating import evaluate_images
from tasks.calibration.frontier_plot import Point, unsurpassed
from tasks.calibration.result import ratio_text, write_result
from tasks.calibration.search import (
    FRESH,
    Measurement,
    candidates_of,
    check_budget,
    measured_once,
    plan_rung,
    plan_verification,
    read_measured,
)
from tasks.config.presets import load_preset, validate
from tasks.config.runs import AugmentConfig, CalibrateConfig
from tasks.errors import InputError

pytestmark = pytest.mark.system

PRUNED = PruneAndBranch(weight_by="features", particle_group=6, keep=3)


@pytest.fixture
def config(tiny_overrides, tmp_path):
    kept = ("backbone.", "dataset.", "selection.", "sampler.steps")
    overrides = {key: value for key, value in tiny_overrides.items() if key.startswith(kept)}
    overrides |= {
        "dataset.split.test_fraction": 0.8,
        "dataset.split.validation_fraction": 0.05,
        "calibration.budget": 3000,
        "calibration.candidates": 7,
        "calibration.finalists": 2,
        "calibration.validity_floor": 0.0,
        "calibration.space.solvers": [{"steps": 4}],
        "selection.label_floor": 0.0,
        "unit_size": 40,
        "store": str(tmp_path / "store"),
    }
    return load_preset(CalibrateConfig, "digits", overrides=overrides)


def search(config):
    """All measurements of the search, and those of the verification."""
    done, rung = [], 0
    while orders := plan_rung(config, done, rung=rung):
        for order in orders:
            measured_once(order, config)
        done += orders
        rung += 1
    verification = plan_verification(config, done)
    for order in verification:
        measured_once(order, config)
    return done, verification


def test_how_often_more_is_no_figure_where_the_other_kept_none():
    kept, none = (Measured(samples=40, passed=passed, evaluations=400.0) for passed in (10, 0))

    assert re.fullmatch(r"1\.0 x \([\d.]+ \.\.\. [\d.]+\)", ratio_text(kept, kept, objective="yield"))
    assert re.fullmatch(r"over [\d.]+ x", ratio_text(kept, none, objective="per_evaluation"))
    assert ratio_text(none, none, objective="yield") == "-"


def test_a_calibration_ends_with_a_preset_that_can_be_pasted(config):
    summary = write_result(config, *search(config))

    assert summary.winner is not None
    assert summary.confirmed
    pasted = load_preset(AugmentConfig, "digits").model_dump(mode="json") | yaml.safe_load(summary.preset)
    winner = next(c for c in candidates_of(config) if c.name == summary.winner)
    assert asdict(validate(AugmentConfig, pasted, overrides={}).sampler) == asdict(winner.sampler)
    assert summary.spent <= 3000
    store = Store(summary.folder)
    assert store.read("frontier.png").startswith(b"\x89PNG")
    result = json.loads(store.read("result.json"))
    names = [c.name for c in candidates_of(config)]
    assert {entry["name"] for entry in result["candidates"]} <= set(names)
    assert len(result["candidates"]) > 7  # the rungs after the first one explored
    assert result["summary"]["winner"] == summary.winner == summary.winners["per_evaluation"]


def test_the_preset_is_made_of_the_winner_of_the_chosen_objective(config):
    orders = search(config)
    changed = config.model_copy(update={"calibration": replace(config.calibration, objective="yield")})

    first, second = write_result(config, *orders), write_result(changed, *search(changed))

    assert first.winner == first.winners["per_evaluation"]
    assert second.winner == second.winners["yield"]
    for summary in (first, second):
        (winner,) = [candidate for candidate in candidates_of(config) if candidate.name == summary.winner]
        pasted = load_preset(AugmentConfig, "digits").model_dump(mode="json") | yaml.safe_load(summary.preset)
        assert validate(AugmentConfig, pasted, overrides={}).sampler == winner.sampler
    marked = [row["sampler"] for row in second.rows if "highest yield" in row["sampler"]]
    assert len(marked) == 1
    assert marked[0].startswith(second.winner)


def test_candidates_share_their_samples_and_verification_has_fresh_ones(config):
    search_orders, verification = search(config)

    by_candidate = {}
    for order in plan_rung(config, [], rung=0):
        by_candidate.setdefault(order.candidate, []).append((order.first, order.count))
    assert len(by_candidate) == 7
    assert len({tuple(samples) for samples in by_candidate.values()}) == 1
    drawn = {}
    for order in search_orders:
        drawn.setdefault(order.candidate, set()).update(range(order.first, order.first + order.count))
    assert len(drawn) > 7
    assert all(samples == set(range(len(samples))) for samples in drawn.values())
    assert max(order.first + order.count for order in search_orders) < FRESH
    assert all(order.first >= FRESH for order in verification)
    assert {0, 1, 2} <= {order.candidate for order in verification}


def test_all_candidates_share_groups_and_pruned_ones_tell_their_copies(config, monkeypatch):
    config = config.model_copy(update={"sampler": replace(config.sampler, prune_and_branch=PRUNED)})
    seen = []

    def recorded(workspace, images, groups):
        seen.append(groups.tolist())
        return evaluate_images(workspace, images, groups)

    monkeypatch.setattr("tasks.calibration.search.evaluate_images", recorded)
    plain, pruned = (measured_once(Measurement(candidate=i, first=0, count=12), config) for i in (0, 3))

    assert candidates_of(config)[3].sampler.prune_and_branch == PRUNED
    assert seen[0] == seen[1] == [0] * 6 + [1] * 6
    assert (plain.copies, pruned.copies) == (0, 6)  # three of a particle group of six go on, each in two chains


def test_no_particle_group_is_cut_whatever_its_size(config):
    config = config.model_copy(update={"sampler": replace(config.sampler, prune_and_branch=PRUNED)})

    search_orders, verification = search(config)

    assert verification
    for order in [*search_orders, *verification]:
        assert order.first % 6 == order.count % 6 == 0


def test_without_a_share_for_verification_there_is_none(config):
    config = config.model_copy(update={"calibration": replace(config.calibration, verification=0.0)})

    search_orders, verification = search(config)
    summary = write_result(config, search_orders, verification)

    assert verification == []
    assert not summary.confirmed
    assert summary.winner is not None


def test_a_budget_that_one_particle_group_each_would_overdraw_is_refused(config):
    check_budget(config)
    small = config.model_copy(update={"calibration": replace(config.calibration, budget=100)})

    with pytest.raises(InputError, match=r"calibration\.budget is 100 .* raise it to (\d+) at least") as caught:
        check_budget(small)

    least = int(re.search(r"raise it to (\d+)", str(caught.value))[1])
    check_budget(config.model_copy(update={"calibration": replace(config.calibration, budget=least)}))


def test_what_is_measured_is_not_measured_again(config):
    orders, _ = search(config)
    before = read_measured(config, orders)
    store = Store(config.store)
    stamps = {path: store.read(path) for path in store.list() if "measured/" in path}

    again, _ = search(config)

    assert again == orders
    assert read_measured(config, again) == before
    assert {path: store.read(path) for path in store.list() if "measured/" in path} == stamps


def test_the_frontier_is_what_nobody_surpasses_in_both():
    points = [Point(name, valid, kept, 1.0, False) for name, valid, kept in [("a", 0.9, 0.1), ("b", 0.8, 0.3)]]
    beaten = Point("c", 0.7, 0.2, 9.0, False)

    assert unsurpassed([*points, beaten]) == points


def test_damaged_counts_are_named_and_counted_again(config, caplog):
    order = Measurement(candidate=0, first=0, count=10)
    before = measured_once(order, config)
    (path,) = Path(config.store).rglob("measured/*.json")
    whole = path.read_bytes()
    for damaged in (whole.replace(b'"samples": 10', b'"samples": 11'), whole[:40], json.dumps(asdict(before)).encode()):
        path.write_bytes(damaged)

        with pytest.raises(DamagedError, match=rf"{path.name} "):
            read_measured(config, [order])
        assert measured_once(order, config) == before

        assert path.read_bytes() == whole
        assert f"{path.name} is not" in caplog.text
