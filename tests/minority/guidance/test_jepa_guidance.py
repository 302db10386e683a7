import pytest
import torch
from torch import nn

from minority.diffusion.noise import SampleNoise
from minority.guidance.jepa_guidance import JepaGuidance, exact_singular_values, top_singular_values
from minority.sampling.sampler import sample

SHAPE = (1, 4, 4)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 6)
    )
    return network.double().requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn((3, *SHAPE), generator=torch.Generator().manual_seed(1)).double().requires_grad_(True)


def probes(count):
    return torch.randn((3, count, *SHAPE), generator=torch.Generator().manual_seed(2)).double()


def test_as_many_probes_as_features_give_the_exact_singular_values(encoder, images):
    exact = exact_singular_values(encoder, images)

    values = top_singular_values(encoder, images, probes(6), top=6, iterations=0)

    torch.testing.assert_close(values, exact, atol=1e-10, rtol=1e-8)


def test_few_probes_find_the_largest_singular_values(encoder, images):
    exact = exact_singular_values(encoder, images)

    values = top_singular_values(encoder, images, probes(4), top=2, iterations=6)

    assert values.shape == (3, 2)
    torch.testing.assert_close(values, exact[:, :2], atol=0, rtol=1e-3)


def test_the_exact_jacobian_is_that_of_finite_differences(encoder, images):
    x, tiny = images.detach()[:1], 1e-6
    columns = [
        (encoder(x + tiny * e.view(1, *SHAPE)) - encoder(x - tiny * e.view(1, *SHAPE)))[0] / (2 * tiny)
        for e in torch.eye(16, dtype=torch.float64)
    ]

    values = torch.linalg.svdvals(torch.stack(columns, dim=1))

    torch.testing.assert_close(exact_singular_values(encoder, images)[0], values, atol=1e-7, rtol=1e-6)


def test_the_density_s_gradient_is_that_of_the_exact_svd(encoder, images):
    exact = exact_singular_values(encoder, images)[:, :3].log().sum()
    (wanted,) = torch.autograd.grad(exact, images)

    values = top_singular_values(encoder, images, probes(6), top=3, iterations=4).log().sum()
    (found,) = torch.autograd.grad(values, images)

    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("jacobian", [True, False])
@pytest.mark.parametrize("scaling", ["variance", "fixed"])
def test_guided_images_are_less_dense_in_the_encoder_s_eyes(jacobian, scaling, encoder, mixture, trained):
    encoder = encoder.float()
    schedule = trained.respaced(20)
    scale = {"variance": 4.0, "fixed": 0.05}[scaling]
    guidance = [JepaGuidance(encoder=encoder, scale=scale, top=3, scaling=scaling, jacobian=jacobian, interval=2)]

    def density(guidance):
        x, _ = sample(mixture, schedule, SampleNoise(0, range(24), shape=SHAPE), guidance=guidance)
        return exact_singular_values(encoder, x.requires_grad_(True))[:, :3].log().sum(dim=1).detach()

    change = density(guidance) - density([])

    assert change.mean() < -3 * change.std() / 24**0.5


def test_published_guidance_leaves_the_noisiest_fifth_alone():
    guidance = JepaGuidance(encoder=nn.Identity())

    assert [step for step in range(10) if guidance.acts_at(step, 10)] == list(range(9))
