"""A text-to-image folder draws for a set of small grey images, group by group, by prompts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.runs.units import read_unit
from tasks.augment.planning import plan_real, plan_round, quotas, tally
from tasks.augment.rows import candidate_rows
from tasks.augment.units import make_unit
from tasks.commands.doctor import examine_backbone
from tasks.errors import InputError
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace

pytest.importorskip("transformers")
GOLDEN = Path(__file__).parents[2] / "minority" / "golden" / "t2i"
PROMPTS = {"templates": ["a photo of a {label}", "old {label} in white"], "negative": "red"}
SETTINGS = {
    "backbone": {"path": str(GOLDEN / "sd"), "prompts": PROMPTS, "fit": True},
    "sampler": {"steps": "leading4", "solver": "ddim", "classifier_free": {"scale": 3.0}},
    "plan__unit_size": 12,
    "labeller__steps": 10,  # what it says is of no interest here
}


@pytest.fixture
def open_text(tiny_config):
    return lambda **changes: open_workspace(tiny_config(**(SETTINGS | changes)))


def first_unit(workspace):
    config, groups = workspace.config, workspace.real.groups
    wanted = quotas(workspace.real, config.plan)
    nothing = tally(wanted, {"group": [], "kept": [], "passed": []}, groups)
    return plan_round(config.plan, nothing, round_number=0, first_index=0, wanted=wanted, particle_group=1)[0]


def test_candidates_have_the_sets_shape_and_the_prompt_that_they_were_drawn_by(open_text):
    workspace = open_text()
    plan, store = first_unit(workspace), open_run_store(workspace.run)

    make_unit(plan, workspace, store)
    images, rows = read_unit(store, plan.unit)

    names = workspace.real.train.class_names
    wanted = [names[workspace.real.group_labels[group]] for group in plan.groups]
    prompts = rows["prompt"].to_pylist()
    assert all(
        prompt in (f"a photo of a {name}", f"old {name} in white") for prompt, name in zip(prompts, wanted, strict=True)
    )
    assert len({prompt.split()[0] for prompt in prompts}) == 2
    assert workspace.backbone.image_shape == (1, 8, 8)
    assert len(images) == plan.num_samples
    assert np.isfinite(rows["minority_score"].to_numpy()).all()
    assert np.isfinite(rows["negative_elbo"].to_numpy()).all()
    assert rows["label_agreement"].null_count == 0  # a prompt may not be obeyed, so the group must be confirmed


def test_real_images_are_scored_by_their_groups_prompts_and_have_no_prompt_themselves(open_text):
    workspace = open_text()
    plan, store = plan_real(workspace.config.plan, workspace.real)[0], open_run_store(workspace.run)

    make_unit(plan, workspace, store)
    _, rows = read_unit(store, plan.unit)

    assert np.isfinite(rows["minority_score"].to_numpy()).all()
    assert rows["prompt"].null_count == len(rows)


@pytest.mark.parametrize("name", ["minority-prompt", "cads", "cfg-plus-plus"])
def test_a_preset_takes_a_sampler_of_text_to_image_models_by_name(open_text, name):
    drastic = (
        {"minority_prompt": {"iterations": 2, "learning_rate": 1.0, "above": 0.0}} if name == "minority-prompt" else {}
    )
    guided, plain = (open_text(sampler=given | {"steps": "leading4"}) for given in ({"name": name, **drastic}, {}))

    images, rows = candidate_rows(first_unit(guided), guided)

    assert images.shape == (rows.num_rows, 8, 8, 1)
    assert not np.array_equal(images, candidate_rows(first_unit(plain), plain)[0])


def test_prompts_size_and_fit_are_part_of_the_recipe(open_text):
    base = SETTINGS["backbone"]
    changes = [
        {},
        {"prompts": PROMPTS | {"templates": ["a photo of a {label}"]}},
        {"prompts": PROMPTS | {"negative": "blue"}},
        {"size": 16},
    ]
    recipes = {open_text(backbone=base | change).recipe for change in changes}

    assert len(recipes) == len(changes)
    assert open_text(backbone=base | {"offload": "model"}).recipe == open_text().recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": {"templates": ["a {colour} {label}"]}}, "asks for 'colour', which group 'digit=0' has not"),
        ({"prompts": {"groups": {"digit=0": "a zero"}}}, "group 'digit=1' has no prompt"),
        ({"prompts": {"groups": {"ten": "a ten"}}}, "names the group 'ten', which the set has not"),
        ({"prompts": {"templates": ["a photo of {label"]}}, "cannot be read"),
        ({"prompts": {"templates": [" ".join(["dog"] * 40)]}}, "has 42 tokens, tokenizer takes 16 at most; shorten it"),
        ({"prompts": None}, "is a text-to-image pipeline, which draws by prompts; set backbone.prompts"),
        ({"prompts": None, "size": 32}, "backbone.size is of text-to-image models"),
        ({"prompts": None, "offload": "model"}, "backbone.offload is of text-to-image models"),
        ({"size": 33}, "a multiple of 2 pixels, not of 33"),
        ({"fit": False}, "the dataset has (1, 8, 8); choose a backbone of that shape"),
    ],
)
def test_bad_input_is_refused_in_one_line(open_text, changes, words):
    with pytest.raises(InputError) as error:
        open_text(backbone=SETTINGS["backbone"] | changes)

    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_baseline_is_drawn_by_prompts_with_classifier_free_guidance_alone(open_text):
    sampler = SETTINGS["sampler"] | {"self_guidance": {"scale": 1.0, "jacobian": False}}
    workspace = open_text(sampler=sampler)
    plan = replace(first_unit(workspace), sampler="plain")

    _, rows = candidate_rows(plan, workspace)

    settings = json.loads(rows["guidance"][0].as_py())
    assert settings["classifier_free"] == {"scale": 3.0}  # what it got later is shown where it is set alone
    assert settings["self_guidance"] is None


def test_a_backbone_without_text_takes_no_prompts(open_text, tiny_backbone):
    with pytest.raises(InputError, match="takes no prompts; leave prompts out"):
        open_text(backbone={"path": tiny_backbone, "prompts": PROMPTS})


def test_the_doctor_tells_a_text_to_image_folder_without_prompts():
    findings = "\n".join(examine_backbone(str(GOLDEN / "sdxl"), {}))

    assert "ok images: 32x32 pixels of 3 channels, no labels" in findings
    assert "ok prompts: 0, negative prompt the pipeline's own; numbered noise levels; takes classifier-free" in findings
