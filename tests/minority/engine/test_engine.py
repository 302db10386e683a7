"""Ways to run the network: faster, and the same images."""

import gc
import weakref

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn

from minority.backbones import Backbone
from minority.engine.prepare import EngineSettings, prepared
from minority.engine.static_shapes import StaticShapes
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, score_images

GUIDED = SelfGuidance(scale=2.0, interval=2)


def draw(backbone, engine=None, *, batch_size=64, count=5):
    settings = SamplerSettings(steps=6, self_guidance=GUIDED, engine=engine or EngineSettings(), batch_size=batch_size)
    labels = [i % 3 for i in range(count)]
    return draw_images(backbone, seed=5, indices=range(count), labels=labels, settings=settings)[0].astype(int)


@pytest.mark.parametrize(
    "engine",
    [
        EngineSettings(channels_last=True),
        EngineSettings(cuda_graphs=True),
        EngineSettings(checkpoint=True),
        EngineSettings(channels_last=True, cuda_graphs=True, checkpoint=True),
        pytest.param(EngineSettings(compile=True), marks=pytest.mark.slow),
        pytest.param(EngineSettings(compile=True, channels_last=True, cuda_graphs=True), marks=pytest.mark.slow),
    ],
)
def test_no_engine_changes_an_image_by_more_than_a_rounding(backbone, engine):
    # Batches of three: the last one holds two and is filled up where shapes are static.
    ours, plain = draw(backbone, engine, batch_size=3), draw(backbone)

    assert np.abs(ours - plain).max() <= 1
    assert np.ptp(plain) > 100


@pytest.mark.parametrize("engine", [EngineSettings(channels_last=True), EngineSettings(cuda_graphs=True)])
def test_no_engine_changes_a_score_by_more_than_a_rounding(backbone, engine):
    images = draw(backbone).astype(np.uint8)

    def scores(**options):
        return score_images(
            backbone, images, seed=5, indices=range(5), labels=[0, 1, 2, 0, 1], settings=ScoreSettings(), **options
        )

    ours, plain = scores(engine=engine, batch_size=3), scores()
    np.testing.assert_allclose(ours.minority_score, plain.minority_score, rtol=1e-4)
    np.testing.assert_allclose(ours.negative_elbo, plain.negative_elbo, rtol=1e-4)


def test_without_a_gpu_graphs_leave_every_bit_alone(backbone):
    np.testing.assert_array_equal(draw(backbone, EngineSettings(cuda_graphs=True)), draw(backbone))


def test_sampling_asks_for_no_gradients_of_weights(make_tiny_backbone):
    trained = make_tiny_backbone(frozen=False)

    frozen = prepared(trained)

    assert not any(parameter.requires_grad for parameter in frozen.denoiser.parameters())
    assert all(parameter.requires_grad for parameter in trained.denoiser.parameters())
    np.testing.assert_array_equal(draw(trained), draw(make_tiny_backbone()))


def test_attention_is_the_fused_one(backbone):
    attentions = [module for module in prepared(backbone).denoiser.modules() if isinstance(module, Attention)]

    assert attentions
    assert all(isinstance(attention.processor, AttnProcessor2_0) for attention in attentions)


def test_a_backbone_is_prepared_once_for_all_units_and_not_kept_alive(make_tiny_backbone):
    backbone = make_tiny_backbone()
    engine = EngineSettings(channels_last=True)

    first = prepared(backbone, precision="bf16", engine=engine)

    assert prepared(backbone, precision="bf16", engine=engine) is first
    assert prepared(backbone, engine=engine) is not first
    assert prepared(backbone) is backbone
    gone = weakref.ref(first.denoiser)
    del backbone, first
    gc.collect()
    assert gone() is None


def test_channels_last_leaves_the_given_backbone_as_it_was(backbone):
    before = {name: value.stride() for name, value in backbone.denoiser.state_dict().items()}

    layout = prepared(backbone, engine=EngineSettings(channels_last=True)).denoiser.unet.down_blocks[0].resnets[0]

    assert layout.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert {name: value.stride() for name, value in backbone.denoiser.state_dict().items()} == before


def test_checkpointing_keeps_fewer_activations_for_the_same_gradient(backbone):
    def gradient_and_kept(engine):
        denoiser = prepared(backbone, engine=engine).denoiser
        kept = []
        x = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8).requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
            eps = denoiser(x, torch.full((4,), 500), torch.tensor([0, 1, 2, 0])).eps
        (gradient,) = torch.autograd.grad(eps.square().sum(), x)
        return gradient, sum(kept)

    (plain, whole), (checkpointed, part) = (
        gradient_and_kept(EngineSettings()),
        gradient_and_kept(EngineSettings(checkpoint=True)),
    )

    torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=1e-5)
    assert part < whole / 2


def test_checkpointing_is_refused_where_a_network_cannot(backbone):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Conv2d(1, 1, 1)

    bare = Backbone("bare", Bare(), backbone.schedule, image_shape=(1, 8, 8), num_classes=None, sha256="0" * 64)

    with pytest.raises(ValueError, match=r"bare\.network has no gradient checkpointing; switch it off"):
        prepared(bare, engine=EngineSettings(checkpoint=True))


class Sized(nn.Module):
    """Remembers the sizes of the batches it is called with."""

    def __init__(self):
        super().__init__()
        self.sizes = []
        self.nickname = "inner"

    def forward(self, x, time, scale=None):
        self.sizes.append(len(x))
        return x * time[:, None] * (1 if scale is None else scale)


def test_a_shorter_batch_is_filled_up_to_a_size_seen_before():
    inner = Sized()
    static = StaticShapes(inner)
    x, time = torch.arange(8.0).reshape(4, 2), torch.arange(4.0)

    whole, part, larger = static(x, time), static(x[:3], time[:3]), static(x.repeat(2, 1), time.repeat(2))

    assert inner.sizes == [4, 4, 8]
    torch.testing.assert_close(part, whole[:3])
    torch.testing.assert_close(larger[4:], whole)


def test_sizes_with_and_without_gradients_are_counted_apart_and_numbers_pass_as_they_are():
    inner = Sized()
    static = StaticShapes(inner)
    x, time = torch.ones(4, 2), torch.arange(4.0)

    static(x, time)
    with torch.no_grad():
        tripled = static(x[:2], time[:2], scale=torch.tensor(3.0))

    assert inner.sizes == [4, 2]
    assert tripled.tolist() == [[0, 0], [3, 3]]


def test_a_wrapped_network_answers_for_the_one_inside():
    assert StaticShapes(Sized()).nickname == "inner"
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = StaticShapes(Sized()).nothing_of_the_kind
