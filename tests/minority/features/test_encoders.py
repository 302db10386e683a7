import sys
import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from minority.diffusion.noise import SampleNoise
from minority.features.encoders import ImageEncoder, Lpips, load_encoder
from minority.guidance.distances import distance_by_name, feature_distance
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.sampler import sample
from minority.weights import WeightsError


@pytest.fixture(scope="module")
def squeeze_weights(tmp_path_factory):
    """Random weights in torchvision's own layout: what LPIPS does with them is what counts here."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeeze.safetensors"
    save_file(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def resnet_weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def images(count=2, channels=1, side=8):
    return torch.rand((count, channels, side, side), generator=torch.Generator().manual_seed(count)) * 2 - 1


def test_lpips_is_the_package_s_own_with_the_given_trunk(squeeze_weights):
    pytest.importorskip("lpips")
    ours = Lpips("squeeze", weights=squeeze_weights)
    a, b = images(3, channels=3, side=64), images(4, channels=3, side=64)[:3]

    trunk = torchvision.models.squeezenet1_1(weights=None)
    from safetensors.torch import load_file

    trunk.load_state_dict(load_file(squeeze_weights))
    features = trunk.eval().features
    scaled = [(x - ours.metric.scaling_layer.shift) / ours.metric.scaling_layer.scale for x in (a, b)]
    first = []
    for x in scaled:
        x = features[1](features[0](x))  # the first layer that LPIPS compares
        first.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
    expected = ours.metric.lin0((first[0] - first[1]).square()).mean(dim=(2, 3)).flatten()
    _, layers = ours.metric(a, b, retPerLayer=True)
    torch.testing.assert_close(layers[0].flatten(), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(ours(a, b), sum(layer.flatten() for layer in layers), atol=1e-6, rtol=1e-5)


def test_lpips_takes_small_grey_images_and_is_zero_for_equal_ones(squeeze_weights):
    pytest.importorskip("lpips")
    distance = Lpips("squeeze", weights=squeeze_weights)

    assert distance(images(), images()).tolist() == [0, 0]
    assert (distance(images(), -images()) > 0).all()


PUBLISHED_FILES = {
    "alex": ("alexnet", "alexnet-owt-7be5be79.pth"),
    "vgg": ("vgg16", "vgg16-397923af.pth"),
    "squeeze": ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
}


def save_classifier(path, name, *, without=(), legacy=False):
    """A file with the names and shapes of torchvision's own: random where LPIPS looks, and one number elsewhere."""
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in getattr(torchvision.models, name)().state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: 0.05 * torch.randn(shape, generator=generator) if "features" in key else torch.zeros(1).expand(shape)
        for key, shape in shapes.items()
        if key not in without
    }
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)


@pytest.mark.parametrize("net", PUBLISHED_FILES)
def test_every_lpips_network_is_the_package_s_own_with_torchvision_s_file(net, tmp_path, monkeypatch):
    package = pytest.importorskip("lpips")
    name, file = PUBLISHED_FILES[net]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    save_classifier(tmp_path / "hub" / "checkpoints" / file, name)
    a, b = images(3, channels=3, side=64), images(4, channels=3, side=64)[:3]

    ours = Lpips(net)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = package.LPIPS(net=net, verbose=False)  # finds the same file in the same cache
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert (theirs(a, b) > 0).all()
    assert torch.equal(ours(a, b), theirs(a, b).flatten())


def test_lpips_reads_files_of_the_time_before_archives(tmp_path):
    pytest.importorskip("lpips")
    save_classifier(tmp_path / "old.pth", "squeezenet1_1", legacy=True)
    save_classifier(tmp_path / "new.pth", "squeezenet1_1")

    old, new = (Lpips("squeeze", weights=tmp_path / file) for file in ("old.pth", "new.pth"))

    assert torch.equal(old(images(), -images()), new(images(), -images()))


