"""Every kind of backbone as the command line and a preset name it."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDPMPipeline, LDMPipeline
from huggingface_hub import constants
from PIL import Image
from pydantic import ValidationError

from minority.backbones import load_backbone
from tasks.augment.planning import UnitPlan
from tasks.augment.rows import candidate_rows
from tasks.commands.conversion import convert_to_folder
from tasks.commands.doctor import examine_backbone
from tasks.commands.images import draw_to_folder
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig
from tasks.config.sections import BackboneConfig
from tasks.errors import InputError
from tasks.inputs.workspace import open_backbone, open_named_backbone, open_workspace

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def adm(tiny_pipelines, tmp_path_factory):
    return tiny_pipelines.adm_files(tmp_path_factory.mktemp("adm"))


@pytest.fixture
def two_stages(adm, tmp_path):
    """The YAML file of a two-stage backbone's section."""
    first, upsampler, flags = adm
    second = {"path": str(upsampler), "flags": flags["upsampler"], "sampler": {"steps": 3}}
    section = {"path": str(first), "flags": flags["first"], "upsampler": second}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(section))
    return tmp_path / "both.yaml"


@pytest.fixture(scope="module")
def saved(tiny_pipelines, tmp_path_factory):
    """A folder with dit/ and the hub's cache of one latent model, hub/."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_pipelines.save(tiny_pipelines.dit_pipeline(), folder / "dit")
    latent = LDMPipeline(vqvae=tiny_pipelines.quantiser(), unet=tiny_pipelines.unet(), scheduler=tiny_pipelines.ddim())
    repository = folder / "hub" / "models--someone--faces"
    tiny_pipelines.save(latent, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    return folder


@pytest.fixture
def named(saved, two_stages, monkeypatch):
    """A backbone of every kind, by what the command line calls it, and the shape of its images."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(saved / "hub"))
    monkeypatch.chdir(ROOT)
    latent = saved / "hub" / "models--someone--faces" / "snapshots" / "0123abc"
    return {
        "DiT": (str(saved / "dit"), (8, 8, 3)),
        "latent": (str(latent), (16, 16, 3)),
        "hub id": ("someone/faces", (16, 16, 3)),
        "two stages": (str(two_stages), (16, 16, 3)),
        "own network": ("examples.own_model:load", (8, 8)),
    }


@pytest.mark.parametrize("kind", ["DiT", "latent", "hub id", "two stages", "own network"])
def test_every_kind_draws_files_and_is_examined(named, tmp_path, kind):
    source, shape = named[kind]
    sampler = {"steps": 3, "self_guidance.scale": 1.0, "self_guidance.interval": 2}

    draw_to_folder(source, tmp_path / "out", num=2, sampler=sampler, labels=None, seed=0, flags={})

    files = sorted((tmp_path / "out").glob("0*.png"))
    assert [np.asarray(Image.open(file)).shape for file in files] == [shape] * 2
    findings = examine_backbone(source, {})
    assert findings[1].startswith(f"ok images: {shape[0]}x{shape[1]} pixels")
    assert ("of latents" in findings[3]) == (kind in ("DiT", "latent", "hub id"))
    assert all(finding.startswith("ok ") for finding in findings)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("someone/else", "backbone: someone/else is neither a folder nor a file here, and as a hub id it is not in"),
        ("nowhere.pt", "backbone: nowhere.pt does not exist; give the path of a diffusers folder"),
        ("examples.own_model:fetch", "own_model.py has no function fetch"),
        ("nowhere.yaml", "backbone: nowhere.yaml cannot be read as YAML"),
        ("README.yml", "backbone: README.yml cannot be read as YAML"),
    ],
)
def test_what_is_no_backbone_is_told_in_one_line(named, tmp_path, source, words):
    with pytest.raises(InputError) as error:
        draw_to_folder(source, tmp_path / "out", num=2, sampler={}, labels=None, seed=0, flags={})

    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_stage_that_is_missing_is_named_by_its_setting(two_stages):
    section = yaml.safe_load(two_stages.read_text())
    section["upsampler"]["path"] = "nowhere.pt"
    two_stages.write_text(yaml.safe_dump(section))

    with pytest.raises(InputError, match=r"^backbone\.upsampler: nowhere\.pt does not exist"):
        open_named_backbone(str(two_stages), {})


def test_a_yaml_section_knows_its_keys(two_stages):
    section = yaml.safe_load(two_stages.read_text()) | {"upsmpler": 1}
    two_stages.write_text(yaml.safe_dump(section))

    with pytest.raises(InputError, match=r"backbone\.upsmpler is not a setting; did you mean upsampler"):
        open_named_backbone(str(two_stages), {})


