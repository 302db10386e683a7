import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from minority.diffusion.schedule import NoiseSchedule
from minority.training import Evaluations, TrainingSettings, drawing_weights, train_denoiser
from minority.training.augmentation import AffineAugmentation
from minority.training.checkpoint import read_checkpoint, write_checkpoint
from tests.tiny_networks import tiny_unet

SCHEDULE = NoiseSchedule.cosine(100)
SETTINGS = TrainingSettings(steps=300, batch_size=4, checkpoint_every=20, warmup=10)


def tiny_network(seed=0, **further):
    return tiny_unet(seed, **{"num_class_embeds": 10, "dropout": 0.1} | further)


def digits(count=64):
    data = load_digits()
    return np.round(data.images[:count] * 255 / 16).astype(np.uint8)[..., None], data.target[:count].astype(np.int64)


def train(settings=SETTINGS, **options):
    return train_denoiser(tiny_network(), *digits(), schedule=SCHEDULE, settings=settings, **options)


def weights(network):
    return torch.cat([value.flatten() for value in network.state_dict().values()])


@pytest.fixture(scope="module")
def undisturbed():
    """Weights of a run that nothing disturbs."""
    return weights(train())


class Killed(BaseException):
    """Stands for a death in the middle of the run."""


def test_a_run_killed_at_random_steps_ends_in_the_same_weights_bit_for_bit(tmp_path, undisturbed):
    dice = random.Random(0)
    deaths = [dice.randrange(5, 60), dice.randrange(60, 180), dice.randrange(180, 300)]

    def die_at(step):
        def report(progress):
            if progress.step >= step:
                raise Killed

        return report

    for death in deaths:
        with pytest.raises(Killed):
            train(checkpoint=tmp_path / "state.pt", on_progress=die_at(death))
    resumed = train(checkpoint=tmp_path / "state.pt")

    assert torch.equal(weights(resumed), undisturbed)


