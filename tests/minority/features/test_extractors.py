"""Feature extractors: each against the network it stands for, and what they refuse."""

import hashlib

import numpy as np
import pytest
import torch
import torchvision

from minority.backbones import load_backbone
from minority.classifier import ClassifierSettings
from minority.features import ExtractorSettings, build_extractor
from minority.features.inception import WEIGHTS, resized_as_clean_fid
from minority.weights import WeightsError, find_weights


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pixels_are_the_default(images):
    extract = build_extractor(ExtractorSettings())

    np.testing.assert_array_equal(extract(images), images.reshape(5, 64).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("num_classes", [None, 10])
def test_the_bottleneck_is_what_the_whole_networks_middle_block_makes(make_backbone, tmp_path, images, num_classes):
    backbone = load_backbone(make_backbone(tmp_path / "b", num_classes=num_classes))
    extract = build_extractor(ExtractorSettings(kind="backbone", noise_level=0.2), backbone=backbone)
    unet, made = backbone.denoiser.unet, []
    hook = unet.mid_block.register_forward_hook(lambda module, given, result: made.append(result))
    seen = []
    if num_classes:
        # The same embedding for every label, so that any label stands for the mean one.
        unet.class_embedding.weight.data[:] = unet.class_embedding.weight.mean(dim=0)
    extract.network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))

    found = extract(images)
    schedule, step = backbone.schedule, backbone.schedule.step_at(0.2)
    x_t = schedule.noised(seen[0], step, extract.network.noise.expand_as(seen[0]))
    made.clear()
    backbone.denoiser(x_t, schedule.timestep(step, 5), torch.zeros(5, dtype=torch.int64) if num_classes else None)
    hook.remove()

    np.testing.assert_allclose(found, made[0].mean(dim=(2, 3)).numpy(), rtol=1e-5, atol=1e-6)


def test_features_of_an_image_do_not_depend_on_its_batch(tiny_backbone, images):
    backbone = load_backbone(tiny_backbone)
    one, all_at_once = (
        build_extractor(ExtractorSettings(kind="backbone", batch_size=size), backbone=backbone) for size in (1, 64)
    )

    np.testing.assert_allclose(one(images), all_at_once(images), rtol=1e-4, atol=1e-6)
    assert one.recipe == all_at_once.recipe


def test_spatial_features_are_the_first_maps_before_their_mean(tiny_backbone, images):
    extract = build_extractor(ExtractorSettings(kind="backbone"), backbone=load_backbone(tiny_backbone))

    maps = extract.spatial(images).reshape(5, 7, -1)

    np.testing.assert_allclose(maps.mean(axis=2), extract(images)[:, :7], rtol=1e-5, atol=1e-6)


def test_a_backbone_of_another_kind_has_no_bottleneck(tiny_backbone):
    from dataclasses import replace

    backbone = replace(load_backbone(tiny_backbone), denoiser=lambda x, t, label: None)

    with pytest.raises(ValueError, match="no bottleneck"):
        build_extractor(ExtractorSettings(kind="backbone"), backbone=backbone)


