"""Half precision, and backbones that predict something else than noise."""

import math

import pytest
import torch
from torch import nn

from minority.backbones import Backbone, UNetDenoiser, UNetSettings
from minority.diffusion.chain import Chain
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import to_pixels
from minority.diffusion.schedule import NoiseSchedule
from minority.features.pixel_features import pixel_features
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.jepa_guidance import JepaGuidance
from minority.guidance.low_density import LowDensity, fit_gaussians
from minority.guidance.minority_guidance import MinorityGuidance
from minority.guidance.noise_aware_network import NoiseAwareNetwork
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.prune_by_features import PruneByFeatures
from minority.guidance.self_guidance import SelfGuidance
from minority.guidance.shaped_noise import ShapedNoise
from minority.neighbours.reference import RealReference
from minority.sampling.draw import draw as draw_samples
from minority.sampling.named_samplers import named_sampler
from minority.sampling.sampler import sample
from minority.solvers.ddim import Ddim
from minority.solvers.dpm_solver import DpmSolver
from tests.tiny_networks import tiny_unet

SHAPE = (1, 8, 8)
TRAINED = NoiseSchedule.cosine(1000)


def backbone(prediction_type="epsilon"):
    unet = tiny_unet(widths=(8, 16), attention=True)
    denoiser = UNetDenoiser(
        unet.eval().requires_grad_(False), TRAINED, settings=UNetSettings(prediction_type=prediction_type)
    )
    return Backbone("tiny", denoiser, TRAINED, image_shape=SHAPE, num_classes=None, sha256="0" * 64)


def draw(backbone, guidance=(), indices=range(3), steps=10, **options):
    noise = SampleNoise(0, indices, shape=SHAPE)
    return sample(backbone.denoiser, TRAINED.respaced(steps), noise, guidance=guidance, **options)


@pytest.fixture(scope="module")
def labelled(make_tiny_backbone):
    """Knows three classes, and none."""
    return make_tiny_backbone(no_label=True)


@pytest.fixture(scope="module")
def parts():
    """What methods train, untrained: a network that reads noisy images, Gaussians of its features, an encoder."""
    torch.manual_seed(0)
    network = NoiseAwareNetwork(SHAPE, num_outputs=3, width=8).eval().requires_grad_(False)
    images, classes = torch.rand((30, *SHAPE)) * 2 - 1, torch.arange(30) % 3
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 6))
    return {
        "network": network,
        "gaussians": fit_gaussians(network, TRAINED, images, classes, num_classes=3),
        "encoder": encoder.requires_grad_(False),
        "reference": RealReference.fit(pixel_features(to_pixels(images))),
    }


METHODS = {
    "self-guidance": lambda parts, scale: SelfGuidance(scale=scale, interval=1, perturbation=0.5),
    "without the Jacobian": lambda parts, scale: SelfGuidance(
        scale=scale, interval=1, perturbation=0.5, jacobian=False
    ),
    "jepa": lambda parts, scale: JepaGuidance(encoder=parts["encoder"], scale=scale, top=3),
    "jepa without the Jacobian": lambda parts, scale: JepaGuidance(
        encoder=parts["encoder"], scale=scale, top=3, scaling="variance", jacobian=False
    ),
    "minority guidance": lambda parts, scale: MinorityGuidance(classifier=parts["network"], scale=scale),
    "low density": lambda parts, scale: LowDensity(
        embedding=parts["network"],
        gaussians=parts["gaussians"],
        discriminator=parts["network"],
        hardness_scale=scale,
        realism_scale=scale,
    ),
    "classifier-free": lambda parts, scale: ClassifierFree(scale=scale),
    "boost and skip": lambda parts, scale: BoostAndSkip(boost=scale, skip=0.2),
    "temperature": lambda parts, scale: ShapedNoise(start_scale=scale, ancestral_scale=scale),
}
BRANCHING = {
    "prune and branch": lambda parts, scale: PruneAndBranch(points=(0.2, 0.5), draws=2),
    "prune by features": lambda parts, scale: PruneByFeatures(reference=parts["reference"], points=(0.2, 0.5)),
}


