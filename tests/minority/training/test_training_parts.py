import numpy as np
import pytest
import torch

from minority.diffusion.chain import Chain
from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import bound_term
from minority.training import TrainingSettings
from minority.training.averages import LONGEST, WeightAverage, power_exponent, power_function
from minority.training.loss import BUCKETS, DenoisingLoss, LossWindow, Noiser, Noisy, VarianceBound

SCHEDULE = NoiseSchedule.cosine(50)


def batch(size=12, *, seed=0):
    dice = torch.Generator().manual_seed(seed)
    x_0 = (torch.randint(0, 256, (size, 1, 4, 4), generator=dice).float() / 127.5) - 1
    return Noiser(SCHEDULE).add(x_0, dice), dice


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.2])
def test_the_exponent_of_a_length_solves_the_equation_of_the_profile(length):
    g = power_exponent(length)

    assert ((g + 1) / ((g + 2) ** 2 * (g + 3))) ** 0.5 == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize("length", [0.05, 0.15])
def test_a_power_function_average_weighs_steps_by_a_power_and_is_as_long_as_it_says(length):
    decay, steps = power_function(length), 4000
    weights = np.ones(steps)
    for step in range(steps):
        weights[:step] *= decay(step)
        weights[step] = 1 - decay(step)

    at = (np.arange(steps) + 0.5) / steps
    mean = (weights * at).sum()
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    assert ((weights * (at - mean) ** 2).sum()) ** 0.5 == pytest.approx(length, rel=2e-3)
    g = power_exponent(length)
    # Late steps, where (1 - 1 / t) ** (g + 1) is near its limit t ** g.
    assert weights[-1] / weights[steps // 2 - 1] == pytest.approx(2**g, rel=2e-2)


def test_the_first_step_alone_is_remembered_exactly():
    network = torch.nn.Linear(2, 1)
    average = WeightAverage(network, power_function(0.1))
    with torch.no_grad():
        network.weight.fill_(3.0)

    average.update(0, network.state_dict())

    assert average.weights["weight"].tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize("length", [0.0, LONGEST])
def test_an_impossible_length_is_refused(length):
    with pytest.raises(ValueError, match=r"must lie above 0 and below 0\.289"):
        power_exponent(length)
    with pytest.raises(ValueError, match=r"TrainingSettings.average_lengths must lie above 0 and below 0.289"):
        TrainingSettings(average_lengths=(length,))


def test_min_snr_caps_the_weight_of_clean_timesteps():
    noisy, dice = batch()
    guess = torch.randn(noisy.eps.shape, generator=dice)
    loss = DenoisingLoss(SCHEDULE, TrainingSettings(min_snr_gamma=5.0), torch.device("cpu"))

    total, error = loss(guess, noisy)

    expected = []
    for i, step in enumerate(noisy.step.tolist()):
        snr = SCHEDULE.abar[step] / (1 - SCHEDULE.abar[step])
        expected.append(min(snr, 5.0) / snr * float((guess[i] - noisy.eps[i]).square().mean()))
    assert float(total) == pytest.approx(np.mean(expected), rel=1e-5)
    torch.testing.assert_close(error, (guess - noisy.eps).square().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_velocity_is_learnt_by_its_squared_error_and_weighed_by_its_own_min_snr(gamma):
    noisy, dice = batch()
    guess = torch.randn(noisy.eps.shape, generator=dice)
    settings = TrainingSettings(prediction="v_prediction", min_snr_gamma=gamma)
    loss = DenoisingLoss(SCHEDULE, settings, torch.device("cpu"))

    total, error = loss(guess, noisy)

    errors, weights = [], []
    for i, step in enumerate(noisy.step.tolist()):
        abar = SCHEDULE.abar[step]
        velocity = abar**0.5 * noisy.eps[i] - (1 - abar) ** 0.5 * noisy.x_0[i]
        errors.append(float((guess[i] - velocity).square().mean()))
        snr = abar / (1 - abar)
        weights.append(1.0 if gamma is None else min(snr, gamma) / (snr + 1))
    assert error.tolist() == pytest.approx(errors, rel=1e-4)
    assert float(total) == pytest.approx(np.mean(np.multiply(weights, errors)), rel=1e-4)


def test_velocity_and_noise_that_say_the_same_have_the_same_bound():
    noisy, dice = batch()
    early = noisy.step < SCHEDULE.num_steps // 2  # later the velocity of a given noise is a quotient of small numbers
    noisy = Noisy(*(value[early] for value in noisy))
    eps_hat = noisy.eps + 0.1 * torch.randn(noisy.eps.shape, generator=dice)
    variance = torch.rand(noisy.eps.shape, generator=dice) * 2 - 1
    abar = torch.from_numpy(SCHEDULE.abar)[noisy.step].float()[:, None, None, None]
    velocity = (eps_hat - (1 - abar).sqrt() * noisy.x_t) / abar.sqrt()

    def bound(prediction, said):
        hybrid, simple = (
            DenoisingLoss(SCHEDULE, TrainingSettings(prediction=prediction, variance=kind), torch.device("cpu"))
            for kind in ("learned_range", "fixed")
        )
        return float(hybrid(torch.cat([said, variance], dim=1), noisy)[0] - simple(said, noisy)[0])

    assert bound("v_prediction", velocity) == pytest.approx(bound("epsilon", eps_hat), rel=1e-3)


def test_the_bound_of_the_hybrid_loss_is_the_bound_that_images_are_scored_by():
    noisy, dice = batch(200)
    eps_hat = noisy.eps + 0.1 * torch.randn(noisy.eps.shape, generator=dice)
    variance = torch.rand(noisy.eps.shape, generator=dice) * 2 - 1

    found = VarianceBound(SCHEDULE, torch.device("cpu"))(eps_hat, variance, noisy)

    for step in set(noisy.step.tolist()):
        rows = noisy.step == step
        chain = Chain(lambda x, t, label, rows=rows: Prediction(eps_hat[rows], (variance[rows] + 1) / 2), SCHEDULE)
        estimate = chain.estimate(noisy.x_t[rows], step)
        expected = bound_term(chain, estimate, noisy.x_0[rows], estimate.x0_hat)
        # The last steps divide by sqrt(abar) of some 1e-3, in fp32.
        torch.testing.assert_close(found[rows], expected, rtol=2e-3, atol=1e-4)
    assert 0 in noisy.step.tolist()


def test_the_bound_teaches_the_variance_and_never_the_mean():
    noisy, dice = batch()
    output = torch.randn((12, 2, 4, 4), generator=dice, requires_grad=True)
    hybrid, simple = (
        DenoisingLoss(SCHEDULE, TrainingSettings(variance=variance), torch.device("cpu"))
        for variance in ("learned_range", "fixed")
    )

    hybrid(output, noisy)[0].backward()

    mean_only = output.detach()[:, :1].requires_grad_(True)
    simple(mean_only, noisy)[0].backward()
    torch.testing.assert_close(output.grad[:, :1], mean_only.grad)
    assert output.grad[:, 1:].abs().sum() > 0


def test_losses_are_reported_by_tenths_of_the_chain():
    window = LossWindow(50, torch.device("cpu"))

    window.add(torch.tensor(1.0), torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 4, 49]))
    window.add(torch.tensor(2.0), torch.tensor([7.0]), torch.tensor([5]))
    loss, *buckets = window.means().tolist()

    assert loss == 1.5
    assert len(buckets) == BUCKETS
    assert [buckets[0], buckets[1], buckets[-1]] == [2.0, 7.0, 5.0]
    assert np.isnan(buckets[2:-1]).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"accumulate": 3}, "TrainingSettings.accumulate must divide the batch of 128, got 3"),
        ({"label_dropout": 1.0}, r"TrainingSettings.label_dropout must lie in \[0, 1\), got 1.0"),
        ({"min_snr_gamma": 0.0}, "TrainingSettings.min_snr_gamma must be positive, or None, got 0.0"),
        ({"prediction": "sample"}, "TrainingSettings.prediction must be epsilon or v_prediction, got sample"),
        ({"precision": "fp8"}, "TrainingSettings.precision must be fp32, bf16 or fp16, got fp8"),
        ({"average_lengths": (0.1, 0.1)}, "TrainingSettings.average_lengths must differ from one another"),
    ],
)
def test_options_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**setting)
