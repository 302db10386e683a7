import json
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from safetensors.torch import load_file, save_file

from minority.backbones import BackboneError, UNetDenoiser, UNetSettings, convert, load_backbone, save_folder
from minority.backbones.adm import layout_of
from minority.backbones.adm_flags import AdmFlags
from minority.backbones.adm_layout import expected_shapes
from minority.backbones.unet import set_attention_heads
from minority.diffusion.schedule import NoiseSchedule
from tests.tiny_networks import tiny_unet


def network(**further):
    return tiny_unet(widths=(16, 32), attention=True, norm_num_groups=8, **further)


def inputs(batch=2, channels=1):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, 8, 8, generator=generator), torch.tensor([7, 950])[:batch]


@torch.no_grad()
def test_a_saved_backbone_loads_with_exactly_the_same_outputs(tmp_path):
    unet = network(out_channels=2, num_class_embeds=11)
    settings = UNetSettings(num_classes=10)
    schedule = NoiseSchedule.cosine(1000)
    x_t, timestep = inputs()
    label = torch.tensor([9, 0])
    before = UNetDenoiser(unet, schedule, settings=settings)(x_t, timestep, label)

    save_folder(tmp_path / "digits", unet, schedule=schedule, settings=settings, card="# Digits\n")
    backbone = load_backbone(tmp_path / "digits")

    after = backbone.denoiser(x_t, timestep, label)
    assert torch.equal(after.eps, before.eps)
    assert torch.equal(after.variance_fraction, before.variance_fraction)
    assert (backbone.name, backbone.image_shape, backbone.num_classes) == ("digits", (1, 8, 8), 10)
    assert (tmp_path / "digits" / "README.md").read_text() == "# Digits\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]


@torch.no_grad()
def test_an_upsampler_keeps_its_heads_through_a_folder(tmp_path):
    flags = AdmFlags(
        image_size=16,
        noise_schedule="linear",
        use_new_attention_order=False,
        num_heads=4,
        num_channels=32,
        channel_mult=(1, 2, 4),
        num_res_blocks=1,
        attention_resolutions=(8, 4),
        class_cond=False,
        use_scale_shift_norm=True,
        resblock_updown=True,
        learn_sigma=True,
        low_resolution=True,
        image_channels=3,
    )
    torch.manual_seed(0)
    tensors = {name: 0.2 * torch.randn(shape) for name, shape in expected_shapes(layout_of(flags, {})).items()}
    unet = convert(tensors, flags)
    settings = UNetSettings(low_resolution=True, attention_heads=4)
    schedule = NoiseSchedule.linear(1000)
    x_t, small, timestep = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 4, 4), torch.tensor([7, 950])
    before = UNetDenoiser(unet, schedule, settings=settings).conditioned_on(small)(x_t, timestep, None)

    save_folder(tmp_path / "upsampler", unet, schedule=schedule, settings=settings)
    denoiser = load_backbone(tmp_path / "upsampler").denoiser

    after = denoiser.conditioned_on(small)(x_t, timestep, None)
    assert torch.equal(after.eps, before.eps)
    assert torch.equal(after.variance_fraction, before.variance_fraction)
    # The heads matter: with others the same weights say something else.
    set_attention_heads(denoiser.unet, 2)
    assert not torch.allclose(denoiser.conditioned_on(small)(x_t, timestep, None).eps, before.eps, atol=1e-3)


@pytest.mark.parametrize(
    "schedule",
    [
        NoiseSchedule.cosine(1000),
        NoiseSchedule.linear(1000),
        NoiseSchedule.linear(200),
        NoiseSchedule.from_betas(np.linspace(0.01, 0.3, 50) ** 1.5),
    ],
    ids=["cosine", "linear", "short linear", "other"],
)
def test_the_schedule_survives_a_folder(tmp_path, schedule):
    save_folder(tmp_path / "model", network(), schedule=schedule)

    loaded = load_backbone(tmp_path / "model").schedule

    # A schedule without a name goes through its betas, which costs a rounding a step.
    np.testing.assert_allclose(loaded.abar, schedule.abar, rtol=1e-13)
    assert loaded.num_steps == schedule.num_steps


