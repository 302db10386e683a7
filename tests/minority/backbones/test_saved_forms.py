"""Checkpoints as people save them: variants alone, prefixes, training states, pointers, and networks that diverged."""

import json
import logging

import pytest
import torch
from diffusers import DDIMPipeline, LDMPipeline
from safetensors.torch import load_file, save_file

from minority.backbones import BackboneError, load_backbone
from minority.backbones.backbone import learned_variance

STEM = "diffusion_pytorch_model"
X_T, T = torch.linspace(-1, 1, 192).view(1, 3, 8, 8), torch.tensor([500])


@pytest.fixture
def folder(tiny_pipelines, tmp_path):
    return tiny_pipelines.save(DDIMPipeline(tiny_pipelines.unet(), tiny_pipelines.ddim()), tmp_path / "model")


@pytest.fixture
def latent_folder(tiny_pipelines, tmp_path):
    pipeline = LDMPipeline(
        vqvae=tiny_pipelines.autoencoder(),
        unet=tiny_pipelines.unet(in_channels=4, out_channels=4),
        scheduler=tiny_pipelines.ddim(),
    )
    return tiny_pipelines.save(pipeline, tmp_path / "latent")


@pytest.fixture
def adm(tiny_pipelines, tmp_path):
    first, upsampler, flags = tiny_pipelines.adm_files(tmp_path)
    return first, upsampler, flags


def taken(part):
    """The tensors of a component, whose file is taken away."""
    path = part / f"{STEM}.safetensors"
    tensors = load_file(path)
    path.unlink()
    return tensors


def answers(backbone):
    return backbone.denoiser(X_T, T, None).eps


def half(tensors, dtype=torch.float16):
    return {name: value.to(dtype) for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("variant", "ending"),
    [("fp16", "safetensors"), ("bf16", "safetensors"), ("non_ema", "safetensors"), ("fp16", "bin")],
)
def test_a_variant_alone_is_read_and_raised_to_fp32(folder, variant, ending):
    expected = answers(load_backbone(folder))
    tensors = taken(folder / "unet")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(variant, torch.float32)
    path = folder / "unet" / f"{STEM}.{variant}.{ending}"
    save_file(half(tensors, dtype), path) if ending == "safetensors" else torch.save(half(tensors, dtype), path)

    backbone = load_backbone(folder)

    assert {p.dtype for p in backbone.denoiser.parameters()} == {torch.float32}
    torch.testing.assert_close(answers(backbone), expected, atol=0.05, rtol=0.05)  # what rounding to bf16 does
    assert backbone.facts[1] == f"weights: unet/{path.name}, variant {variant} raised to fp32"


def test_plain_weights_go_before_every_variant(folder):
    expected = answers(load_backbone(folder))
    wrong = {
        name: torch.zeros_like(value) for name, value in load_file(folder / "unet" / f"{STEM}.safetensors").items()
    }
    save_file(wrong, folder / "unet" / f"{STEM}.fp16.safetensors")

    assert torch.equal(answers(load_backbone(folder)), expected)


def test_of_several_variants_the_one_of_a_stated_order_is_read_and_told(folder, caplog):
    tensors = taken(folder / "unet")
    expected = {"fp16": half(tensors), "bf16": half(tensors, torch.bfloat16), "non_ema": half(tensors)}
    for variant, content in expected.items():
        save_file(content, folder / "unet" / f"{STEM}.{variant}.safetensors")

    with caplog.at_level(logging.WARNING):
        backbone = load_backbone(folder)

    assert "variants bf16, fp16, non_ema; fp16 is read" in caplog.text
    assert f"{STEM}.fp16.safetensors, variant fp16" in backbone.facts[1]


@pytest.mark.parametrize("index", [f"{STEM}.safetensors.index.fp16.json", f"{STEM}.safetensors.fp16.index.json"])
def test_a_variant_in_shards_is_read_and_a_missing_shard_is_named(folder, index):
    expected = answers(load_backbone(folder))
    tensors = half(taken(folder / "unet"))
    names = sorted(tensors)
    shards = {f"{STEM}.fp16-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, folder / "unet" / shard)
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    (folder / "unet" / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    backbone = load_backbone(folder)

    torch.testing.assert_close(answers(backbone), expected, atol=0.01, rtol=0.01)
    assert "and 1 more, variant fp16 raised to fp32" in backbone.facts[1]
    (folder / "unet" / list(shards)[1]).unlink()
    with pytest.raises(BackboneError, match=r"unet lacks .*fp16-00002-of-00002\.safetensors, which .* names; fetch"):
        load_backbone(folder)


@pytest.mark.parametrize("content", ["[]", '{"weight_map": 3}', '{"weight_map": {}}', "{" * 100_000])
def test_an_index_that_names_no_files_is_refused(folder, content):
    taken(folder / "unet")
    (folder / "unet" / f"{STEM}.safetensors.index.json").write_text(content)

    with pytest.raises(BackboneError, match=r"index\.json (has no weight_map|must hold a JSON object|is not JSON)"):
        load_backbone(folder)


def test_the_autoencoder_may_be_a_variant_too(latent_folder):
    expected = load_backbone(latent_folder).codec.decode(torch.ones(1, 4, 8, 8))
    save_file(half(taken(latent_folder / "vqvae")), latent_folder / "vqvae" / f"{STEM}.fp16.safetensors")

    backbone = load_backbone(latent_folder)

    torch.testing.assert_close(backbone.codec.decode(torch.ones(1, 4, 8, 8)), expected, atol=0.01, rtol=0.01)
    assert any("vqvae" in line and "variant fp16" in line for line in backbone.facts)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "diffusion_model."])