VICTIM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_training
test_training.train(checkpoint=Path(sys.argv[2]), on_progress=lambda progress: print(progress.step, flush=True))
"""


@pytest.mark.slow
def test_a_process_killed_with_signal_9_leaves_a_checkpoint_to_go_on_from(tmp_path, undisturbed, request):
    checkpoint = tmp_path / "state.pt"
    process = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(request.path.parent), str(checkpoint)],
        cwd=request.config.rootpath,
        env={"PYTHONPATH": str(request.config.rootpath)},
        stdout=subprocess.PIPE,
        text=True,
    )
    death = random.Random(1).randrange(40, 250)
    with process:
        reached = next(int(line) for line in process.stdout if int(line) >= death)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    steps = []

    resumed = train(checkpoint=checkpoint, on_progress=lambda progress: steps.append(progress.step))

    assert steps[0] > reached - SETTINGS.checkpoint_every
    assert torch.equal(weights(resumed), undisturbed)


def test_a_finished_run_is_not_trained_again(tmp_path):
    settings = replace(SETTINGS, steps=10)
    finished = train(settings, checkpoint=tmp_path / "state.pt")
    steps = []

    again = train(settings, checkpoint=tmp_path / "state.pt", on_progress=lambda progress: steps.append(progress.step))

    assert steps == []
    assert torch.equal(weights(again), weights(finished))


def test_the_seed_decides_the_weights():
    settings = replace(SETTINGS, steps=10)

    assert torch.equal(weights(train(settings)), weights(train(settings)))
    assert not torch.equal(weights(train(settings)), weights(train(replace(settings, seed=1))))


def test_training_neither_reads_nor_changes_torchs_global_random_state():
    settings = replace(SETTINGS, steps=3)
    networks = [tiny_network(), tiny_network()]
    states = []
    for seed, network in enumerate(networks):
        torch.manual_seed(seed)
        train_denoiser(network, *digits(), schedule=SCHEDULE, settings=settings)
        states.append(torch.rand(1))
        torch.manual_seed(seed)
        assert torch.equal(states[-1], torch.rand(1))

    assert torch.equal(weights(networks[0]), weights(networks[1]))


def test_training_lowers_the_loss_and_reports_it():
    reports = []

    network = train(on_progress=reports.append)

    assert [reports[0].step, reports[-1].step] == [3, 300]
    assert np.mean([report.loss for report in reports[-10:]]) < 0.7 * reports[0].loss
    assert reports[-1].seconds_left == 0
    assert not network.training


def test_what_is_kept_is_the_moving_average_of_the_weights():
    class Line(torch.nn.Module):
        """Predicts one number, whatever it is shown."""

        def __init__(self):
            super().__init__()
            self.height = torch.nn.Parameter(torch.tensor(0.0))
            self.seen = []

        def forward(self, x, timestep, class_labels):
            self.seen.append(self.height.item())
            return type("Output", (), {"sample": self.height * torch.ones_like(x)})

    line = Line()
    settings = TrainingSettings(steps=30, batch_size=4, warmup=0, ema_decay=0.6, learning_rate=0.1)

    train_denoiser(line, digits()[0], None, schedule=SCHEDULE, settings=settings)

    # `seen` are the weights before each step; those after the last one are what the average leaves to be solved for.
    average = 0.0
    for step, value in enumerate(line.seen[1:]):
        decay = min(0.6, (step + 1) / (step + 10))
        average = decay * average + (1 - decay) * value
    last = (line.height.item() - 0.6 * average) / 0.4
    assert abs(last - line.seen[-1]) < 2e-3  # the rate has fallen to 0.1 * (1 - cos(pi / 30)) / 2 = 3e-4 by then
    assert line.height.item() != pytest.approx(last, abs=1e-7)


@pytest.mark.parametrize(("class_balance", "shares"), [(0.0, (0.9, 0.1)), (0.5, (0.75, 0.25)), (1.0, (0.5, 0.5))])
def test_class_balance_goes_from_the_data_as_they_are_to_equal_classes(class_balance, shares):
    labels = np.array([0] * 90 + [1] * 10)

    odds = drawing_weights(labels, class_balance=class_balance, count=100)

    share = [float(odds[labels == label].sum() / odds.sum()) for label in (0, 1)]
    assert share == pytest.approx(shares, abs=1e-12)


def test_images_without_labels_are_drawn_alike():
    assert drawing_weights(None, class_balance=1.0, count=3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": replace(SETTINGS, steps=10, learning_rate=1e-4)},
        {"settings": replace(SETTINGS, steps=10, augmentation=AffineAugmentation(rotation=1.0))},
        {"schedule": NoiseSchedule.linear(100)},
        {"images": 255 - digits()[0]},
        {"labels": digits()[1][::-1].copy()},
    ],
    ids=["rate", "augmentation", "schedule", "images", "labels"],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change):
    images, labels = digits()
    run = {"images": images, "labels": labels, "schedule": SCHEDULE, "settings": replace(SETTINGS, steps=10)}
    train_denoiser(tiny_network(), **run, checkpoint=tmp_path / "state.pt")

    with pytest.raises(ValueError, match=r"state.pt belongs to a training run with other settings, images"):
        train_denoiser(tiny_network(), **(run | change), checkpoint=tmp_path / "state.pt")


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_torn_or_foreign_checkpoint_is_refused_with_the_remedy(tmp_path, keep):
    path = tmp_path / "state.pt"
    settings = replace(SETTINGS, steps=4)
    train(settings, checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])

    with pytest.raises(ValueError, match=r"state.pt is not a readable training checkpoint; remove it"):
        train(settings, checkpoint=path)


def test_no_flipped_bit_of_a_checkpoint_is_trained_on(tmp_path):
    path = tmp_path / "state.pt"
    write_checkpoint(path, {"identity": "mine", "weights": torch.arange(512.0), "step": 7})
    sound = path.read_bytes()
    assert torch.equal(read_checkpoint(path, identity="mine")["weights"], torch.arange(512.0))

    for bit in [*np.random.default_rng(0).integers(0, 8 * len(sound), 200).tolist(), 8 * len(sound) - 1]:
        broken = bytearray(sound)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"state\.pt is not a readable training checkpoint; remove it to train"):
            read_checkpoint(path, identity="mine")


def test_a_checkpoint_with_a_right_checksum_still_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    write_checkpoint(tmp_path / "state.pt", {"identity": "mine", "weights": Trap()})

    with pytest.raises(ValueError, match=r"state\.pt is not a readable training checkpoint"):
        read_checkpoint(tmp_path / "state.pt", identity="mine")
    assert not (tmp_path / "it ran").exists()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "state.pt")

    with pytest.raises(ValueError, match="not a readable training checkpoint"):
        train(replace(SETTINGS, steps=4), checkpoint=tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((0, 8, 8, 1), np.uint8), None, "there are no images to train on"),
        (np.zeros((3, 8, 8, 1)), None, r"uint8 \(N, H, W, C\), got float64 \(3, 8, 8, 1\)"),
        (np.zeros((3, 8, 8), np.uint8), None, r"uint8 \(N, H, W, C\), got uint8 \(3, 8, 8\)"),
        (np.zeros((3, 8, 8, 1), np.uint8), np.zeros(2, np.int64), r"must be 3 integers, got int64 \(2,\)"),
        (np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, -1]), "must not be negative, got -1"),
    ],
)
def test_data_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        train_denoiser(tiny_network(), images, labels, schedule=SCHEDULE, settings=SETTINGS)


def test_a_diverging_run_stops_and_says_why():
    network = tiny_network()
    with torch.no_grad():
        network.conv_out.bias.fill_(math.inf)

    with pytest.raises(ValueError, match=r"loss was (nan|inf) around step 2; lower TrainingSettings.learning_rate"):
        train_denoiser(network, *digits(), schedule=SCHEDULE, settings=SETTINGS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "TrainingSettings.steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "TrainingSettings.learning_rate must be positive, got 0.0"),
        ({"ema_decay": 1.0}, r"TrainingSettings.ema_decay must lie in \[0, 1\), got 1.0"),
        ({"class_balance": 1.5}, r"TrainingSettings.class_balance must lie in \[0, 1\], got 1.5"),
        ({"weight_decay": -0.1}, "TrainingSettings.weight_decay must not be negative, got -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**setting)


def test_the_default_is_the_published_algorithm_bit_for_bit():
    network, (images, labels) = tiny_network(), digits()
    settings = TrainingSettings(steps=4, batch_size=4, warmup=2, augmentation=None, class_balance=0.0)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    abar = torch.from_numpy(SCHEDULE.abar).float()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(4):
        dice = torch.Generator().manual_seed(int(np.random.SeedSequence([0, step]).generate_state(1)[0]))
        chosen = torch.multinomial(torch.ones(64, dtype=torch.float64), 4, replacement=True, generator=dice)
        eps = torch.randn((4, 1, 8, 8), generator=dice)
        t = torch.randint(100, (4,), generator=dice)
        share = abar[t][:, None, None, None]
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=dice)))
            x_t = share.sqrt() * pixels[chosen] + (1 - share).sqrt() * eps
            guess = network(x_t, t, class_labels=torch.from_numpy(labels)[chosen]).sample
        optimiser.zero_grad()
        (guess - eps).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 2) * 0.5 * (1 + math.cos(math.pi * step / 4))
        optimiser.step()
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - min(0.995, (step + 1) / (step + 10)))

    trained = train_denoiser(tiny_network(), images, labels, schedule=SCHEDULE, settings=settings)

    assert all(torch.equal(value, average[name]) for name, value in trained.state_dict().items())


SHORT = TrainingSettings(steps=9, batch_size=4, checkpoint_every=2, warmup=2)


def network_for(settings):
    return tiny_network(
        out_channels=2 if settings.variance == "learned_range" else 1,
        num_class_embeds=11 if settings.label_dropout else 10,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16", "channels_last": True},
        {"precision": "fp16", "learning_rate": 1e-4},
        {"accumulate": 2, "min_snr_gamma": 5.0, "label_dropout": 0.3, "prediction": "v_prediction"},
        {"variance": "learned_range", "average_lengths": (0.05, 0.1)},
        pytest.param({"compile": True}, marks=pytest.mark.slow),  # compiles for minutes
    ],
    ids=lambda options: "+".join(options),
)
def test_every_option_survives_death_with_the_same_weights_and_the_same_loss_curve(tmp_path, options):
    settings = replace(SHORT, **options)

    def go(checkpoint=None, *, dies_at=None):
        reports, averages = [], []

        def report(progress):
            reports.append((progress.step, progress.loss, progress.bucket_losses))
            if progress.step == dies_at:
                raise Killed

        trained = train_denoiser(
            network_for(settings),
            *digits(),
            schedule=SCHEDULE,
            settings=settings,
            checkpoint=checkpoint,
            on_progress=report,
            on_average=lambda length, network: averages.append((length, weights(network))),
        )
        return weights(trained), reports, averages

    whole, reports, averages = go()
    with pytest.raises(Killed):
        go(tmp_path / "state.pt", dies_at=5)
    resumed, last_reports, last_averages = go(tmp_path / "state.pt")

    assert torch.equal(resumed, whole)
    assert repr(last_reports) == repr(reports[4:])  # repr: NaN equals NaN
    assert [length for length, _ in averages] == list(settings.average_lengths)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(averages, last_averages, strict=True))
    assert torch.isfinite(whole).all()


def test_a_report_after_a_resume_covers_the_steps_before_it_too(tmp_path):
    settings = replace(SHORT, steps=200, batch_size=2, checkpoint_every=1, augmentation=None)  # a report in two steps

    def first_report(checkpoint):
        reports = []

        def report(progress):
            reports.append((progress.step, progress.loss))
            raise Killed

        with pytest.raises(Killed):
            train(settings, checkpoint=checkpoint, on_progress=report)
        return reports

    whole = first_report(None)

    assert first_report(tmp_path / "state.pt") == whole  # dies after step 2, of which nothing but the report is left
    assert first_report(tmp_path / "state.pt") == whole  # goes on from step 1


@pytest.mark.parametrize("options", [{"channels_last": True}, {"accumulate": 4}], ids=["channels-last", "accumulate"])
def test_how_a_batch_goes_through_the_network_changes_weights_by_rounding_alone(options):
    def go(settings):
        network = tiny_network(dropout=0.0)
        return weights(train_denoiser(network, *digits(), schedule=SCHEDULE, settings=settings))

    settings = replace(SHORT, steps=3, learning_rate=1e-4)

    torch.testing.assert_close(go(replace(settings, **options)), go(settings), rtol=0, atol=2e-5)


def test_half_precision_changes_little_and_something():
    exact, half = (train(replace(SHORT, steps=3, learning_rate=1e-4, precision=p)) for p in ("fp32", "bf16"))

    difference = (weights(exact) - weights(half)).abs().max()
    assert 0 < difference < 4e-4  # Adam's step is the rate whatever the gradient's size: at most some 3 x 1e-4


def test_an_unconditional_network_is_balanced_by_labels_that_it_never_sees():
    network = tiny_network(num_class_embeds=None)
    images, _ = digits()
    labels = np.zeros(64, np.int64)
    labels[0] = 1
    seen = []
    network.register_forward_pre_hook(lambda _, inputs, named: seen.append(named), with_kwargs=True)

    train_denoiser(network, images, labels, schedule=SCHEDULE, settings=replace(SHORT, steps=2, class_balance=1.0))

    assert all(named["class_labels"] is None for named in seen)


def test_labels_are_left_out_as_often_as_asked():
    settings = replace(SHORT, steps=60, batch_size=8, label_dropout=0.25, augmentation=None)
    network = network_for(settings)
    seen = []
    network.register_forward_pre_hook(lambda _, inputs, named: seen.append(named["class_labels"]), with_kwargs=True)

    train_denoiser(network, *digits(), schedule=SCHEDULE, settings=settings)

    share = (torch.cat(seen) == 10).float().mean()
    assert abs(share - 0.25) < 3 * (0.25 * 0.75 / 480) ** 0.5  # 3 standard errors of 60 x 8 draws


def test_labels_cannot_be_left_out_without_an_embedding_for_none():
    with pytest.raises(ValueError, match="one class embedding more than there are classes; got 10 embeddings"):
        train(replace(SHORT, label_dropout=0.1))


def test_evaluations_change_nothing_and_see_the_average():
    settings = replace(SHORT, steps=4)
    seen = []

    looked = train(
        settings, evaluations=Evaluations(every=2, call=lambda step, network: seen.append((step, weights(network))))
    )

    assert [step for step, _ in seen] == [2, 4]
    assert torch.equal(weights(looked), weights(train(settings)))
    assert torch.equal(seen[-1][1], weights(looked))


@pytest.mark.slow  # compiles for a minute
def test_a_compiled_network_trains_to_the_same_weights_up_to_rounding():
    def go(settings):
        network = tiny_network(dropout=0.0)
        return weights(train_denoiser(network, *digits(), schedule=SCHEDULE, settings=settings))

    settings = replace(SHORT, steps=3, learning_rate=1e-4)

    torch.testing.assert_close(go(replace(settings, compile=True)), go(settings), rtol=0, atol=2e-5)
