import sys
import textwrap

import pytest
import torch

from minority.backbones import BackboneError, OwnModel, load_backbone
from minority.diffusion.schedule import NoiseSchedule
from minority.sampling.draw import SamplerSettings, draw_images

MODULE = """
import torch
from torch import nn
from minority.backbones import OwnModel, entry_point

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x_t, t{label}):
        return {output}

@entry_point
def load():
    return OwnModel(Network(), image_shape=(3, 8, 8), {settings})

@entry_point
def nothing():
    return None

number = 3
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a user's module into the current folder; gives its entry point."""
    monkeypatch.chdir(tmp_path)
    names = []

    def make(name, *, output="self.weight * x_t", label="", settings="schedule='linear'"):
        text = MODULE.format(output=output, label=label, settings=settings)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        names.append(name)
        return f"{name}:load"

    yield make
    for name in names:
        sys.modules.pop(name, None)


def test_a_network_of_ones_own_becomes_a_backbone(write):
    backbone = load_backbone(write("plain"))

    prediction = backbone.denoiser(torch.ones(2, 3, 8, 8), torch.tensor([0, 999]), None)
    assert torch.equal(prediction.eps, torch.full((2, 3, 8, 8), 0.5))
    assert prediction.variance_fraction is None
    assert (backbone.name, backbone.image_shape, backbone.num_classes) == ("plain:load", (3, 8, 8), None)
    assert backbone.bound == 1.0


def test_the_example_draws_from_the_command_lines_own_folder():
    backbone = load_backbone("examples.own_model:load")

    images, _ = draw_images(backbone, seed=0, indices=range(3), labels=[0, 1, 9], settings=SamplerSettings(steps=3))

    assert images.shape == (3, 8, 8, 1)
    assert load_backbone("examples.own_model:load").identity == backbone.identity


def test_twice_the_channels_are_a_learned_variance(write):
    backbone = load_backbone(write("learned", output="torch.cat([x_t, torch.ones_like(x_t)], dim=1)"))

    prediction = backbone.denoiser(torch.ones(2, 3, 8, 8), torch.tensor([0, 999]), None)

    assert torch.equal(prediction.variance_fraction, torch.ones(2, 3, 8, 8))


def test_the_schedule_and_the_prediction_are_the_declared_ones(write):
    settings = "schedule='cosine', prediction_type='sample', bound=None"
    backbone = load_backbone(write("declared", settings=settings))
    x_t, t = torch.ones(1, 3, 8, 8), torch.tensor([300])

    prediction = backbone.denoiser(x_t, t, None)

    assert backbone.bound is None
    abar = NoiseSchedule.cosine().abar[300]
    torch.testing.assert_close(prediction.x0_hat, torch.full((1, 3, 8, 8), 0.5))
    torch.testing.assert_close(abar**0.5 * 0.5 + (1 - abar) ** 0.5 * prediction.eps, x_t, rtol=1e-5, atol=1e-5)


def test_labels_reach_the_network_and_none_becomes_the_declared_one(write):
    label, output = ", y", "x_t + y[:, None, None, None]"
    denoiser = load_backbone(
        write("labelled", label=label, output=output, settings="num_classes=3, no_label=3")
    ).denoiser
    x_t, t = torch.zeros(1, 3, 8, 8), torch.tensor([5])

    assert denoiser(x_t, t, torch.tensor([2])).eps.unique().tolist() == [2.0]
    assert denoiser(x_t, t, None).eps.unique().tolist() == [3.0]


def test_a_missing_label_is_asked_for(write):
    backbone = load_backbone(write("strict", label=", y", settings="num_classes=3"))

    with pytest.raises(ValueError, match=r"needs a label of 0 \.\.\. 2 for every sample, got None"):
        backbone.denoiser(torch.zeros(1, 3, 8, 8), torch.tensor([5]), None)
    with pytest.raises(ValueError, match=r"knows 3 classes; give a label for every sample"):
        draw_images(backbone, seed=0, indices=[0], labels=None, settings=SamplerSettings(steps=2))


def test_other_source_or_other_weights_change_the_identity(write, tmp_path):
    first = load_backbone(write("versions")).identity

    def reload(change):
        sys.modules.pop("versions")
        path = tmp_path / "versions.py"
        path.write_text(change(path.read_text()))
        return load_backbone("versions:load").identity

    commented = reload(lambda text: text + "\n# another line\n")
    weighted = reload(lambda text: text.replace("0.5", "0.25"))
    assert len({first, commented, weighted}) == 3


def test_weights_from_elsewhere_count_though_the_source_stays(write, tmp_path):
    torch.save(torch.full((1,), 0.5), tmp_path / "weights.pt")
    entry_point = write("stored")
    path = tmp_path / "stored.py"
    path.write_text(path.read_text().replace("torch.full((1,), 0.5)", "torch.load('weights.pt', weights_only=True)"))
    before = load_backbone(entry_point).identity

    torch.save(torch.full((1,), 0.75), tmp_path / "weights.pt")

    assert load_backbone(entry_point).identity != before


