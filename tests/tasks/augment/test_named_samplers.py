"""Every sampler that has a name runs from a preset that names it."""

import json

import numpy as np
import pytest

from minority.sampling.named_samplers import NAMED_SAMPLERS
from tasks.augment.planning import plan_round, quotas, tally
from tasks.augment.rows import candidate_rows
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.workspace import open_workspace

SHORT = {"training": {"width": 8, "steps": 2, "batch_size": 8}}
#: Settings that make a sampler's training a moment's work.
QUICK = {
    "minority-guidance": {"minority_guidance": {"levels": 3, "draws": 1, **SHORT}},
    "low-density": {"low_density": {"plain_samples": 4, **SHORT}},
    "jepa": {"jepa_guidance": {"interval": 2, **SHORT}},
    "jepa-published": {"jepa_guidance": {"iterations": 0, "interval": 2, **SHORT}},
}


@pytest.fixture
def preset(tiny_overrides, tmp_path):
    """The config of augment/digits at tiny size with a sampler section of one's own."""

    def make(sampler, **changes):
        overrides = {key: value for key, value in tiny_overrides.items() if not key.startswith("sampler.")}
        overrides |= {"sampler": sampler, "store": str(tmp_path / "store"), "plan.unit_size": 4, **changes}
        return load_preset(AugmentConfig, "digits", overrides=overrides)

    return make


def first_unit(config):
    """Images and rows of the first unit that the preset plans."""
    workspace = open_workspace(config)
    wanted = quotas(workspace.real, config.plan)
    nothing = tally(wanted, {"group": [], "kept": [], "passed": []}, workspace.real.groups)
    units = plan_round(
        config.plan, nothing, round_number=0, first_index=0, wanted=wanted, particle_group=config.sampler.particle_group
    )
    return candidate_rows(units[0], workspace)


def steps_of(name):
    return "logsnr6" if NAMED_SAMPLERS[name].solver == "dpm_solver" else 6


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, settings in NAMED_SAMPLERS.items()
        if not any(method.needs_prompts for method in settings.guidance)  # tests/tasks/augment/test_text_to_image.py
    ],
)
def test_it_draws_candidates(name, preset, make_backbone, tmp_path):
    changes = {}
    if name in ("classifier-free", "cfg-plus-plus"):
        changes["backbone.path"] = make_backbone(tmp_path / "dropout", label_dropout=True)
    config = preset({"name": name, "steps": steps_of(name), **QUICK.get(name, {})}, **changes)

    images, rows = first_unit(config)

    assert images.shape == (4, 8, 8, 1)
    assert json.loads(rows["guidance"][0].as_py()) == json.loads(json.dumps(config.sampler.to_dict()))
    used = {key: value for key, value in config.sampler.to_dict().items() if value is not None}
    assert {method.key for method in NAMED_SAMPLERS[name].guidance} <= used.keys()
    if config.sampler.guidance:
        plain, _ = first_unit(preset({"steps": steps_of(name), "solver": config.sampler.solver}, **changes))
        assert not np.array_equal(images, plain)


def test_a_name_is_the_same_run_as_its_settings_spelled_out(preset):
    named = preset({"name": "sgms", "steps": 6, "self_guidance": {"interval": 3}})
    spelled = preset({"steps": 6, "self_guidance": {"scale": 3.0, "perturbation": 0.5, "interval": 3}})

    assert named == spelled
    assert preset("sgms") == preset({"name": "sgms"}) != named
    assert named.recipe(backbone_identity="x", real_digest="y") == spelled.recipe(
        backbone_identity="x", real_digest="y"
    )
    assert AugmentConfig.model_validate_json(named.model_dump_json()) == named
    with pytest.raises(InputError, match=r"sampler: there is no sampler 'sgsm'; take one of ancestral, ddim"):
        preset("sgsm")


def test_methods_that_are_not_used_are_not_named(preset):
    dumped = preset({"steps": 6}).model_dump(mode="json")["sampler"]

    assert dumped["self_guidance"] is None
    assert not dumped.keys() & {"jepa_guidance", "low_density", "minority_guidance"}
    used = preset({"low_density": {"hardness_scale": 2.0}})
    assert used.model_dump(mode="json")["sampler"]["low_density"]["hardness_scale"] == 2
    assert AugmentConfig.model_validate_json(used.model_dump_json()) == used


def test_a_backbone_that_a_method_cannot_guide_is_refused_before_anything_is_drawn(preset):
    from tasks.checks import check_models

    with pytest.raises(InputError, match="trained with a label for every image; classifier-free guidance needs"):
        check_models(preset("classifier-free"))