@pytest.mark.parametrize("net", ["alex", pytest.param("vgg", marks=pytest.mark.slow), "squeeze"])
def test_lpips_refuses_every_file_but_its_own_trunk_s(net, tmp_path):
    package = pytest.importorskip("lpips")
    name, _ = PUBLISHED_FILES[net]
    foreign = {"alex": "squeezenet1_1", "vgg": "alexnet", "squeeze": "alexnet"}[net]
    save_classifier(tmp_path / "foreign.pth", foreign)
    save_classifier(tmp_path / "incomplete.pth", name, without=("features.0.bias",))
    (tmp_path / "torn.pth").write_bytes((tmp_path / "incomplete.pth").read_bytes()[:5000])
    heads = Path(package.__file__).with_name("weights") / "v0.1" / f"{net}.pth"  # the package's own, of its last layers

    for path in (tmp_path / "foreign.pth", tmp_path / "incomplete.pth", heads):
        with pytest.raises(WeightsError, match=f"{path.name} does not hold the weights that LPIPS needs"):
            Lpips(net, weights=path)
    with pytest.raises(WeightsError, match=r"torn\.pth is truncated or not a checkpoint .*; fetch or copy it again"):
        Lpips(net, weights=tmp_path / "torn.pth")


def test_lpips_without_weights_says_where_to_put_them(tmp_path, monkeypatch):
    pytest.importorskip("lpips")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"weights of alexnet, and .*alexnet-owt-7be5be79.pth does not exist; put"):
        Lpips("alex")


def test_lpips_with_foreign_weights_is_refused(resnet_weights):
    pytest.importorskip("lpips")
    with pytest.raises(WeightsError, match="does not hold the weights that LPIPS needs"):
        Lpips("alex", weights=resnet_weights)


def test_lpips_without_the_package_names_it(monkeypatch, squeeze_weights):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(WeightsError, match="needs the package lpips"):
        Lpips("squeeze", weights=squeeze_weights)


def test_an_unknown_lpips_network_is_refused():
    with pytest.raises(WeightsError, match="alex, vgg, squeeze, got 'resnet'"):
        Lpips("resnet")


def test_an_encoder_ends_before_its_classes(resnet_weights):
    encoder = load_encoder("resnet18", resnet_weights, size=32)

    assert encoder(images()).shape == (2, 512)
    assert encoder(images(channels=3, side=32)).shape == (2, 512)


@pytest.mark.parametrize(
    ("name", "message"), [("resnet50", "does not hold the weights"), ("ours", "no encoder 'ours'")]
)
def test_an_encoder_that_cannot_be_loaded_is_refused(name, message, resnet_weights):
    with pytest.raises(WeightsError, match=message):
        load_encoder(name, resnet_weights)


def test_distances_by_name(resnet_weights):
    a, b = images(2), -images(2)

    assert torch.allclose(distance_by_name("l2", norm=1.0)(a, b), (a - b).abs().flatten(1).sum(dim=1))
    assert torch.allclose(distance_by_name("squared")(a, b), (a - b).square().flatten(1).sum(dim=1))
    by_features = distance_by_name("features", network="resnet18", weights=str(resnet_weights))
    encoder = load_encoder("resnet18", resnet_weights)
    assert torch.allclose(by_features(a, b), (encoder(a) - encoder(b)).norm(dim=1))
    with pytest.raises(ValueError, match="needs the path of the encoder's weights"):
        distance_by_name("features", network="resnet18")
    with pytest.raises(ValueError, match="no distance 'cosine'"):
        distance_by_name("cosine")


@pytest.mark.parametrize("distance", ["lpips", "features"])
@pytest.mark.parametrize("jacobian", [True, False])
def test_self_guidance_climbs_perceptual_distances(
    distance, jacobian, mixture, trained, squeeze_weights, resnet_weights
):
    if distance == "lpips":
        pytest.importorskip("lpips")
    network, weights = {"lpips": ("squeeze", squeeze_weights), "features": ("resnet18", resnet_weights)}[distance]
    guidance = SelfGuidance(
        scale=4.0, interval=2, distance=distance, network=network, weights=str(weights), jacobian=jacobian
    )
    noise, schedule = SampleNoise(0, range(2), shape=(1, 4, 4)), trained.respaced(4)

    plain, _ = sample(mixture, schedule, noise)
    guided, cost = sample(mixture, schedule, noise, guidance=[guidance])

    assert torch.isfinite(guided).all()
    assert not torch.equal(plain, guided)
    assert cost.backwards == (2 if jacobian else 0)


def test_any_encoder_makes_a_distance():
    encoder = ImageEncoder(torch.nn.Flatten(), size=None)

    same = feature_distance(encoder)(images(), images())

    assert same.tolist() == [0, 0]