def draw_labelled(backbone, guidance, indices, **options):
    label = torch.tensor([index // 4 % 3 for index in indices])
    return draw(backbone, guidance, indices, steps=5, label=label, **options)[0]


@pytest.mark.parametrize(("precision", "scale"), [("fp32", 100.0), ("bf16", 100.0), ("fp16", 100.0), ("fp16", 1.0)])
@pytest.mark.parametrize("name", METHODS | {"prune and branch": None})
def test_no_method_makes_a_state_nan_in_any_precision(name, scale, precision, labelled, parts):
    states = []
    guidance = (METHODS | BRANCHING)[name](parts, scale)

    draw_labelled(
        labelled.in_precision(precision), [guidance], range(4), on_step=lambda arrival: states.append(arrival.x)
    )

    assert len(states) == (4 if name == "boost and skip" else 5)
    for state in states:
        assert state.dtype == torch.float32
        assert torch.isfinite(state).all()


@pytest.mark.parametrize("name", METHODS | BRANCHING)
def test_a_guided_image_of_a_unet_hardly_depends_on_its_batch(name, labelled, parts):
    guidance = [(METHODS | BRANCHING)[name](parts, 2.0)]

    together = draw_labelled(labelled, guidance, range(8))
    turned = draw_labelled(labelled, guidance, [4, 5, 6, 7, 0, 1, 2, 3, 96, 97, 98, 99])
    apart = draw_labelled(labelled, guidance, range(4, 8))

    # Matrix products of another size sum in another order.
    torch.testing.assert_close(turned[:8], together.roll(4, dims=0), atol=1e-4, rtol=0)
    torch.testing.assert_close(apart, together[4:], atol=1e-4, rtol=0)
    assert not torch.allclose(apart, draw_labelled(labelled, [], range(4, 8)), atol=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("scale", [0.4, 100.0])
@pytest.mark.parametrize(
    ("jacobian", "scaling", "normalise"),
    [(True, "fixed", False), (False, "variance", False), (True, "variance", False)],
)
def test_no_state_is_nan_in_any_precision(precision, scale, jacobian, scaling, normalise):
    states = []
    guidance = [
        SelfGuidance(scale=scale, interval=1, jacobian=jacobian, scaling=scaling, normalise=normalise, perturbation=0.5)
    ]

    x, _ = draw(backbone().in_precision(precision), guidance, on_step=lambda arrival: states.append(arrival.x))

    assert x.dtype == torch.float32
    assert all(torch.isfinite(state).all() for state in states)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.1), ("fp16", 0.02)])
def test_half_precision_stays_near_single(precision, tolerance):
    whole = backbone()
    half = whole.in_precision(precision)
    guidance = [SelfGuidance(scale=1.0)]

    ours, theirs = draw(half, guidance)[0], draw(whole, guidance)[0]

    assert next(half.denoiser.parameters()).dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert next(whole.denoiser.parameters()).dtype == torch.float32
    assert half.denoiser.sqrt_abar.dtype == torch.float32
    # Mean error of images in [-1, 1]: a few times the format's 2^-8 and 2^-11, through ten steps.
    assert float((ours - theirs).abs().mean()) < tolerance


def test_single_precision_is_the_same_backbone():
    whole = backbone()

    assert whole.in_precision("fp32") is whole


@pytest.mark.parametrize("solver", [None, Ddim(), DpmSolver()])
def test_an_image_of_a_unet_hardly_depends_on_its_batch(solver):
    options = {} if solver is None else {"solver": solver}
    guidance = [SelfGuidance(scale=1.0)]

    together, _ = draw(backbone(), guidance, indices=range(5), **options)
    alone, _ = draw(backbone(), guidance, indices=[3], **options)

    # Matrix products of another size sum in another order.
    torch.testing.assert_close(together[3:4], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_other_predictions_give_the_clean_image_without_losing_digits(prediction_type):
    chain = Chain(backbone(prediction_type).denoiser, TRAINED)
    x_t, step = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(0)), 999

    estimate = chain.estimate(x_t, step)

    output = chain.denoiser.unet(x_t, torch.tensor([step, step])).sample
    abar = float(TRAINED.abar[step])
    expected = output if prediction_type == "sample" else math.sqrt(abar) * x_t - math.sqrt(1 - abar) * output
    torch.testing.assert_close(estimate.x0_hat, expected, atol=1e-6, rtol=0)
    # From the noise alone the division by sqrt(abar) = 1 / 20291 would leave two digits.
    torch.testing.assert_close(TRAINED.noised(estimate.x0_hat, step, estimate.eps), x_t, atol=1e-5, rtol=0)


def test_classifier_free_guidance_of_a_backbone_that_always_had_labels_is_refused():
    unet = tiny_unet(num_class_embeds=3)
    denoiser = UNetDenoiser(unet, TRAINED, settings=UNetSettings(num_classes=3))
    labelled = Backbone("labelled", denoiser, TRAINED, image_shape=SHAPE, num_classes=3, sha256="0" * 64)

    with pytest.raises(ValueError, match="labelled was trained with a label for every image"):
        draw_samples(labelled, seed=0, indices=[0], labels=[1], settings=named_sampler("classifier-free"))
