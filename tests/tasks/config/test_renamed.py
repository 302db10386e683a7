"""Settings under their former names."""

import logging

import pytest

from datasets.storage.yaml_text import load_yaml
from tasks.config.presets import load_preset, parse_overrides, validate
from tasks.config.renamed import new_name, under_former_names, under_new_names
from tasks.config.runs import AugmentConfig, CalibrateConfig
from tasks.errors import InputError

FORMER = """
name: own
dataset: {reader: digits}
backbone: {path: someone/flux, told_guidance: 2.5}
sampler: {prune_and_branch: {family: 6, judge: features, max_siblings: 3, points: [0.5]}}
selection: {held_out: {realness: 0.1, critic: {folds: 2, mirrored_is_fake: false}}}
"""
NOW = """
name: own
dataset: {reader: digits}
backbone: {path: someone/flux, embedded_guidance: 2.5}
sampler: {prune_and_branch: {particle_group: 6, weight_by: features, max_copies: 3, points: [0.5]}}
selection: {held_out: {p_real: 0.1, discriminator: {folds: 2, mirrored_is_negative: false}}}
"""
SPACE = {
    "former": {"walks": [{"steps": 4}], "prune_and_branch": [{"judge": ["features"], "family": [4, 6]}]},
    "now": {"solvers": [{"steps": 4}], "prune_and_branch": [{"weight_by": ["features"], "particle_group": [4, 6]}]},
}
RECIPE = {"backbone_identity": "a" * 64, "real_digest": "b" * 64}


def test_a_preset_means_the_same_under_former_names():
    former, now = (validate(AugmentConfig, load_yaml(text), overrides={}) for text in (FORMER, NOW))

    assert former == now
    assert former == AugmentConfig.model_validate(under_former_names(now.model_dump(mode="json")))
    assert former.selection.held_out.discriminator.folds == 2


def test_the_recipe_is_what_the_former_names_made_it():
    """Fixed by the code in which these settings had their former names."""
    config = validate(AugmentConfig, load_yaml(NOW), overrides={})
    calibration = load_preset(CalibrateConfig, "digits", overrides={"calibration.space": SPACE["now"]})

    assert config.recipe(**RECIPE) == "74220288ee28"
    assert calibration.recipe(**RECIPE) == "6c6ba14dc1f1"


def test_a_search_space_means_the_same_under_former_names():
    former, now = (
        load_preset(CalibrateConfig, "digits", overrides={"calibration.space": SPACE[names]}) for names in SPACE
    )

    assert former == now


def test_single_settings_are_set_under_former_names():
    overrides = parse_overrides(["selection.held_out.critic.mirrored_is_fake=no", "selection.held_out.realness=0.2"])

    rules = load_preset(AugmentConfig, "digits", overrides=overrides).selection.held_out

    assert rules is not None
    assert (rules.discriminator.mirrored_is_negative, rules.p_real) == (False, 0.2)


def test_a_former_name_is_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        # Another test may have had this one told already.
        assert new_name("selection.held_out.critic.folds") == new_name("selection.held_out.discriminator.folds")
        told = caplog.text.count("held_out.critic is called discriminator now")
        under_new_names({"selection": {"held_out": {"critic": {}}}})

    assert caplog.text.count("held_out.critic is called discriminator now") == told <= 1


def test_a_setting_under_both_names_is_refused():
    values = {"held_out": {"critic": {"folds": 2}, "discriminator": {"folds": 3}}}

    with pytest.raises(ValueError, match=r"selection\.held_out\.discriminator is given twice"):
        under_new_names(values, below="selection")
    with pytest.raises(InputError, match="given twice"):
        load_preset(AugmentConfig, "digits", overrides={"selection": values})
