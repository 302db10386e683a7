"""What every guidance method and every solver owes a sample, on the exact denoiser of a mixture with one rare mode.

Where a method needs a trained network, it gets what a perfect training would give, in closed form.
"""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import to_pixels
from minority.features.pixel_features import pixel_features
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.jepa_guidance import JepaGuidance
from minority.guidance.low_density import ClassGaussians, LowDensity
from minority.guidance.minority_guidance import MinorityGuidance
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.prune_by_features import PruneByFeatures
from minority.guidance.self_guidance import SelfGuidance
from minority.guidance.shaped_noise import ShapedNoise
from minority.neighbours.reference import RealReference
from minority.sampling.sampler import sample
from minority.solvers.ancestral import Ancestral
from minority.solvers.ddim import Ddim
from minority.solvers.dpm_solver import DpmSolver

SHAPE = (1, 4, 4)
CHAINS, PARTICLE_GROUP = 240, 4


class ModeClassifier(nn.Module):
    """The noise-aware classifier of the modes, the rare one last."""

    def __init__(self, mixture):
        super().__init__()
        self.mixture, self.head = mixture, nn.Linear(1, len(mixture.weights))

    def forward(self, x_t, timestep):
        return self.mixture.logits(x_t, float(self.mixture.schedule.abar[int(timestep[0])]))[0]


class Brightness(nn.Module):
    """The embedding of an image by its brightness alone, without and with its noise."""

    def features(self, x_t, timestep):
        return x_t.flatten(1).mean(dim=1, keepdim=True)

    def forward(self, x_t, timestep):
        """Logits of real and generated: the exact denoiser's samples cannot be told from real images."""
        return 0 * x_t.flatten(1)[:, :2]


def brightness_gaussians(mixture):
    """The normal of the mixture's brightness at every noise level."""
    modes = mixture.means.flatten(1).mean(dim=1)
    mean = float((mixture.weights * modes).sum())
    spread = float((mixture.weights * (modes - mean) ** 2).sum()) + mixture.deviation**2 / 16
    abar = torch.from_numpy(mixture.schedule.abar)
    variance = (abar * spread + (1 - abar) / 16).float().view(-1, 1, 1, 1)
    return ClassGaussians(
        timesteps=torch.from_numpy(mixture.schedule.timesteps),
        mean=(mean * abar.sqrt()).float().view(-1, 1, 1),
        precision=1 / variance,
        log_determinant=variance.log().view(-1, 1),
    )


def brightness_encoder(mixture, spread=0.3):
    """Stretches brightness as the modes, each this wide, are dense: its derivative is their density."""
    modes, weights = mixture.means.flatten(1).mean(dim=1).float(), mixture.weights.float()

    def encode(x):
        standardised = (x.flatten(1).mean(dim=1, keepdim=True) - modes) / spread  # (B, K)
        return (weights * torch.special.ndtr(standardised)).sum(dim=1, keepdim=True)

    return encode


def real_reference(mixture):
    generator = torch.Generator().manual_seed(0)
    mode = (torch.arange(100) % 10 == 0).long()
    images = mixture.means[mode].float() + mixture.deviation * torch.randn((100, *SHAPE), generator=generator)
    return RealReference.fit(pixel_features(to_pixels(images)))