@pytest.mark.parametrize(
    ("entry_point", "changes", "words"),
    [
        (
            "nowhere.to_be_found:load",
            {},
            "there is no module nowhere; install it, or start in the folder",
        ),
        ("own:fetch", {}, "own.py has no function fetch"),
        ("own:number", {}, "own.py has no function number"),
        ("own:nothing", {}, "must return a minority.backbones.OwnModel, it returned a NoneType"),
        ("own:load", {"label": ", y"}, "Network must be callable as network(x_t, t): missing a required argument: 'y'"),
        ("own:load", {"settings": "num_classes=3"}, "must be callable as network(x_t, t, y): too many positional"),
        ("own:load", {"output": "x_t[:, :2]"}, "must return a tensor of (1, 3, 8, 8), or of (1, 6, 8, 8)"),
        ("own:load", {"output": "{'sample': x_t}"}, "it returned a dict"),
        ("own:load", {"settings": "schedule='sigmoid'"}, '"linear", "cosine" or a NoiseSchedule, got \'sigmoid\''),
        ("own:load", {"settings": "prediction_type='score'"}, "must be epsilon, sample or v_prediction, got 'score'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(write, entry_point, changes, words):
    write("own", **changes)

    with pytest.raises(BackboneError) as error:
        load_backbone(entry_point)

    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_that_its_code_lacks_is_named(write, tmp_path):
    write("needy")
    (tmp_path / "needy.py").write_text("import a_package_nobody_has\n")

    with pytest.raises(BackboneError, match="needy:load needs the module a_package_nobody_has, which is not installed"):
        load_backbone("needy:load")


def test_what_the_users_code_raises_is_passed_on(write, tmp_path):
    write("broken")
    text = "from minority.backbones import entry_point\n\n@entry_point\ndef load():\n    raise KeyError('mine')\n"
    (tmp_path / "broken.py").write_text(text)

    with pytest.raises(KeyError, match="mine"):
        load_backbone("broken:load")


def test_an_entry_point_takes_no_flags(write):
    with pytest.raises(BackboneError, match="brings its own settings; leave out preset"):
        load_backbone(write("flagged"), preset="celeba64")


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 0), (3.0, 8, 8)])
def test_an_image_shape_that_is_none_is_refused(shape):
    with pytest.raises(BackboneError, match=r"must be \(channels, height, width\)"):
        OwnModel(torch.nn.Identity(), image_shape=shape)


def test_a_function_is_no_network():
    with pytest.raises(BackboneError, match="must be a torch module, got a function"):
        OwnModel(lambda x, t: x, image_shape=(1, 8, 8))


def test_a_function_that_is_not_marked_is_never_called(write, tmp_path):
    write("bystander")
    path = tmp_path / "bystander.py"
    path.write_text(path.read_text() + "\ndef wipe():\n    open('it ran', 'w')\n    return load()\n")

    for named in ("bystander:wipe", "os:getcwd", "shutil:rmtree", "antigravity_of_nobody:fly"):
        with pytest.raises(
            BackboneError, match=r"is not marked as an entry point, so it is not called|no (module|func)"
        ):
            load_backbone(named)

    assert not (tmp_path / "it ran").exists()
    assert load_backbone("bystander:load").image_shape == (3, 8, 8)


def test_a_marked_function_that_is_wrapped_is_not_marked_itself(write, tmp_path):
    write("wrapped")
    path = tmp_path / "wrapped.py"
    wrapper = "@functools.wraps(load)\ndef other():\n    open('it ran', 'w')\n"
    path.write_text(path.read_text() + f"\nimport functools\n{wrapper}")

    with pytest.raises(BackboneError, match="wrapped:other is not marked as an entry point"):
        load_backbone("wrapped:other")

    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("x_t / 0", "the answer of Network to an empty image is NaN or infinite in 100.00% of its numbers"),
        ("(x_t + self.weight).log() * 1e39", "the answer of Network to an empty image is NaN or infinite"),
    ],
)
def test_a_network_that_answers_no_numbers_is_refused_when_it_is_loaded(write, output, words):
    with pytest.raises(BackboneError, match=words):
        load_backbone(write("diverged", output=output))


def test_parameters_that_are_no_numbers_are_named(write, tmp_path):
    write("burst")
    path = tmp_path / "burst.py"
    path.write_text(path.read_text().replace("(1,), 0.5", "(1,), float('inf')"))

    with pytest.raises(BackboneError, match=r"Network holds NaN or infinity in 1 of 1 tensors \(weight\)"):
        load_backbone("burst:load")