def test_bare_diffusers_opens_the_folder(tmp_path):
    unet = network()
    save_folder(tmp_path / "model", unet, schedule=NoiseSchedule.cosine(1000))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' deprecations
        pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")

    x_t, timestep = inputs()
    assert torch.equal(pipeline.unet(x_t, timestep).sample, unet(x_t, timestep).sample)
    # diffusers keeps its table in fp32.
    ours = torch.from_numpy(NoiseSchedule.cosine(1000).abar).float()
    torch.testing.assert_close(pipeline.scheduler.alphas_cumprod, ours, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
@torch.no_grad()
def test_clean_image_and_v_predictions_become_the_noise_that_explains_x_t(tmp_path, prediction_type):
    unet = network()
    schedule = NoiseSchedule.linear(1000)
    save_folder(tmp_path / "model", unet, schedule=schedule, settings=UNetSettings(prediction_type=prediction_type))
    denoiser = load_backbone(tmp_path / "model").denoiser
    x_t, timestep = inputs()

    eps = denoiser(x_t, timestep, None).eps.double()

    output = unet(x_t, timestep).sample.double()
    abar = torch.from_numpy(schedule.abar)[timestep].view(-1, 1, 1, 1)
    x0 = (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()
    predicted = x0 if prediction_type == "sample" else abar.sqrt() * eps - (1 - abar).sqrt() * x0
    # At timestep 950 dividing by sqrt(abar) enlarges fp32's rounding by 100.
    torch.testing.assert_close(predicted, output, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_no_label_means_the_last_embedding(tmp_path):
    denoiser = UNetDenoiser(
        network(num_class_embeds=11), NoiseSchedule.linear(1000), settings=UNetSettings(num_classes=10)
    )
    x_t, timestep = inputs()

    none, last = denoiser(x_t, timestep, None).eps, denoiser(x_t, timestep, torch.tensor([10, 10])).eps

    assert torch.equal(none, last)
    assert not torch.equal(none, denoiser(x_t, timestep, torch.tensor([0, 0])).eps)


def test_an_unconditional_backbone_refuses_labels():
    denoiser = UNetDenoiser(network(), NoiseSchedule.linear(1000))
    x_t, timestep = inputs()

    with pytest.raises(ValueError, match="unconditional: it takes no labels"):
        denoiser(x_t, timestep, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="takes no low-resolution image"):
        denoiser.conditioned_on(x_t)


def test_old_attention_names_and_bare_unet_folders_are_read(tmp_path):
    unet = network()
    save_folder(tmp_path / "new", unet, schedule=NoiseSchedule.linear(1000))
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text((tmp_path / "new" / "unet" / "config.json").read_text())
    (old / "scheduler_config.json").write_text((tmp_path / "new" / "scheduler" / "scheduler_config.json").read_text())
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(tmp_path / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    for new_name, old_name in names.items():
        tensors = {name.replace(f".{new_name}.", f".{old_name}."): tensor for name, tensor in tensors.items()}
    torch.save(tensors, old / "diffusion_pytorch_model.bin")

    backbone = load_backbone(old)

    x_t, timestep = inputs()
    assert torch.equal(backbone.denoiser(x_t, timestep, None).eps, unet(x_t, timestep).sample)


def test_moving_a_backbone_leaves_the_shared_one_in_place(tmp_path):
    save_folder(tmp_path / "model", network(), schedule=NoiseSchedule.linear(1000))
    backbone = load_backbone(tmp_path / "model")

    moved = backbone.to("meta")

    assert next(moved.denoiser.parameters()).device.type == "meta"
    assert next(backbone.denoiser.parameters()).device.type == "cpu"
    assert backbone.to("cpu") is backbone


def test_saving_again_replaces_the_backbone_but_nothing_else(tmp_path):
    save_folder(tmp_path / "model", network(), schedule=NoiseSchedule.linear(1000), card="first")
    save_folder(tmp_path / "model", network(), schedule=NoiseSchedule.linear(1000), card="second")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")

    with pytest.raises(BackboneError, match="mine exists and is not a backbone folder, so it is left alone"):
        save_folder(tmp_path / "mine", network(), schedule=NoiseSchedule.linear(1000))

    assert (tmp_path / "model" / "README.md").read_text() == "second"
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_saving_leaves_a_model_in_training(tmp_path):
    unet = network().train()

    save_folder(tmp_path / "model", unet, schedule=NoiseSchedule.linear(1000))

    assert unet.training
    assert all(parameter.requires_grad for parameter in unet.parameters())


def test_a_respaced_schedule_is_not_saved(tmp_path):
    with pytest.raises(BackboneError, match="respaced schedule cannot be saved"):
        save_folder(tmp_path / "model", network(), schedule=NoiseSchedule.linear(1000).respaced("25"))

    assert not (tmp_path / "model").exists()


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def drop_a_tensor(path):
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path)


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


def test_a_freely_learned_variance_is_read_as_diffusers_writes_it(tmp_path):
    unet, settings = network(out_channels=2), UNetSettings(variance_type="learned")
    folder = save_folder(tmp_path / "model", unet, schedule=NoiseSchedule.linear(1000), settings=settings)
    (folder / "minority.json").unlink()
    x_t, timestep = torch.randn(2, 1, 8, 8), torch.tensor([3, 700])

    found = load_backbone(folder).denoiser(x_t, timestep, None)

    with torch.no_grad():
        expected = unet.eval()(x_t, timestep).sample[:, 1:].clamp(min=1e-20)
    assert found.variance_fraction is None
    torch.testing.assert_close(found.log_variance.exp(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        (WEIGHTS, lambda path: path.unlink(), "is missing; the folder must hold the model's weights"),
        (WEIGHTS, cut, "is truncated or not a safetensors file"),
        (WEIGHTS, lambda path: path.write_bytes(b""), "is empty"),
        (WEIGHTS, drop_a_tensor, "does not fit the config.json beside it (1 missing: conv_in.bias)"),
        (UNET, lambda path: path.unlink(), "is missing; the folder must be laid out as diffusers saves"),
        (UNET, lambda path: path.write_text("{"), "is not JSON"),
        (UNET, lambda path: path.write_text("[]"), "must hold a JSON object, it holds a list"),
        (UNET, lambda path: edit_json(path, block_out_channels=[16, 64]), "of another shape"),
        (UNET, lambda path: edit_json(path, _class_name="UNet2DConditionModel"), "is of a UNet2DConditionModel"),
        (UNET, lambda path: edit_json(path, sample_size=None), "has no sample_size"),
        (SCHEDULER, lambda path: edit_json(path, beta_schedule="sigmoid"), "beta_schedule 'sigmoid'"),
        (SCHEDULER, lambda path: edit_json(path, prediction_type="flow"), "got 'flow'"),
        (SCHEDULER, lambda path: edit_json(path, rescale_betas_zero_snr=True), "rescale_betas_zero_snr"),
        ("minority.json", lambda path: edit_json(path, num_classes=3), "cannot have num_classes = 3"),
        ("minority.json", lambda path: edit_json(path, classes=3), "unknown entry classes"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, file, damage, words):
    folder = save_folder(tmp_path / "model", network(), schedule=NoiseSchedule.linear(1000))
    damage(folder / file)

    with pytest.raises(BackboneError) as error:
        load_backbone(folder)

    assert str(folder) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_takes_no_flags(tmp_path):
    save_folder(tmp_path / "model", network(), schedule=NoiseSchedule.linear(1000))

    with pytest.raises(BackboneError, match="brings its own settings; leave out preset"):
        load_backbone(tmp_path / "model", preset="celeba64")


def test_output_channels_that_are_neither_once_nor_twice_the_image_are_refused():
    with pytest.raises(BackboneError, match="as many output channels, or twice as many"):
        UNetDenoiser(network(in_channels=3, out_channels=4), NoiseSchedule.linear(1000))
