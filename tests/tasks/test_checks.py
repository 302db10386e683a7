from pathlib import Path

import pytest

from datasets.runs.runs import RecipeMismatchError
from tasks.checks import check_inputs
from tasks.errors import InputError


def refusal(config):
    with pytest.raises(InputError) as caught:
        check_inputs(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_that_can_start_is_claimed_in_the_store(tiny_config, tmp_path):
    workspace = check_inputs(tiny_config())

    run = tmp_path / "store" / "digits" / "runs" / workspace.run_id
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_everything_that_is_missing_is_told_at_once_and_the_store_stays_empty(tiny_config, tmp_path):
    dataset = {"reader": "celeba", "folder": str(tmp_path / "no-faces")}

    message = refusal(tiny_config(dataset=dataset, backbone__path=str(tmp_path / "no-weights.pt")))

    assert f"CelebA folder {tmp_path / 'no-faces'} does not exist" in message
    assert f"backbone: {tmp_path / 'no-weights.pt'} does not exist" in message
    assert list(tmp_path.rglob("run.json")) == []


def test_a_dataset_without_its_folder_says_which_setting_names_it(tiny_config):
    assert "dataset.folder is not set" in refusal(tiny_config(dataset={"reader": "celeba"}))


def test_a_store_below_a_file_is_refused_with_the_remedy(tiny_config, tmp_path):
    (tmp_path / "file").write_text("in the way")

    message = refusal(tiny_config(store=str(tmp_path / "file" / "store")))

    assert str(tmp_path / "file" / "store") in message
    assert "choose another store" in message


def test_a_store_of_an_unknown_protocol_is_refused(tiny_config):
    assert "nowhere://bucket" in refusal(tiny_config(store="nowhere://bucket"))


def test_a_store_of_another_recipe_is_refused_with_both_recipes(tiny_config):
    first = check_inputs(tiny_config(run_id="mine"))
    other = tiny_config(run_id="mine", seed=1)

    identity = {"backbone_identity": first.backbone.identity, "real_digest": first.real.digest}
    message = refusal(other)

    assert f"holds samples of recipe {first.recipe}" in message
    assert f"this run is recipe {other.recipe(**identity)}" in message


def test_the_refusal_of_another_recipe_keeps_its_cause(tiny_config):
    check_inputs(tiny_config(run_id="mine"))

    with pytest.raises(InputError) as caught:
        check_inputs(tiny_config(run_id="mine", seed=1))

    assert isinstance(caught.value.__cause__, RecipeMismatchError)


def test_the_celeba_preset_says_in_one_line_what_is_missing_here(tmp_path, monkeypatch):
    from tasks.config.presets import load_preset
    from tasks.config.runs import AugmentConfig

    # Away from the checkout, so that a developer's own data and checkpoints are not found.
    monkeypatch.chdir(tmp_path)
    overrides = {"dataset.folder": str(tmp_path / "celeba"), "backbone.path": str(tmp_path / "celeba64.pt")}

    message = refusal(load_preset(AugmentConfig, "celeba", overrides=overrides | {"store": str(tmp_path / "runs")}))

    assert "celeba64.pt" in message
    assert "CelebA folder" in message
    assert not Path("runs", "celeba").exists()


def test_an_arm_whose_samples_will_not_be_drawn_is_refused_beforehand(tiny_config, tmp_path):
    message = refusal(tiny_config(plan__baseline=False))

    assert message == (
        "downstream.arms: there is no arm real+plain here, as plan.baseline is off and no plain sample is drawn; "
        "did you mean real+minority."
    )
    assert list(tmp_path.rglob("run.json")) == []


def test_more_candidates_than_a_run_can_hold_are_refused_before_it_is_claimed(tiny_config, tmp_path):
    message = refusal(tiny_config(plan__quota=9_000_000, plan__candidates_per_image=100))

    assert "candidates each, at most 100,000,000 candidates fit into a run; lower plan.quota" in message
    assert list(tmp_path.rglob("run.json")) == []