METHODS = {
    "self-guidance": lambda mixture, scale: SelfGuidance(scale=4 * scale, perturbation=0.5),
    "squared error": lambda mixture, scale: SelfGuidance(scale=4 * scale, perturbation=0.5, distance="squared"),
    "without the Jacobian": lambda mixture, scale: SelfGuidance(scale=4 * scale, perturbation=0.5, jacobian=False),
    "three draws": lambda mixture, scale: SelfGuidance(scale=4 * scale, perturbation=0.5, draws=3, clip_x0=True),
    "not normalised": lambda mixture, scale: SelfGuidance(scale=4 * scale, perturbation=0.5, normalise=False),
    "boost and skip": lambda mixture, scale: BoostAndSkip(boost=1 + 3 * scale, skip=0.1 * (scale > 0)),
    "temperature": lambda mixture, scale: ShapedNoise(ancestral_scale=1 + 0.5 * scale),
    "minority guidance": lambda mixture, scale: MinorityGuidance(classifier=ModeClassifier(mixture), scale=scale),
    "low density": lambda mixture, scale: LowDensity(
        embedding=Brightness(),
        gaussians=brightness_gaussians(mixture),
        discriminator=Brightness(),
        hardness_scale=3 * scale,
        realism_scale=0.5 * scale,
    ),
    "jepa": lambda mixture, scale: JepaGuidance(
        encoder=brightness_encoder(mixture), scale=4 * scale, top=1, oversampling=0, scaling="variance"
    ),
    "jepa without the Jacobian": lambda mixture, scale: JepaGuidance(
        encoder=brightness_encoder(mixture), scale=4 * scale, top=1, oversampling=0, scaling="variance", jacobian=False
    ),
    "jepa, fixed push": lambda mixture, scale: JepaGuidance(
        encoder=brightness_encoder(mixture), scale=0.05 * scale, top=1, oversampling=0
    ),
    "classifier-free": lambda mixture, scale: ClassifierFree(scale=0.5 * scale),
}
BRANCHING = {
    "prune and branch": lambda mixture, scale: PruneAndBranch(points=(0.2, 0.4), keep=1, max_copies=4),
    "prune by features": lambda mixture, scale: PruneByFeatures(
        reference=real_reference(mixture), points=(0.3, 0.5), keep=1, max_copies=4, realism_floor=0.5
    ),
}
ALL = METHODS | BRANCHING
SOLVERS = {
    "ancestral": Ancestral(),
    "ddim": Ddim(),
    "ddim, eta 0.3": Ddim(eta=0.3),
    "ddim, eta 0.7": Ddim(eta=0.7),
    "ddim, eta 1": Ddim(eta=1.0),
    "dpm-solver": DpmSolver(),
}


def draw(mixture, schedule, guidance, indices, *, noise=SampleNoise, **options):
    """Every sample with the label of the rare mode, which only classifier-free guidance is told."""
    if any(isinstance(method, ClassifierFree) for method in guidance):
        options["label"] = torch.ones(len(indices), dtype=torch.int64)
    return sample(mixture, schedule, noise(0, indices, shape=SHAPE), guidance=guidance, **options)[0]


@pytest.fixture(scope="module")
def schedule(trained):
    return trained.respaced(40)


def is_rare(mixture, images):
    return (mixture.mode(images) == 1).double()


@pytest.fixture(scope="module")
def plain_rare(mixture, schedule):
    return is_rare(mixture, draw(mixture, schedule, [], range(CHAINS)))


@pytest.mark.parametrize("name", ALL)
def test_each_method_raises_the_rare_share(name, mixture, schedule, plain_rare):
    rare = is_rare(mixture, draw(mixture, schedule, [ALL[name](mixture, 1)], range(CHAINS)))

    # The same seeds with and without, so the gain's standard error is that of a mean over 60 particle groups: chains of
    # one particle group may be copies, particle groups are independent.
    gain = (rare - plain_rare).view(-1, PARTICLE_GROUP).mean(dim=1)
    error = float(gain.std()) / math.sqrt(len(gain))
    assert 0 < error < 0.06
    assert float(gain.mean()) > 3 * error


def test_a_perfect_classifier_of_the_rare_mode_leads_nowhere_else(mixture, trained):
    guidance, count = MinorityGuidance(classifier=ModeClassifier(mixture), scale=1.0), 120

    images = draw(mixture, trained, [guidance], range(count))

    # What is left is the mode's own normal, whose brightness has the deviation 0.15 / 4: within three standard errors,
    # and 5 % of the deviation for following the gradient in 200 finite steps.
    assert is_rare(mixture, images).all()
    brightness, deviation = images.mean(dim=(1, 2, 3)), 0.15 / 4
    assert abs(float(brightness.mean()) - 0.5) / deviation < 3 / math.sqrt(count) + 0.05
    assert abs(float(brightness.std()) / deviation - 1) < 3 / math.sqrt(2 * count) + 0.05


def test_the_classifier_free_scale_of_one_draws_from_the_label_s_distribution(make_mixture, trained):
    pixels = make_mixture(trained, [[[[-0.5]]], [[[0.5]]]], [0.9, 0.1], 0.15)
    noise, label = SampleNoise(0, range(1000), shape=(1, 1, 1)), torch.ones(1000, dtype=torch.int64)
    kept, guidance = trained.respaced("logsnr20"), [ClassifierFree(scale=1.0)]

    x, _ = sample(pixels, kept, noise, label=label, guidance=guidance, solver=DpmSolver())

    counts = torch.histc(torch.special.ndtr((x.flatten().double() - 0.5) / 0.15), bins=10, min=0, max=1)
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_truncated_noise_lowers_the_rare_share(mixture, schedule, plain_rare):
    rare = is_rare(mixture, draw(mixture, schedule, [ShapedNoise(truncate=1.0)], range(CHAINS)))

    loss = plain_rare - rare
    assert float(loss.mean()) > 3 * float(loss.std()) / math.sqrt(CHAINS)


