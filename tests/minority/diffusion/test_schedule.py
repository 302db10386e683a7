import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from minority.diffusion.schedule import NoiseSchedule


@pytest.fixture(params=["linear", "cosine"])
def schedule(request):
    return getattr(NoiseSchedule, request.param)(1000)


def test_signal_falls_from_almost_all_to_almost_nothing(schedule):
    assert schedule.num_steps == 1000
    assert schedule.abar[0] > 0.999
    assert schedule.abar[-1] < 1e-4
    assert np.all(np.diff(schedule.abar) < 0)


def test_the_linear_schedule_has_the_published_ends():
    betas = NoiseSchedule.linear(1000).beta

    np.testing.assert_allclose([betas[0], betas[-1]], [1e-4, 0.02], rtol=1e-9)


def test_the_cosine_schedule_follows_the_squared_cosine():
    schedule = NoiseSchedule.cosine(1000)
    t = np.arange(1, 1001) / 1000
    expected = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2

    # The cap of 0.999 on the last betas is the only difference.
    np.testing.assert_allclose(schedule.abar[:990], expected[:990], rtol=1e-9)


def test_the_posterior_is_that_of_the_gaussians(schedule):
    """Bayes' rule by hand: q(x_{t-1} | x_t, x_0) is proportional to q(x_t | x_{t-1}) q(x_{t-1} | x_0)."""
    step = 700
    abar, previous, beta = schedule.abar[step], schedule.abar_previous[step], schedule.beta[step]
    precision = (1 - beta) / beta + 1 / (1 - previous)

    assert schedule.posterior_variance[step] == pytest.approx(1 / precision, rel=1e-9)
    assert schedule.posterior_mean_x0_weight[step] == pytest.approx(np.sqrt(previous) / (1 - previous) / precision)
    assert schedule.posterior_mean_xt_weight[step] == pytest.approx(np.sqrt(1 - beta) / beta / precision)
    assert 1 - beta == pytest.approx(abar / previous)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 1000))
def test_respacing_keeps_ends_order_and_noise_levels(count):
    full = NoiseSchedule.cosine(1000)

    kept = full.respaced(count)

    assert kept.num_steps == count
    assert kept.timesteps[0] == 0
    assert count == 1 or kept.timesteps[-1] == 999
    np.testing.assert_array_equal(kept.abar, full.abar[kept.timesteps])


