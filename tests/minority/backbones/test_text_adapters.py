"""LoRA and textual inversion of every file form that people have, against diffusers' own loading."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minority.backbones import BackboneError, load_backbone
from minority.backbones.text.adapters import AdapterSettings
from minority.backbones.text.folder import TextToImage
from minority.backbones.text.prompts import Prompts
from tasks.commands.doctor import examine_backbone
from tasks.errors import InputError

pytest.importorskip("transformers")
pytest.importorskip("peft")
GOLDEN = Path(__file__).parents[1] / "golden" / "t2i"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
PROMPTS = Prompts(texts=(("a photo of a dog",), ("a chef",)))


def adapted(*adapters, prompts=PROMPTS, folder="sd"):
    return load_backbone(GOLDEN / folder, text=TextToImage(prompts=prompts, adapters=adapters))


def answer(backbone):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        x = torch.randn(2, *backbone.state_shape)
    with torch.no_grad():
        return backbone.denoiser(x, torch.tensor([300, 300]), torch.tensor([0, 1])).eps


def difference(one, other):
    return float((one - other).abs().max() / other.abs().max())


@pytest.fixture(scope="module")
def theirs():
    """diffusers' pipeline with a LoRA of rank 4 and alpha 12 in the U-Net, and what it answers."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    pipeline = StableDiffusionPipeline.from_pretrained(GOLDEN / "sd")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline.unet.add_adapter(LoraConfig(r=4, lora_alpha=12, target_modules=TARGETS))
        for name, parameter in pipeline.unet.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        torch.manual_seed(2)
        x = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        texts = [text for texts in PROMPTS.texts for text in texts]
        text, _ = pipeline.encode_prompt(texts, "cpu", 1, False)
        eps = pipeline.unet(x, torch.tensor([300, 300]), encoder_hidden_states=text).sample
    return pipeline, get_peft_model_state_dict(pipeline.unet), eps


def saved_by_diffusers(theirs, folder, *, with_scale):
    pipeline, state, _ = theirs
    told = {"unet_lora_adapter_metadata": pipeline.unet.peft_config["default"].to_dict()} if with_scale else {}
    type(pipeline).save_lora_weights(folder, unet_lora_layers=state, **told)
    return folder / "pytorch_lora_weights.safetensors"


def saved_by_peft(state, folder):
    folder.mkdir()
    save_file(
        {f"base_model.model.{name}": value for name, value in state.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 12, "peft_type": "LORA"}))
    return folder


def saved_by_kohya(state, path):
    tensors = {}
    for name, value in state.items():
        layer, _, factor = name.rpartition(".lora_")
        key = "lora_unet_" + layer.replace(".", "_")
        tensors[f"{key}.{'lora_down' if factor.startswith('A') else 'lora_up'}.weight"] = value.contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(12.0)
    save_file(tensors, path)
    return path


def test_every_form_of_lora_answers_as_diffusers_does(theirs, tmp_path):
    _, state, eps = theirs
    old = {}
    for name, value in state.items():
        layer, _, factor = name.rpartition(".lora_")
        block, _, projection = layer.removesuffix(".0").rpartition(".")
        half = "down" if factor.startswith("A") else "up"
        # The form has no scale, so that the factor itself is three times as large.
        old[f"unet.{block}.processor.{projection}_lora.{half}.weight"] = (
            value if half == "down" else 3 * value
        ).clone()
    save_file(old, tmp_path / "old.safetensors")
    files = [
        saved_by_diffusers(theirs, tmp_path / "diffusers", with_scale=True),
        tmp_path / "diffusers",
        saved_by_peft(state, tmp_path / "peft"),
        saved_by_kohya(state, tmp_path / "kohya.safetensors"),
        tmp_path / "old.safetensors",
    ]

    assert difference(answer(adapted()), eps) > 0.05
    for file in files:
        assert difference(answer(adapted(AdapterSettings(path=file))), eps) < 1e-5, file


def test_doctor_says_where_the_scale_came_from(theirs, tmp_path):
    _, state, _ = theirs
    forms = {
        "3 (alpha / rank of the file's metadata)": saved_by_diffusers(theirs, tmp_path / "a", with_scale=True),
        "1 (none is stored, so 1, as diffusers takes it; wrong where alpha was not the rank)": saved_by_diffusers(
            theirs, tmp_path / "b", with_scale=False
        ),
        "3 (alpha / rank of adapter_config.json)": saved_by_peft(state, tmp_path / "c"),
        "3 (alpha / rank, stored beside each layer)": saved_by_kohya(state, tmp_path / "d.safetensors"),
    }
    layers = len(state) // 2
    for told, file in forms.items():
        section = tmp_path / "section.yaml"
        section.write_text(f"path: {GOLDEN / 'sd'}\nadapters: [{{path: {file}, strength: 0.5}}]\n")
        lines = "\n".join(examine_backbone(str(section), {}))
        assert f"LoRA of rank 4 on {layers} layers; scale: {told}, times 0.5" in lines
        assert "ok family: StableDiffusion, numbered noise levels, predicts epsilon" in lines