def test_a_prefix_is_taken_off_in_a_folder(folder, prefix):
    expected = answers(load_backbone(folder))
    tensors = taken(folder / "unet")
    save_file({prefix + name: value for name, value in tensors.items()}, folder / "unet" / f"{STEM}.safetensors")

    backbone = load_backbone(folder)

    assert torch.equal(answers(backbone), expected)
    assert backbone.facts[1] == f"weights: unet/{STEM}.safetensors, prefix {prefix} taken off"


def test_a_folders_bin_with_two_models_says_what_to_do(folder):
    tensors = taken(folder / "unet")
    torch.save({"model": tensors, "ema": tensors}, folder / "unet" / f"{STEM}.bin")

    with pytest.raises(BackboneError, match=r"holds 2 models: ema, model; save the one that is wanted alone"):
        load_backbone(folder)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
        lambda tensors: {"state_dict": {f"model.diffusion_model.{n}": v for n, v in tensors.items()}, "epoch": 4},
        lambda tensors: {"ema": {f"_orig_mod.{n}": v for n, v in tensors.items()}, "step": 1000, "loss": torch.ones(3)},
    ],
)
def test_an_adm_checkpoint_is_read_out_of_what_wraps_it(adm, tmp_path, wrap):
    first, _, flags = adm
    torch.save(wrap(torch.load(first, weights_only=True)), tmp_path / "wrapped.pt")
    label = torch.tensor([3])

    plain, wrapped = load_backbone(first, **flags["first"]), load_backbone(tmp_path / "wrapped.pt", **flags["first"])

    assert torch.equal(wrapped.denoiser(X_T, T, label).eps, plain.denoiser(X_T, T, label).eps)
    assert "taken off" in wrapped.facts[1]
    assert wrapped.sha256 != plain.sha256


def test_one_of_two_adm_models_is_picked_by_a_flag(adm, tmp_path):
    first, _, flags = adm
    tensors = torch.load(first, weights_only=True)
    torch.save({"model": {n: 0 * v for n, v in tensors.items()}, "ema": tensors}, tmp_path / "both.pt")
    label = torch.tensor([3])

    with pytest.raises(BackboneError, match=r"holds 2 models: ema, model; say which one .*, e\.g\. weights=ema"):
        load_backbone(tmp_path / "both.pt", **flags["first"])

    picked = load_backbone(tmp_path / "both.pt", weights="ema", **flags["first"])
    expected = load_backbone(first, **flags["first"])
    assert torch.equal(picked.denoiser(X_T, T, label).eps, expected.denoiser(X_T, T, label).eps)


@pytest.mark.parametrize("part", ["unet", "vqvae"])
def test_a_folder_with_a_number_that_is_none_is_refused_by_the_tensors_name(latent_folder, part):
    path = latent_folder / part / f"{STEM}.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[3]
    tensors[name].view(-1)[-1] = float("nan")
    save_file(tensors, path)

    with pytest.raises(
        BackboneError, match=rf"{part}/{STEM}\.safetensors holds NaN .* \({name}\): its training diverged"
    ):
        load_backbone(latent_folder)


@pytest.mark.parametrize("stage", ["first", "upsampler"])
def test_an_adm_stage_with_infinity_is_refused(adm, stage):
    path, flags = {"first": adm[0], "upsampler": adm[1]}[stage], adm[2][stage]
    tensors = torch.load(path, weights_only=True)
    tensors["out.2.bias"][0] = float("inf")
    torch.save(tensors, path)

    with pytest.raises(BackboneError, match=r"holds NaN or infinity in 1 of \d+ tensors \(out\.2\.bias\)"):
        load_backbone(path, **flags)


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", f"unet/{STEM}.safetensors"])
def test_a_pointer_in_a_folder_is_told(folder, name):
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 1234\n")

    with pytest.raises(BackboneError, match=rf"{name} is a Git LFS pointer, not the file itself; run git lfs pull"):
        load_backbone(folder)


def test_weights_too_large_for_fp16_are_refused_with_the_precision_and_the_remedy(folder):
    path = folder / "unet" / f"{STEM}.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"].view(-1)[0] = 70_000.0
    save_file(tensors, path)
    backbone = load_backbone(folder)

    with pytest.raises(BackboneError, match=r"unet\.conv_in\.weight holds numbers beyond the 65504 of fp16; set prec"):
        backbone.in_precision("fp16")

    assert backbone.in_precision("bf16").name == "model"


def test_a_learned_variance_is_told_from_none(adm, folder):
    first, _, flags = adm

    assert learned_variance(load_backbone(first, **flags["first"])) == "within a range"
    assert learned_variance(load_backbone(folder)) is None


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**12),
        ("scheduler/scheduler_config.json", "num_train_timesteps", None),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 0),
        ("scheduler/scheduler_config.json", "beta_start", None),
        ("scheduler/scheduler_config.json", "beta_start", []),
        ("unet/config.json", "layers_per_block", 10**9),
        ("unet/config.json", "block_out_channels", []),
        ("unet/config.json", "block_out_channels", None),
        ("unet/config.json", "down_block_types", ["NoBlock", "NoBlock"]),
        ("unet/config.json", "attention_head_dim", 0),
    ],
)
def test_an_absurd_setting_of_a_folder_is_refused_in_one_line(folder, name, key, value):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    with pytest.raises(BackboneError, match=r"^[^\n]+\.$"):
        load_backbone(folder)
