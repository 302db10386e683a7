"""A run that kept nothing is no success: it says so first, fails if it is to be strict, and compares no empty arm."""

import json

import pytest

pytestmark = pytest.mark.system

#: No sample of the tiny backbone is real enough for it.
BARREN = {"selection.realism_floor": 1e9, "plan.max_rounds": 1, "plan.quota": 12}


@pytest.fixture(scope="module")
def barren(minority, tiny_overrides, as_options, tmp_path_factory):
    """Runs the augmentation that keeps nothing, again and again in one store: barren("--strict")."""
    store = tmp_path_factory.mktemp("barren") / "store"
    options = as_options(tiny_overrides | BARREN)
    return lambda *more: minority("augment", "digits", "--store", store, *options, *more)


def test_it_says_so_first_exits_one_if_strict_and_skips_empty_arms(barren):
    strict = barren("--strict", "--json")

    assert strict.code == 1, strict.stderr
    printed = json.loads(strict.stdout)
    assert printed["kept"] == 0
    assert sum(printed["shortfall"].values()) == printed["wanted"] > 0
    assert printed["skipped"] == {"real+minority": "the run has no synthetic image of minority"}
    assert set(printed["figures"]["downstream"]["arms"]) == {"real", "oversampling", "real+plain"}
    assert "training recipe real+minority is skipped: the run has no synthetic image of minority." in strict.stderr

    quiet = barren("--quiet")

    assert (quiet.code, quiet.on_the_way) == (0, "")
    first, second, *_ = quiet.stdout.splitlines()
    assert first.startswith(f"shortfall: kept 0 of {printed['wanted']} synthetic images; digit=")
    assert second == "skipped: real+minority, as the run has no synthetic image of minority"
    assert "nan" not in quiet.stdout


def test_a_run_whose_only_recipe_is_empty_is_reported_without_a_comparison(barren):
    ended = barren("--set", "downstream.arms=[real+minority]", "--json", "--quiet")

    assert ended.code == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert list(printed["skipped"]) == ["real+minority"]
    assert printed["verdict"].endswith("what they are worth to a classifier was not measured.")


def test_a_run_whose_pilot_kept_nothing_ends_there_and_says_so(barren):
    ended = barren("--set", "plan.pilot=true", "--set", "plan.max_rounds=4", "--set", "downstream.seeds=0", "--json")

    assert ended.code == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert printed["kept"] == 0
    # 64, rounded up in every group.
    assert "None of the first 68 candidates passed the filters; no more are drawn (plan.pilot)." in ended.stderr