def test_strength_multiplies_what_an_adapter_adds_and_is_part_of_the_identity(theirs, tmp_path):
    _, state, eps = theirs
    file = saved_by_kohya(state, tmp_path / "kohya.safetensors")

    none, half, whole = (adapted(AdapterSettings(path=file, strength=strength)) for strength in (0, 0.5, 1))

    torch.testing.assert_close(answer(none), answer(adapted()))
    assert 0.01 < difference(answer(half), answer(none)) < difference(eps, answer(none))
    assert len({backbone.identity for backbone in (none, half, whole, adapted())}) == 4


def test_sdxl_layers_by_the_names_of_its_original_code_are_the_same_adapter(tmp_path):
    backbone = adapted(folder="sdxl")
    unet = backbone.denoiser.network.unet
    name = next(n for n, _ in unet.named_modules() if n.startswith("down_blocks.1.") and n.endswith("attn2.to_q"))
    block, _, rest = name.removeprefix("down_blocks.").partition(".attentions.")
    layer, _, inner = rest.partition(".")
    number = int(block) * (unet.config.layers_per_block + 1) + int(layer) + 1
    original = f"lora_unet_input_blocks_{number}_1_{inner.replace('.', '_')}"
    out, into = unet.get_submodule(name).weight.shape
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, into, generator=generator), torch.randn(out, 2, generator=generator)
    for file, key in (("a", original), ("b", f"lora_unet_{name.replace('.', '_')}")):
        factors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
        save_file(factors, tmp_path / f"{file}.safetensors")

    answers = [answer(adapted(AdapterSettings(path=tmp_path / f"{file}.safetensors"), folder="sdxl")) for file in "ab"]

    torch.testing.assert_close(answers[0], answers[1])
    assert difference(answers[0], answer(backbone)) > 1e-3


def test_a_text_encoders_lora_changes_its_weights_and_so_the_prompts(tmp_path):
    down, up = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((2, 32), (64, 2)))
    key = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    factors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
    save_file(factors, tmp_path / "a.safetensors")

    plain, changed = adapted(), adapted(AdapterSettings(path=tmp_path / "a.safetensors"))

    weights = [
        dict(backbone.denoiser.encoders.clips(torch.device("cpu"))[0].model.named_parameters())
        for backbone in (plain, changed)
    ]
    name = next(name for name in weights[0] if name.endswith("layers.0.mlp.fc1.weight"))
    torch.testing.assert_close(weights[1][name], weights[0][name] + 0.5 * up @ down)
    texts = [backbone.denoiser.prompts.table.tensors["text"] for backbone in (plain, changed)]
    assert difference(texts[1], texts[0]) > 1e-3


def test_an_adapter_of_another_architecture_is_refused_with_its_first_keys(theirs, tmp_path):
    _, state, _ = theirs
    elsewhere = {f"unet.middle.{name}": value for name, value in state.items()}
    wider = {f"unet.{name}": torch.cat([value] * 2, dim=1) for name, value in state.items()}
    for number, (tensors, reason) in enumerate(
        [
            (elsewhere, r"another architecture: \d+ of its \d+ layers are not in this model \(unet.middle.down_blocks"),
            (wider, r"another architecture: unet.down_blocks\S+ is for a layer of \d+ inputs"),
        ]
    ):
        file = tmp_path / f"{number}.safetensors"
        save_file(tensors, file)
        with pytest.raises(BackboneError, match=reason):
            adapted(AdapterSettings(path=file))


@pytest.mark.parametrize("name", ["x.hada_w1_a", "unet.x.to_q.lora_magnitude_vector", "unet.x.norm.lora_bias"])
def test_other_kinds_of_adapters_are_refused(tmp_path, name):
    tensors = {"unet.x.to_q.lora_A.weight": torch.ones(2, 4), "unet.x.to_q.lora_B.weight": torch.ones(4, 2)}
    save_file(tensors | {name: torch.ones(3)}, tmp_path / "a.safetensors")
    with pytest.raises(BackboneError, match=f"no factors of it \\({name}\\)"):
        adapted(AdapterSettings(path=tmp_path / "a.safetensors"))