def test_a_preset_takes_the_section_as_keys_as_a_file_or_as_a_path(two_stages):
    def backbone_of(value):
        return load_preset(AugmentConfig, "digits", overrides={"backbone": value}).backbone

    from_file = backbone_of(str(two_stages))

    assert from_file == backbone_of(yaml.safe_load(two_stages.read_text()))
    assert from_file.upsampler.sampler.steps == 3
    assert backbone_of("backbones/digits") == BackboneConfig(path="backbones/digits")


def test_all_that_decides_a_second_stage_is_in_the_recipe(two_stages):
    def recipe(**changes):
        dotted = {f"backbone.upsampler.{key.replace('__', '.')}": value for key, value in changes.items()}
        config = load_preset(AugmentConfig, "digits", overrides={"backbone": section} | dotted)
        return config.recipe(backbone_identity="a" * 64, real_digest="b" * 64)

    section = yaml.safe_load(two_stages.read_text())
    assert recipe(sampler__steps=4) != recipe()
    assert recipe(flags__num_heads=8) != recipe()
    assert recipe(path="/moved/upsampler.pt") == recipe()


def test_a_checksum_can_be_asked_of_each_stage_and_of_both(two_stages):
    section = yaml.safe_load(two_stages.read_text())
    both = BackboneConfig(**section)
    first_alone = open_backbone(both.model_copy(update={"upsampler": None})).sha256

    assert open_backbone(both.model_copy(update={"sha256": first_alone})).image_shape == (3, 16, 16)
    wrong = both.upsampler.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(InputError, match=r"backbone\.upsampler .* expected 0{12}.*correct backbone\.upsampler\.sha256"):
        open_backbone(both.model_copy(update={"upsampler": wrong}))


def test_an_unknown_key_of_the_upsampler_is_an_error():
    with pytest.raises(ValidationError, match="stepz"):
        BackboneConfig(path="a", upsampler={"path": "b", "sampler": {"stepz": 3}})


@pytest.mark.parametrize("kind", ["two stages", "DiT"])
def test_a_work_unit_draws_scores_and_evaluates_with_such_a_backbone(named, tiny_config, tmp_path, kind):
    source, shape = named[kind]
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        for i in range(12):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{i}.png")
    split = {"test_fraction": 0.2, "validation_fraction": 0, "imbalance": 1}
    dataset = {"reader": "folder", "folder": str(tmp_path / "photos"), "split": split}
    section = yaml.safe_load(Path(source).read_text()) if kind == "two stages" else {"path": source}
    config = tiny_config(name="photos", dataset=dataset, backbone=section)
    workspace = open_workspace(config)
    plan = UnitPlan(unit="minority-00-00000", sampler="minority", round=0, indices=(4, 5, 6), groups=(0, 1, 2))

    images, rows = candidate_rows(plan, workspace)
    again, _ = candidate_rows(plan, workspace)

    assert images.shape == (3, *shape)
    np.testing.assert_array_equal(images, again)
    assert np.isfinite(rows["negative_elbo"].to_numpy()).all()
    assert np.isfinite(rows["minority_score"].to_numpy()).all()


def test_a_converted_checkpoint_is_a_folder_that_bare_diffusers_opens(adm, tmp_path):
    first, _, flags = adm

    folder = convert_to_folder(str(first), tmp_path / "folder", flags=flags["first"])

    before, after = load_backbone(first, **flags["first"]), load_backbone(folder)
    x_t, t, label = torch.randn(2, 3, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 6])
    # An ADM of four heads has as many channels a head at every width here, which the folder can say.
    assert torch.equal(after.denoiser(x_t, t, label).eps, before.denoiser(x_t, t, label).eps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' deprecations
        unet = DDPMPipeline.from_pretrained(folder).unet
    assert torch.equal(unet(x_t, t, class_labels=label).sample[:, :3], before.denoiser(x_t, t, label).eps)
    assert before.sha256 in (folder / "README.md").read_text()
    assert json.loads((folder / "minority.json").read_text())["num_classes"] == 7


def test_what_cannot_be_converted_is_refused(adm, tiny_backbone, tmp_path):
    first, _, flags = adm
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")

    with pytest.raises(InputError, match="is no file; give the path of an ADM checkpoint"):
        convert_to_folder(tiny_backbone, tmp_path / "out", flags={})
    with pytest.raises(InputError, match="exists and is not a backbone folder, so it is left alone"):
        convert_to_folder(str(first), tmp_path / "mine", flags=flags["first"])