def assert_samples_are_their_own(draw_indices):
    """Sizes of the batch, its order and the company in it, one after another; exactly, since every row is alike."""
    together = draw_indices(range(12))
    for i in range(0, 12, PARTICLE_GROUP):
        assert torch.equal(draw_indices(range(i, i + PARTICLE_GROUP)), together[i : i + PARTICLE_GROUP])
    assert torch.equal(draw_indices([8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7]), torch.cat([together[8:], together[:8]]))
    assert torch.equal(draw_indices([96, 97, 98, 99, 4, 5, 6, 7])[4:], together[4:8])


@pytest.mark.parametrize("name", ALL)
def test_a_guided_sample_does_not_depend_on_its_batch(name, mixture, trained):
    schedule, guidance = trained.respaced(12), [ALL[name](mixture, 1)]

    assert_samples_are_their_own(lambda indices: draw(mixture, schedule, guidance, indices))
    if name not in BRANCHING:
        # Chains without particle groups may also be alone, or turned round one by one.
        three = draw(mixture, schedule, guidance, [2, 1, 0])
        assert torch.equal(draw(mixture, schedule, guidance, [1])[0], three[1])
        assert torch.equal(draw(mixture, schedule, guidance, [0, 1, 2]), three.flip(0))


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_sample_of_any_solver_does_not_depend_on_its_batch(solver, guided, mixture, trained):
    schedule, guidance = trained.respaced(20), [SelfGuidance(scale=4.0, perturbation=0.5)] if guided else []

    assert_samples_are_their_own(lambda indices: draw(mixture, schedule, guidance, indices, solver=solver))


class Overheard(SampleNoise):
    """Notes the sampler's own draws."""

    heard: list[str]

    def start(self):
        self.heard.append("start")
        return super().start()

    def ancestral(self, step):
        self.heard.append(f"ancestral {step}")
        return super().ancestral(step)


@pytest.mark.parametrize("name", ALL)
def test_guidance_never_draws_from_the_sampler_s_own_noise(name, mixture, trained):
    Overheard.heard = []
    schedule, walked = trained.respaced(10), []

    draw(
        mixture,
        schedule,
        [ALL[name](mixture, 1)],
        range(PARTICLE_GROUP),
        noise=Overheard,
        on_step=lambda arrival: walked.append(arrival.step),
    )

    assert walked[0] == (8 if name == "boost and skip" else 9)
    assert Overheard.heard == ["start", *(f"ancestral {step}" for step in walked[:-1])]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_no_strength_leaves_every_bit_of_the_plain_sample(name, mixture, trained):
    schedule, indices = trained.respaced(10), range(3)

    idle = draw(mixture, schedule, [METHODS[name](mixture, 0)], indices)

    assert torch.equal(idle, draw(mixture, schedule, [], indices))


@pytest.mark.parametrize("name", BRANCHING)
def test_a_chain_that_keeps_its_place_is_the_plain_one(name, mixture, schedule):
    kept = torch.ones(40, dtype=torch.bool)

    def follow(arrival):
        if arrival.parents is not None:
            kept.logical_and_(arrival.parents == torch.arange(40))

    branched = draw(mixture, schedule, [BRANCHING[name](mixture, 1)], range(40), on_step=follow)
    plain = draw(mixture, schedule, [], range(40))

    assert 0 < kept.sum() < 40
    assert torch.equal(branched[kept], plain[kept])
    assert not (branched[~kept] == plain[~kept]).flatten(1).all(dim=1).any()


@pytest.mark.parametrize("scale", [1.0, 30.0, 100.0])
@pytest.mark.parametrize("name", METHODS)
def test_no_state_is_ever_nan(name, scale, mixture, trained):
    states = []

    draw(mixture, trained.respaced(20), [METHODS[name](mixture, scale)], range(4), on_step=lambda a: states.append(a.x))

    assert len(states) >= 18
    assert all(torch.isfinite(state).all() for state in states)
