"""What guidance methods learn is learnt once, from the training split, and kept by recipe."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.storage.store import Store
from minority.guidance.jepa_guidance import JepaGuidanceSettings
from minority.guidance.low_density import LowDensitySettings
from minority.guidance.minority_guidance import MinorityGuidanceSettings
from minority.guidance.noise_aware_network import NoiseAwareSettings
from minority.sampling.settings import SamplerSettings
from tasks.errors import InputError
from tasks.inputs import guidance_parts
from tasks.inputs.guidance_parts import methods_to_learn, open_parts, parts_recipe
from tasks.inputs.workspace import open_workspace

SHORT = NoiseAwareSettings(width=8, steps=3, batch_size=8)
LOW_DENSITY = LowDensitySettings(plain_samples=6, training=SHORT)
MINORITY = MinorityGuidanceSettings(levels=3, draws=1, training=SHORT)
METHODS = (LOW_DENSITY, MINORITY, JepaGuidanceSettings(training=SHORT))


class Killed(BaseException):
    """Stands for a signal: no `except` of the code under test may catch it."""


@pytest.fixture
def workspace(tiny_config):
    return open_workspace(tiny_config())


def reopened(workspace, methods=METHODS):
    """As another process would open them: with nothing in memory."""
    guidance_parts._parts.cache_clear()
    return open_parts(workspace, methods)


def files(workspace):
    folder = Path(workspace.config.store, "digits", "guidance")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(one, other):
    assert one.keys() == other.keys()
    for key, parts in one.items():
        assert parts.keys() == other[key].keys()
        for name, tensors in parts.items():
            for label, tensor in tensors.items():
                np.testing.assert_array_equal(tensor.cpu(), other[key][name][label].cpu())


def test_methods_learn_once_and_find_it_in_the_store_afterwards(workspace, monkeypatch):
    first = reopened(workspace)
    written = files(workspace)

    monkeypatch.setattr(guidance_parts, "_learn", lambda *_: pytest.fail("learnt twice"))
    again = reopened(workspace)

    same(first, again)
    assert files(workspace) == written
    assert {name.split("/")[1] for name in written if name.endswith(".safetensors")} == {
        "plain.safetensors",
        "discriminator.safetensors",
        "embedding.safetensors",
        "gaussians.safetensors",
        "scores.safetensors",
        "classifier.safetensors",
    }
    assert len(first["minority_guidance"]["scores"]["scores"]) == len(workspace.real.train)


@pytest.mark.parametrize("writes", [1, 2, 5])
def test_a_killed_training_goes_on_where_it_was(workspace, monkeypatch, writes):
    whole = reopened(workspace, [LOW_DENSITY])
    expected = files(workspace)
    for name in expected:
        Path(workspace.config.store, "digits", "guidance", name).unlink()
    write, left, learnt = Store.write, [writes], []

    def dying(store, path, data):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        write(store, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", dying)
        with pytest.raises(Killed):
            reopened(workspace, [LOW_DENSITY])
    learn = guidance_parts._learn
    monkeypatch.setattr(guidance_parts, "_learn", lambda m, name, *rest: learnt.append(name) or learn(m, name, *rest))

    resumed = reopened(workspace, [LOW_DENSITY])

    same(whole, resumed)
    assert files(workspace) == expected
    # A part is there with its receipt, its second file, or not at all.
    assert learnt == ["plain", "discriminator", "embedding", "gaussians"][writes // 2 :]


@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_a_damaged_part_is_named_and_learnt_again(workspace, caplog, ending):
    whole = reopened(workspace, [LOW_DENSITY])
    expected = files(workspace)
    (path,) = Path(workspace.config.store).rglob(f"embedding.{ending}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with caplog.at_level(logging.WARNING):
        again = reopened(workspace, [LOW_DENSITY])

    same(whole, again)
    assert files(workspace) == expected
    assert "embedding.safetensors is not what its receipt says; it is learnt again" in caplog.text


def test_what_decides_a_training_decides_its_recipe(tiny_config, make_backbone, tmp_path):
    workspace = open_workspace(tiny_config())

    def recipe(method=LOW_DENSITY, **changes):
        return parts_recipe(open_workspace(tiny_config(**changes)), method)

    own = parts_recipe(workspace, LOW_DENSITY)
    assert recipe() == recipe(seed=5) == recipe(replace(LOW_DENSITY, hardness_scale=7.0, realism_scale=0.0)) == own
    assert recipe(sampler__self_guidance=None, plan__quota=9) == own
    others = [
        recipe(replace(LOW_DENSITY, training=replace(SHORT, steps=4))),
        recipe(replace(LOW_DENSITY, plain_samples=7)),
        recipe(sampler__steps=5),
        recipe(dataset__split__seed=3),
        recipe(backbone__path=make_backbone(tmp_path / "other", seed=1)),
    ]
    assert len({own, *others}) == 6
    # Minority guidance sees no plain samples, so that how they are drawn is nothing to it.
    assert recipe(MINORITY, sampler__steps=5) == parts_recipe(workspace, MINORITY)


def test_candidates_that_differ_in_strength_learn_together():
    base = SamplerSettings()
    strengths = [base.guided(replace(LOW_DENSITY, hardness_scale=scale)) for scale in (0.5, 1.0, 2.0)]

    assert methods_to_learn([base, *strengths]) == [replace(LOW_DENSITY, hardness_scale=0.5)]
    assert len(methods_to_learn([*strengths, base.guided(replace(LOW_DENSITY, plain_samples=9))])) == 2
    assert methods_to_learn([base.guided(JepaGuidanceSettings(weights="resnet.pth"))]) == []


def test_a_training_that_the_images_do_not_allow_says_why(workspace):
    many = MinorityGuidanceSettings(levels=5000, draws=1, training=SHORT)

    with pytest.raises(InputError, match=r"sampler\.minority_guidance: levels must lie in 2 \.\.\. 91"):
        reopened(workspace, [many])
