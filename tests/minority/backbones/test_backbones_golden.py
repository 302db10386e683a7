"""The converted U-Nets against trajectories recorded with the published implementation (see golden/README.md)."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from minority.backbones import AdmFlags, UNetDenoiser, UNetSettings, convert
from minority.diffusion.schedule import NoiseSchedule

GOLDEN = Path(__file__).parents[1] / "golden"
pytestmark = pytest.mark.usefixtures("plain_convolutions")
CASES = ["ancestral_cosine", "self_guidance_cosine_var", "self_guidance_linear_fixed_classcond"]


def read(name):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    model_file = GOLDEN / metadata.get("model_file", f"{name}.safetensors")
    with safe_open(model_file, "pt") as file:
        names = [key for key in file.keys() if key.startswith("model.")]  # noqa: SIM118
        model = {key.removeprefix("model."): file.get_tensor(key) for key in names}
    return json.loads(metadata["config"]), model, tensors


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_every_recorded_clean_estimate_is_reproduced(name):
    torch.set_num_threads(1)
    config, model, recorded = read(name)
    flags = AdmFlags.from_command_line(config["model_config"])
    full = getattr(NoiseSchedule, flags.noise_schedule)(flags.diffusion_steps)
    schedule = full.respaced(config["model_config"]["timestep_respacing"])
    unet = convert(model, flags)
    denoiser = UNetDenoiser(unet, full, settings=UNetSettings(num_classes=unet.config.num_class_embeds))

    before = torch.cat([recorded["x_T"][None], recorded["x_after_step"][:-1]])
    for row, step in enumerate(recorded["step_index"].tolist()):
        x_t = before[row]
        prediction = denoiser(x_t, schedule.timestep(step, len(x_t)), recorded.get("y"))
        x0_hat = schedule.x0_from_eps(x_t, step, prediction.eps).clamp(-1, 1)

        # eps agrees to a few fp32 roundings (2e-6); the clean estimate enlarges them by sqrt(1 / abar - 1), which is
        # 20,000 at the noisiest step of the cosine schedule.
        tolerance = 1e-5 + 2e-6 * math.sqrt(1 / schedule.abar[step] - 1)
        assert (x0_hat - recorded["posterior_mean_x0"][row]).abs().max() <= tolerance, f"step {step}"


@torch.no_grad()
def test_a_recorded_ancestral_step_is_reproduced_with_its_learned_variance():
    torch.set_num_threads(1)
    config, model, recorded = read("ancestral_cosine")
    flags = AdmFlags.from_command_line(config["model_config"])
    full = NoiseSchedule.cosine(1000)
    schedule = full.respaced("25")
    denoiser = UNetDenoiser(convert(model, flags), full)
    step = 12
    row = recorded["step_index"].tolist().index(step)
    x_t = recorded["x_after_step"][row - 1]

    prediction = denoiser(x_t, schedule.timestep(step, len(x_t)), None)
    x0_hat = schedule.x0_from_eps(x_t, step, prediction.eps).clamp(-1, 1)
    mean = schedule.posterior_mean_x0_weight[step] * x0_hat + schedule.posterior_mean_xt_weight[step] * x_t
    smallest, largest = schedule.posterior_log_variance[step], torch.tensor(schedule.beta[step]).log().item()
    log_variance = smallest + prediction.variance_fraction * (largest - smallest)
    after = mean + (0.5 * log_variance).exp() * recorded["ancestral_noise"][row]

    assert (after - recorded["x_after_step"][row]).abs().max() <= 1e-5
