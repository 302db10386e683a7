import math

import pytest

from tasks.config.limits import require_sane_numbers
from tasks.config.preset_files import list_presets
from tasks.config.presets import FLOWS, load_preset
from tasks.config.runs import AugmentConfig, CalibrateConfig, DownstreamConfig, TrainBackboneConfig
from tasks.errors import InputError


@pytest.mark.parametrize(
    ("kind", "setting", "value", "most"),
    [
        (AugmentConfig, "plan.quota", 10**12, "10,000,000"),
        (AugmentConfig, "plan.unit_size", 10**9, "100,000"),
        (AugmentConfig, "plan.max_rounds", 10**6, "1,000"),
        (AugmentConfig, "plan.candidates_per_image", 1e9, "1,000"),
        (AugmentConfig, "publish.samples_per_shard", 10**9, "100,000"),
        (AugmentConfig, "sampler.steps", 10**12, "1,000,000,000"),
        (AugmentConfig, "sampler.batch_size", 10**8, "1,000,000"),
        (AugmentConfig, "sampler.self_guidance.scale", 1e30, "1,000,000,000"),
        (AugmentConfig, "scores.draws", 10**9, "100,000"),
        (AugmentConfig, "labeller.width", 10**7, "10,000"),
        (CalibrateConfig, "calibration.budget", 10**20, "10,000,000,000,000"),
        (CalibrateConfig, "unit_size", 10**9, "100,000"),
        (DownstreamConfig, "downstream.seeds", 10**6, "1,000"),
        (TrainBackboneConfig, "training.steps", 10**12, "1,000,000,000"),
        (TrainBackboneConfig, "architecture.block_out_channels", [10**9], "100,000"),
    ],
)
def test_absurd_numbers_are_refused_with_the_limit(kind, setting, value, most):
    with pytest.raises(InputError, match=rf"{setting} must be at most {most}, got ") as caught:
        load_preset(kind, "digits", overrides={setting: value})

    assert "\n" not in str(caught.value)


def test_an_absurd_side_is_refused_where_the_reader_takes_one():
    with pytest.raises(InputError, match=r"dataset\.image_size must be at most 4,096, got "):
        load_preset(AugmentConfig, "celeba", overrides={"dataset.image_size": 10**6})


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_refused(number):
    with pytest.raises(ValueError, match=r"sampler\.scale must be a finite number, got"):
        require_sane_numbers({"sampler": {"scale": number}})


def test_any_seed_is_allowed_and_the_sign_does_not_help():
    require_sane_numbers({"seed": 2**62, "dataset": {"split": {"seed": 2**40}}, "flag": True, "name": "quota"})

    with pytest.raises(ValueError, match=r"shift must be at most 1,000,000,000, got -10,000,000,000"):
        require_sane_numbers({"shift": -(10**10)})


def test_every_preset_is_within_the_limits():
    presets = list_presets()

    assert presets
    for flow, name, _ in presets:
        load_preset(FLOWS[flow], name)