def test_the_classifiers_features_tell_its_classes_apart():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = (rng.integers(0, 60, (60, 8, 8, 1)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    settings = ExtractorSettings(kind="classifier", classifier=ClassifierSettings(steps=20, width=4))

    extract = build_extractor(settings, train_images=images[:40], train_labels=labels[:40])
    features = extract(images[40:])

    centres = [features[labels[40:] == label].mean(axis=0) for label in (0, 1)]
    nearer = np.linalg.norm(features - centres[1], axis=1) < np.linalg.norm(features - centres[0], axis=1)
    assert (nearer == (labels[40:] == 1)).all()


def test_a_torchvision_network_is_read_from_its_file(tmp_path, images):
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    settings = ExtractorSettings(kind="torchvision", network="squeezenet1_1", weights=str(tmp_path / "weights.pt"))

    extract = build_extractor(settings)

    assert extract(images[:2]).shape[0] == 2
    assert extract.recipe == f"torchvision-squeezenet1_1-{sha256(tmp_path / 'weights.pt')[:16]}"


class _Conv(torch.nn.Module):
    """A layer of Inception's widths and sides; its 1x1 kernel makes it cheap."""

    def __init__(self, width: int, out: int, side: int):
        super().__init__()
        self.conv, self.side = torch.nn.Conv2d(width, out, 1), side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(torch.nn.functional.adaptive_avg_pool2d(x, self.side)))


class _Pool(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(x, 3, 2)


class _Mixed6(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.tower = _Conv(768, 192, 17), _Conv(768, 576, 17)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(x), self.tower(x)], dim=1)


class _Layers(torch.nn.Module):
    """The names and the shapes of the layers in inception-2015-12-05.pt up to mixed_6, and a pooled end."""

    def __init__(self):
        super().__init__()
        self.conv, self.conv_1, self.conv_2 = _Conv(3, 32, 149), _Conv(32, 32, 147), _Conv(32, 64, 147)
        self.pool0 = _Pool()
        self.conv_3, self.conv_4 = _Conv(64, 80, 73), _Conv(80, 192, 71)
        self.pool1 = _Pool()
        self.mixed, self.mixed_1, self.mixed_2 = _Conv(192, 256, 35), _Conv(256, 288, 35), _Conv(288, 288, 35)
        self.mixed_3, self.mixed_4, self.mixed_5 = _Conv(288, 768, 17), _Conv(768, 768, 17), _Conv(768, 768, 17)
        self.mixed_6 = _Mixed6()
        self.end = _Conv(768, 2048, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool0(self.conv_2(self.conv_1(self.conv(x))))
        x = self.pool1(self.conv_4(self.conv_3(x)))
        x = self.mixed_5(self.mixed_4(self.mixed_3(self.mixed_2(self.mixed_1(self.mixed(x))))))
        return self.end(self.mixed_6(x)).flatten(1)


class _Inception(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = _Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def inception_file(tmp_path):
    """Not the real network, but a TorchScript file with its layers' names and shapes."""
    torch.manual_seed(0)
    torch.jit.script(_Inception()).save(str(tmp_path / WEIGHTS))
    return tmp_path / WEIGHTS


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_inception_sees_and_normalises_images_as_clean_fid_does(inception_file, images):
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    # Clean-fid's own loader, normalisation and resizing around the file.
    oracle = InceptionV3W(str(inception_file.parent), download=False)
    resized = np.stack([build_resizer("clean")(np.repeat(image, 3, axis=2)) for image in images])

    found = build_extractor(ExtractorSettings(kind="inception", weights=str(inception_file)))(images)

    expected = oracle(torch.from_numpy(resized).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_sfid_takes_the_first_seven_maps_of_the_layer_mixed_6_conv(inception_file, images):
    extract = build_extractor(ExtractorSettings(kind="inception", weights=str(inception_file)))
    network = torch.jit.load(inception_file)

    # The definition: run the layers one after another, and look at the maps after mixed_6's first convolution.
    x = (resized_as_clean_fid(images[:2]) - 128) / 128
    layers = network.layers
    for name in ("conv", "conv_1", "conv_2", "pool0", "conv_3", "conv_4", "pool1", "mixed", "mixed_1", "mixed_2"):
        x = getattr(layers, name)(x)
    x = layers.mixed_5(layers.mixed_4(layers.mixed_3(x)))
    seen = layers.mixed_6(x)[:, :7]  # the convolution's maps come first in mixed_6's output

    found = extract.spatial(images[:2])

    assert found.shape == (2, 7 * 17 * 17)
    np.testing.assert_allclose(found, seen.detach().flatten(1).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_file_without_inceptions_layers_is_refused(tmp_path, images):
    torch.jit.script(_Pool()).save(str(tmp_path / WEIGHTS))

    with pytest.raises(WeightsError, match=r"is not the TorchScript file inception-2015-12-05\.pt"):
        build_extractor(ExtractorSettings(kind="inception", weights=str(tmp_path / WEIGHTS)))


def test_dinov2_comes_from_a_clone_of_its_repository(tmp_path, images):
    (tmp_path / "hubconf.py").write_text(
        "import torch\n"
        "def dinov2_vits14(pretrained):\n"
        "    assert not pretrained\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 6))\n"
    )
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, 6)
    torch.save({"2.weight": layer.weight.data, "2.bias": layer.bias.data}, tmp_path / "weights.pt")
    settings = ExtractorSettings(
        kind="dinov2",
        network="dinov2_vits14",
        weights=str(tmp_path / "weights.pt"),
        source="hub",
        repository=str(tmp_path),
    )

    assert build_extractor(settings)(images).shape == (5, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "torchvision", "network": "resnet18"}, "weights must be given"),
        ({"kind": "dinov2", "weights": "w.pt"}, "network must be given"),
        ({"sha256": "abc"}, "64 hex digits"),
        ({"noise_level": 1.0}, "noise_level"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ExtractorSettings(**settings)


@pytest.mark.parametrize("kind", ["backbone", "classifier"])
def test_what_an_extractor_needs_is_asked_for(kind):
    with pytest.raises(ValueError, match="need"):
        build_extractor(ExtractorSettings(kind=kind))


def test_absent_weights_are_an_error_and_never_a_download(tmp_path):
    for kind, network in (("inception", None), ("dinov2", "dinov2_vits14"), ("torchvision", "resnet18")):
        settings = ExtractorSettings(kind=kind, network=network, weights=str(tmp_path / "none.pt"))
        with pytest.raises(WeightsError, match="neither a file nor in"):
            build_extractor(settings)


def test_a_url_is_fetched_once_into_the_cache_and_checked(tmp_path):
    source, cache = tmp_path / "w.bin", tmp_path / "cache"
    source.write_bytes(b"weights")

    path = find_weights(source.as_uri(), sha256=sha256(source), cache=cache)
    source.unlink()

    assert path.read_bytes() == b"weights"
    digest = hashlib.sha256(b"weights").hexdigest()
    assert find_weights(source.as_uri(), sha256=digest, cache=cache) == path
    assert find_weights(path.name, sha256=digest, cache=cache) == path


def test_a_url_without_checksum_or_with_another_one_leaves_nothing(tmp_path):
    source, cache = tmp_path / "w.bin", tmp_path / "cache"
    source.write_bytes(b"weights")

    with pytest.raises(WeightsError, match="need a SHA-256"):
        find_weights(source.as_uri(), cache=cache)
    with pytest.raises(WeightsError, match="nothing was kept"):
        find_weights(source.as_uri(), sha256="0" * 64, cache=cache)
    with pytest.raises(WeightsError, match="cannot be read"):
        find_weights((tmp_path / "none").as_uri(), sha256="0" * 64, cache=cache)
    with pytest.raises(WeightsError, match="correct the checksum"):
        find_weights(str(source), sha256="0" * 64)

    assert list(cache.iterdir()) == []
