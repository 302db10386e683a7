import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minority.backbones import PRESETS, AdmFlags, BackboneError, convert, load_backbone
from minority.backbones.adm import layout_of
from minority.backbones.adm_layout import expected_shapes

ADM = Path(__file__).parents[1] / "golden" / "adm"
TINY = AdmFlags(
    image_size=8,
    noise_schedule="linear",
    use_new_attention_order=False,
    num_head_channels=16,
    num_channels=32,
    channel_mult=(1, 1),
    num_res_blocks=1,
    attention_resolutions=(4,),
    class_cond=True,
    use_scale_shift_norm=True,
    resblock_updown=True,
    learn_sigma=True,
    low_resolution=False,
    image_channels=3,
)
UNTOLD = {"image_size": 8, "noise_schedule": "linear", "use_new_attention_order": False, "num_head_channels": 16}


def published_shapes(preset):
    return {name: tuple(shape) for name, shape in json.loads((ADM / f"keys_{preset}.json").read_text())}


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def tiny_tensors():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shapes = expected_shapes(layout_of(TINY, {"label_emb.weight": (7, 0)}))
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def tiny_file(tiny_tensors, tmp_path):
    torch.save(tiny_tensors, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_tensor_of_a_published_checkpoint_is_used_and_every_parameter_filled(preset):
    shapes = published_shapes(preset)
    recorded = json.loads((ADM / f"unetargs_{preset}.json").read_text())

    unet = convert(on_meta(shapes), PRESETS[preset])

    assert expected_shapes(layout_of(PRESETS[preset], {})) == shapes
    assert sum(parameter.numel() for parameter in unet.parameters()) == sum(
        torch.Size(shape).numel() for shape in shapes.values()
    )
    if preset == "upsampler64_256":
        del recorded["attention_head_dim"]  # it cannot say "four heads at every width"; they are set after it
        heads = {module.heads for module in unet.modules() if hasattr(module, "sliceable_head_dim")}
        assert heads == {4}
    assert {name: unet.config[name] for name in recorded} == recorded


@pytest.mark.parametrize("preset", PRESETS)
def test_a_published_checkpoint_tells_its_architecture(preset):
    chosen = PRESETS[preset]
    silent = AdmFlags(
        image_size=chosen.image_size,
        noise_schedule=chosen.noise_schedule,
        use_new_attention_order=chosen.use_new_attention_order,
        num_heads=chosen.num_heads,
        num_head_channels=chosen.num_head_channels,
    )

    assert layout_of(silent, published_shapes(preset)) == layout_of(chosen, {})


def test_published_command_lines_give_the_presets():
    shared = {"attention_resolutions": "32,16,8", "learn_sigma": "True", "resblock_updown": True}
    upsampler = {"large_size": 256, "small_size": 64, "num_channels": 192, "num_heads": 4, "class_cond": True}
    bedroom = {"image_size": "256", "num_channels": "256", "num_head_channels": "64", "dropout": "0.1"}

    assert AdmFlags.from_command_line(shared | upsampler | {"use_fp16": True}) == PRESETS["upsampler64_256"]
    assert AdmFlags.from_command_line(shared | bedroom) == PRESETS["lsun_bedroom256"]


def test_a_checkpoint_loads_with_nothing_but_what_its_tensors_cannot_tell(tiny_file):
    backbone = load_backbone(str(tiny_file), **UNTOLD)

    prediction = backbone.denoiser(torch.randn(2, 3, 8, 8), torch.tensor([0, 999]), torch.tensor([0, 6]))
    assert backbone.name == "tiny"
    assert backbone.image_shape == (3, 8, 8)
    assert backbone.num_classes == 7
    assert backbone.schedule.num_steps == 1000
    assert prediction.eps.shape == prediction.variance_fraction.shape == (2, 3, 8, 8)
    assert len(backbone.sha256) == 64
    assert not any(parameter.requires_grad for parameter in backbone.denoiser.parameters())


def test_flags_are_read_as_a_command_line_has_them(tiny_file):
    given = UNTOLD | {"attention_resolutions": "4", "channel_mult": "1,1", "dropout": 0, "num_heads": None}

    backbone = load_backbone(tiny_file, **given)

    assert backbone.num_classes == 7


def test_half_precision_weights_become_single_precision(tiny_tensors, tmp_path):
    torch.save({name: tensor.half() for name, tensor in tiny_tensors.items()}, tmp_path / "half.pt")

    backbone = load_backbone(tmp_path / "half.pt", **UNTOLD)

    assert {parameter.dtype for parameter in backbone.denoiser.parameters()} == {torch.float32}


def test_rescaled_timesteps_reach_the_network_on_a_scale_of_a_thousand(tiny_file):
    plain = load_backbone(tiny_file, **UNTOLD).denoiser
    rescaled = load_backbone(tiny_file, **UNTOLD, diffusion_steps=4000, rescale_timesteps=True).denoiser
    x_t, label = torch.randn(1, 3, 8, 8), torch.tensor([3])

    expected = plain(x_t, torch.tensor([500]), label).eps

    assert torch.equal(rescaled(x_t, torch.tensor([2000]), label).eps, expected)


def test_labels_are_asked_for_where_the_checkpoint_has_classes(tiny_file):
    denoiser = load_backbone(tiny_file, **UNTOLD).denoiser

    with pytest.raises(ValueError, match=r"needs a label of 0 \.\.\. 6 for every sample, got None"):
        denoiser(torch.randn(1, 3, 8, 8), torch.tensor([0]), None)


def test_what_the_tensors_cannot_tell_is_asked_for_with_the_likely_preset(tmp_path):
    # The published names at nearly no size: every tensor a view of one number.
    tensors = {name: torch.zeros(1).expand(shape) for name, shape in published_shapes("imagenet64").items()}
    torch.save(tensors, tmp_path / "unknown.pt")

    with pytest.raises(BackboneError) as error:
        load_backbone(tmp_path / "unknown.pt", image_size=64)

    message = str(error.value)
    assert "unknown.pt: the tensors of an ADM checkpoint do not tell noise_schedule, use_new_attention_order" in message
    assert "num_heads or num_head_channels" in message
    assert "resembles preset imagenet64 most (100%" in message


def test_the_wrong_preset_names_the_first_differences_and_the_right_preset():
    tensors = on_meta(published_shapes("lsun_bedroom256"))

    with pytest.raises(BackboneError) as error:
        convert(tensors, PRESETS["celeba64"], source="bedroom.pt")

    message = str(error.value)
    assert message.startswith("bedroom.pt does not fit its flags (")
    assert "missing: input_blocks.5.0.skip_connection.weight" in message
    assert "unexpected: input_blocks.7.0.skip_connection.weight" in message
    assert "of another shape: time_embed.0.weight 1024x256 instead of 768x192" in message
    assert "resembles preset lsun_bedroom256 most (100%" in message
    assert "\n" not in message


def test_a_checkpoint_that_lacks_its_end_names_what_is_missing(tiny_tensors):
    without_end = {name: tensor for name, tensor in tiny_tensors.items() if not name.startswith("out.")}

    with pytest.raises(BackboneError, match=r"torn\.pt has no usable tensor out\.2\.weight"):
        convert(without_end, AdmFlags(**UNTOLD), source="torn.pt")
    with pytest.raises(BackboneError, match=r"torn\.pt does not fit its flags \(4 missing: out\.0\.weight"):
        convert(without_end, TINY, source="torn.pt")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"preset": "celeba"}, "unknown preset 'celeba'; choose one of celeba64, lsun_bedroom256"),
        ({"num_chanels": 32}, "unknown flag num_chanels; ADM checkpoints take image_size"),
        (UNTOLD | {"num_heads": 4}, "exactly one of num_heads and num_head_channels, got 4 and 16"),
        (UNTOLD | {"noise_schedule": "sigmoid"}, "must be linear or cosine, got 'sigmoid'"),
        (UNTOLD | {"num_head_channels": 24}, "num_head_channels = 24 does not divide the 32 channels"),
        (UNTOLD | {"channel_mult": [0.5, 1]}, "channel_mult must start with 1"),
        (UNTOLD | {"image_size": "big"}, "flag image_size takes a value of type int, got 'big'"),
        (UNTOLD | {"image_size": True}, "flag image_size takes a value of type int, got True"),
        (UNTOLD | {"learn_sigma": 1}, "flag learn_sigma takes a value of type bool, got 1"),
        (UNTOLD | {"noise_schedule": 3}, "flag noise_schedule takes a value of type str, got 3"),
        (UNTOLD | {"attention_resolutions": "8;4"}, "attention_resolutions takes numbers such as 32,16,8, got '8;4'"),
        (UNTOLD | {"use_scale_shift_norm": False}, "emb_layers.1.weight 64x128 instead of 32x128"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(tiny_file, flags, words):
    with pytest.raises(BackboneError) as error:
        load_backbone(tiny_file, **flags)

    assert words in str(error.value)
    assert "\n" not in str(error.value)


class RunsCode:
    """A harmless stand-in for an attack: unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, as_zip):
    trace = tmp_path / "it ran"
    torch.save({"time_embed.0.weight": RunsCode(trace)}, tmp_path / "evil.pt", _use_new_zipfile_serialization=as_zip)

    with pytest.raises(
        BackboneError, match=r"evil\.pt holds more than tensors and could run code.*asks for getattr"
    ) as error:
        load_backbone(tmp_path / "evil.pt", preset="celeba64")

    assert "\n" not in str(error.value)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_checkpoint_is_named(tiny_file, kept):
    content = tiny_file.read_bytes()
    tiny_file.write_bytes(content[: int(len(content) * kept)])

    with pytest.raises(BackboneError, match=r"tiny\.pt is (empty|truncated or not a checkpoint).*again\.$"):
        load_backbone(tiny_file, **UNTOLD)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"PK\x03\x04 and nothing else", bytes(64)])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "page.pt").write_bytes(content)

    with pytest.raises(BackboneError, match=r"page\.pt is truncated or not a checkpoint"):
        load_backbone(tmp_path / "page.pt", preset="celeba64")


def test_another_archive_is_named(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "archive.pt").write_bytes(buffer.getvalue())

    with pytest.raises(BackboneError, match=r"archive\.pt is truncated or not a checkpoint"):
        load_backbone(tmp_path / "archive.pt", preset="celeba64")


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(BackboneError, match=r"nowhere\.pt does not exist; give the path of a diffusers folder or"):
        load_backbone(str(tmp_path / "nowhere.pt"), preset="celeba64")


def test_tensors_of_another_family_resemble_no_preset():
    tensors = {"conv_in.weight": torch.zeros(8, 3, 3, 3), "output_blocks.3.0.weight": torch.zeros(1)}

    with pytest.raises(BackboneError, match=r"other\.pt has not the output_blocks of an ADM U-Net; it resembles none"):
        convert(tensors, AdmFlags(**UNTOLD), source="other.pt")


def test_a_first_level_wider_than_the_base_is_refused_by_tensors_and_by_command_line(tiny_tensors):
    halved = tiny_tensors | {"time_embed.0.weight": torch.zeros(256, 64)}

    with pytest.raises(BackboneError, match="starts with 32 channels on a base of 64; a channel_mult that does not"):
        convert(halved, AdmFlags(**UNTOLD))
    with pytest.raises(BackboneError, match="channel_mult must start with 1"):
        AdmFlags.from_command_line({"image_size": 512})


def test_command_lines_that_do_not_fit_are_refused():
    with pytest.raises(BackboneError, match="channel_mult has no default for image_size 96"):
        AdmFlags.from_command_line({"image_size": 96})
    with pytest.raises(BackboneError, match="num_heads_upsample must be -1 or num_heads"):
        AdmFlags.from_command_line({"num_heads": 4, "num_heads_upsample": 2})


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path):
    trace = tmp_path / "it ran"
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"time_embed.0.weight": RunsCode(trace)}))

    with pytest.raises(BackboneError, match=r"bare\.pt is truncated or not a checkpoint"):
        load_backbone(tmp_path / "bare.pt", preset="celeba64")

    assert not trace.exists()


def test_presets_can_be_changed_by_flags(tiny_tensors):
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny_tensors.items()}
    changed = replace(PRESETS["celeba64"], class_cond=True)

    assert layout_of(changed, shapes).num_class_embeds == 7