def test_sections_divide_the_chain_into_equal_parts():
    kept = NoiseSchedule.linear(300).respaced("10,15,20")

    assert kept.num_steps == 45
    assert [(kept.timesteps // 100 == part).sum() for part in range(3)] == [10, 15, 20]


def test_ddim_spacing_has_one_whole_stride():
    kept = NoiseSchedule.linear(1000).respaced("ddim25")

    assert kept.timesteps.tolist() == list(range(0, 1000, 40))


@pytest.mark.parametrize(
    ("sections", "message"),
    [(0, "cannot keep 0"), (1001, "cannot keep 1001"), ("ddim999", "no whole stride"), ("10,600", "cannot keep 600")],
)
def test_impossible_respacing_is_refused(sections, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule.linear(1000).respaced(sections)


@pytest.mark.parametrize("count", [1, 4, 7, 50, 999])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_named_timesteps_are_those_of_diffusers(spacing, count):
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing=spacing)
    scheduler.set_timesteps(count)

    kept = NoiseSchedule.linear(1000).respaced(f"{spacing}{count}")

    assert kept.timesteps.tolist() == scheduler.timesteps.tolist()[::-1]
    np.testing.assert_array_equal(kept.abar, NoiseSchedule.linear(1000).abar[kept.timesteps])


@pytest.mark.parametrize("count", [1, 4, 8, 50])
def test_the_steps_of_latent_consistency_models_are_those_of_diffusers(count):
    scheduler = LCMScheduler(num_train_timesteps=1000, original_inference_steps=50)
    scheduler.set_timesteps(count)

    assert NoiseSchedule.linear(1000).respaced(f"lcm{count}").timesteps.tolist() == scheduler.timesteps.tolist()[::-1]


def half_log_snr(schedule):
    return 0.5 * np.log(schedule.abar / (1 - schedule.abar))


@pytest.mark.parametrize("count", [2, 10, 20])
def test_steps_even_in_log_snr_lie_as_near_as_levels_allow(count, schedule):
    kept = schedule.respaced(f"logsnr{count}")

    levels, ends = half_log_snr(schedule), (kept.timesteps[0], kept.timesteps[-1])
    wanted = np.linspace(levels[0], max(levels[-1], -5.1), count)
    off = np.abs(half_log_snr(kept) - wanted)[:-1]  # the last one goes to nothing but noise
    nearest = np.abs(levels[:, None] - wanted[None]).min(axis=0)[:-1]
    assert ends == (0, 999)
    np.testing.assert_allclose(off, nearest, atol=1e-12)


def test_steps_that_would_coincide_are_spread(schedule):
    assert schedule.respaced("logsnr1000").timesteps.tolist() == list(range(1000))
    assert np.all(np.diff(schedule.respaced("logsnr600").timesteps) >= 1)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("leading0", "cannot keep 0 of 1000"),
        ("leading1001", "cannot keep"),
        ("trailing0", "cannot keep 0 of 1000"),
        ("lcm51", "cannot keep 51 of the 50 steps"),
        ("lcm0", "cannot keep 0 of 1000"),
        ("logsnr1", "keep 2 ... 1000"),
        ("logsnr1001", "keep 2 ... 1000"),
        ("trailingX", "steps must be a number"),
    ],
)
def test_named_spacings_that_cannot_be_are_refused(sections, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule.linear(1000).respaced(sections)


def test_a_shifted_schedule_tells_the_next_noisier_level_at_the_same_levels():
    full = replace(NoiseSchedule.linear(1000), steps_offset=1)  # as Stable Diffusion's scheduler has it

    late = full.respaced("late-leading10")

    assert late.timesteps.tolist() == full.respaced("leading10").timesteps.tolist()
    np.testing.assert_array_equal(late.abar, full.abar[late.timesteps - 1])
    assert late.trained.num_steps == 1000


def test_the_first_steps_of_a_chain_can_be_kept_alone(schedule):
    kept = schedule.truncated(3)

    assert kept.timesteps.tolist() == [0, 1, 2]
    assert schedule.truncated(1000).num_steps == 1000
    for count in (0, 1001):
        with pytest.raises(ValueError, match=f"cannot keep {count} of 1000"):
            schedule.truncated(count)


def test_the_first_log_variance_is_borrowed_from_the_second(schedule):
    logs = schedule.posterior_log_variance

    np.testing.assert_allclose(logs[1:], np.log(schedule.posterior_variance[1:]))
    assert logs[0] == logs[1]
    assert len(logs) == 1000
    np.testing.assert_allclose(schedule.respaced(1).posterior_log_variance, np.log(schedule.beta[:1]))


def test_a_network_is_told_its_own_timesteps_once_for_every_sample():
    told = NoiseSchedule.linear(1000).respaced("ddim25").timestep(3, 5)

    assert told.tolist() == [120] * 5
    assert told.dtype == torch.int64


def test_where_no_signal_is_left_the_noise_is_the_state():
    nothing = NoiseSchedule(abar=np.array([0.5, 0.0]), timesteps=np.arange(2))
    x_t = torch.randn(2, 1, 4, 4)

    assert torch.equal(nothing.eps_from_x0(x_t, 1, torch.zeros_like(x_t)), x_t)
    torch.testing.assert_close(nothing.eps_from_x0(x_t, 0, torch.zeros_like(x_t)), x_t * math.sqrt(2))


def test_noising_and_both_estimates_are_inverse(schedule):
    x_0, eps = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)

    x_t = schedule.noised(x_0, 500, eps)

    torch.testing.assert_close(schedule.x0_from_eps(x_t, 500, eps), x_0, atol=1e-4, rtol=0)
    torch.testing.assert_close(schedule.eps_from_x0(x_t, 500, x_0), eps, atol=1e-4, rtol=0)


def test_fractions_of_the_chain_become_steps(schedule):
    assert schedule.respaced(25).step_at(0.8) == 20
    assert schedule.step_at(0) == 0
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got 1"):
        schedule.step_at(1)


def test_a_schedule_that_does_not_fall_is_refused():
    with pytest.raises(ValueError, match="must fall strictly"):
        NoiseSchedule(abar=np.array([0.5, 0.6]), timesteps=np.arange(2))
    with pytest.raises(ValueError, match="one timestep for every step"):
        NoiseSchedule(abar=np.array([0.5, 0.4]), timesteps=np.arange(3))