NEW = Prompts(texts=(("a photo of <cat>",), ("a chef",)))


def with_diffusers(vectors):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(GOLDEN / "sd")
    pipeline.load_textual_inversion({"<cat>": vectors})
    with torch.no_grad():
        return pipeline.encode_prompt(["a photo of <cat>"], "cpu", 1, False)[0]


@pytest.mark.parametrize("count", [1, 3])
def test_textual_inversion_embeds_prompts_as_diffusers_does(tmp_path, count):
    vectors = torch.randn(count, 32, generator=torch.Generator().manual_seed(0))
    save_file({"<cat>": vectors}, tmp_path / "a.safetensors")
    torch.save({"<cat>": vectors}, tmp_path / "a.bin")
    torch.save({"string_to_param": {"*": vectors}, "name": "cat"}, tmp_path / "a.pt")
    save_file({"emb_params": vectors}, tmp_path / "b.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = with_diffusers(vectors)

    for file in ("a.safetensors", "a.bin", "a.pt", "b.safetensors"):
        settings = AdapterSettings(path=tmp_path / file, token=None if file in ("a.safetensors", "a.bin") else "<cat>")
        ours = adapted(settings, prompts=NEW).denoiser.prompts.table.tensors["text"][:1]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_sdxl_takes_a_word_for_both_of_its_encoders_and_reads_the_pooled_state_at_the_texts_end(tmp_path):
    widths = [clip.vocabulary.shape[1] for clip in adapted(folder="sdxl").denoiser.encoders.clips(torch.device("cpu"))]
    vectors = {name: torch.randn(2, width) for name, width in zip(("clip_l", "clip_g"), widths, strict=True)}
    save_file(vectors, tmp_path / "a.safetensors")

    backbone = adapted(AdapterSettings(path=tmp_path / "a.safetensors", token="<cat>"), prompts=NEW, folder="sdxl")
    clip = backbone.denoiser.encoders.clips(torch.device("cpu"))[1]
    (states, pooled), text = clip(["a photo of <cat> <cat>_1"]), "a photo of <cat> <cat>_1"
    end = clip.ids([text])[0].tolist().index(clip.tokenizer.eos_token_id)

    with torch.no_grad():
        torch.testing.assert_close(pooled, clip.model.text_projection(states[:, end]))
    torch.testing.assert_close(backbone.denoiser.prompts.table.tensors["pooled"][:1], pooled.detach())


class Code:
    def __reduce__(self):
        return (print, ("run",))


def test_bad_inversions_end_in_one_line(tmp_path):
    torch.save({"<cat>": Code()}, tmp_path / "code.bin")
    save_file({"<cat>": torch.ones(48)}, tmp_path / "wide.safetensors")
    save_file({"dog</w>": torch.ones(32)}, tmp_path / "known.safetensors")
    save_file({"<cat>": torch.ones(32)}, tmp_path / "good.safetensors")
    save_file({"emb_params": torch.ones(32)}, tmp_path / "nameless.safetensors")
    save_file({"<cat>": torch.full((32,), torch.nan)}, tmp_path / "nan.safetensors")
    cases = {
        "code.bin": "could run code when opened",
        "wide.safetensors": "vectors of \\[48\\] features, the text encoders here take \\[32\\]",
        "known.safetensors": "dog</w> is a token of this model already",
        "nameless.safetensors": "set token",
        "nan.safetensors": "NaN or infinity",
        "absent.safetensors": "does not exist",
    }
    for name, reason in cases.items():
        with pytest.raises(BackboneError, match=reason):
            adapted(AdapterSettings(path=tmp_path / name), prompts=NEW)
    with pytest.raises(BackboneError, match="no prompt has the word <cat>"):
        adapted(AdapterSettings(path=tmp_path / "good.safetensors"))


def test_an_adapter_that_is_not_there_is_named(tmp_path):
    section = tmp_path / "section.yaml"
    section.write_text(f"path: {GOLDEN / 'sd'}\nadapters: [{tmp_path / 'absent'}]\n")

    with pytest.raises(InputError, match="absent does not exist"):
        examine_backbone(str(section), {})


def test_adapters_are_of_text_to_image_models(tmp_path):
    section = tmp_path / "section.yaml"
    section.write_text("path: backbones/digits\nadapters: [some.safetensors]\n")

    with pytest.raises(InputError, match=r"backbone\.adapters is of text-to-image models"):
        examine_backbone(str(section), {})
