from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from minority.downstream.networks import build_network
from minority.downstream.settings import NetworkSettings


def made(kind, *, side=32, channels=3, seed=0, **settings):
    return build_network(
        NetworkSettings(kind=kind, **settings), image_shape=(side, side, channels), num_classes=5, seed=seed
    ).eval()


@pytest.mark.parametrize("kind", ["small-cnn", "resnet18", "vit-tiny"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_takes_grey_and_colour_images_and_gives_logits(kind, channels):
    images = torch.rand(2, channels, 32, 32) * 2 - 1
    network = made(kind, channels=channels)

    with torch.no_grad():
        logits, features = network(images), network.trunk(images)

    assert logits.shape == (2, 5)
    torch.testing.assert_close(network.head(features), logits)


def test_start_weights_are_a_function_of_the_seed_alone():
    before = torch.random.get_rng_state()
    one, same, other = (made("resnet18", seed=seed).state_dict() for seed in (3, 3, 4))

    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_pretrained_weights_come_from_a_local_file_but_for_the_last_layer(tmp_path, suffix):
    import torchvision

    theirs = torchvision.models.resnet18().eval()
    file = tmp_path / f"resnet18{suffix}"
    state = {name: value.contiguous() for name, value in theirs.state_dict().items()}
    torch.save(state, file) if suffix == ".pt" else save_file(state, file)

    network = made("resnet18", weights=str(file), input_size=64)

    images = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(network.trunk(images), theirs(((images + 1) / 2 - mean) / deviation))


def test_small_images_are_brought_to_the_size_that_weights_expect():
    network = made("vit-tiny", side=28, channels=1, input_size=56)

    with torch.no_grad():
        assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 5)


def test_weights_of_another_network_or_none_at_all_are_refused(tmp_path):
    file = tmp_path / "other.pt"
    torch.save({"something": torch.zeros(3)}, file)

    with pytest.raises(ValueError, match="weights of another network"):
        made("resnet18", weights=str(file))
    with pytest.raises(ValueError, match="do not exist"):
        made("resnet18", weights=str(tmp_path / "absent.pt"))


def test_odd_images_are_refused():
    with pytest.raises(ValueError, match="side divisible by 4"):
        made("vit-tiny", side=30)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        made("small-cnn", channels=2)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        replace(NetworkSettings(), input_size=4)
