from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.config.paths import project_path
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig

SHA = "a" * 64


@pytest.fixture
def recipe():
    def make(sha256=SHA, **overrides):
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        config = load_preset(AugmentConfig, "digits", overrides=dotted)
        return config.recipe(backbone_identity=sha256, real_digest="b" * 64)

    return make


def test_a_recipe_is_twelve_hex_digits_and_the_same_every_time(recipe):
    assert recipe() == recipe()
    assert len(recipe()) == 12
    assert int(recipe(), 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"sampler__steps": 49},
        {"sampler__self_guidance__scale": 2.5},
        {"sampler__self_guidance": None},
        {"scores__draws": 5},
        {"selection__rare_quantile": 0.8},
        {"plan__unit_size": 63},
        {"publish__real": False},
        {"publish__samples_per_shard": 999},
        {"dataset__split__seed": 1},
        {"backbone__flags": {"preset": "celeba64"}},
        {"sha256": "b" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_published_bytes_changes_the_recipe(recipe, change):
    assert recipe(**change) != recipe()


@pytest.mark.parametrize(
    "change",
    [
        {"store": "/elsewhere"},
        {"run_id": "mine"},
        {"device": "cpu"},
        {"workers__gpus": 0.5},
        {"downstream__seeds": 50},
        {"downstream__budget__steps": 7},
        {"backbone__path": "/moved/weights"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_places_devices_and_classifiers_leave_the_recipe_alone(recipe, change):
    assert recipe(**change) == recipe()


def test_a_config_cannot_be_changed():
    config = load_preset(AugmentConfig, "digits")

    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3


def test_a_relative_path_lies_beside_the_presets_unless_it_exists_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()

    assert project_path("here") == Path("here")
    assert project_path("/abs") == Path("/abs")
    assert project_path("elsewhere") == Path(__file__).resolve().parents[3] / "elsewhere"
