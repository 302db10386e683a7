"""The training loop: one screen, and what a step is.

Every random draw of a training step is a function of (seed, step), so a run that is killed and resumed from its last
checkpoint ends in the same weights as one that never stopped (bit for bit on one device type and thread count), and
reports the same losses on its way.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minority.backbones.factors import FactorEmbedding, Factors
from minority.diffusion.schedule import NoiseSchedule
from minority.training.averages import WeightAverage, exponential, power_function
from minority.training.checkpoint import read_checkpoint, run_identity, write_checkpoint
from minority.training.data import TrainingData, check_data
from minority.training.loss import DenoisingLoss, LossWindow, Noiser, Noisy
from minority.training.process_group import ProcessGroup, SingleProcess
from minority.training.settings import TrainingSettings

PROGRESS_REPORTS = 100  # a run calls on_progress about so often
_EXPONENTIAL = "exponential"  # the average that is kept; the others are named by their lengths
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Progress:
    """Where a training run stands.

    Attributes:
        step: Steps done.
        steps: Steps in total.
        loss: Mean loss since the last report; about 1 at the start.
        bucket_losses: Mean squared error of the noise since then, by tenths of the chain, cleanest first; NaN where no
            image fell.
        seconds_left: Estimate from the speed of this run, without what a resumed run did before.
    """

    step: int
    steps: int
    loss: float
    bucket_losses: tuple[float, ...] = ()
    seconds_left: float = math.nan


@dataclass(frozen=True)
class Evaluations:
    """Evaluates the averaged network on the way.

    Attributes:
        every: Steps between two evaluations, at least 1.
        call: Gets the steps done and a copy of the network in eval mode, with the averaged weights.
    """

    every: int
    call: Callable[[int, nn.Module], None]


def train_denoiser(
    network: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    *,
    schedule: NoiseSchedule,
    settings: TrainingSettings,
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    evaluations: Evaluations | None = None,
    on_average: Callable[[float, nn.Module], None] | None = None,
    device: torch.device | str = "cpu",
    process_group: ProcessGroup | None = None,
) -> nn.Module:
    """Train a noise predictor in place and return it in eval mode with its averaged weights.

    Args:
        network: A diffusers UNet2DModel; predicts the noise, (B, C, H, W), with the variance behind it where that is
            learnt.
        images: (N, H, W, C) uint8 training images, N >= 1.
        labels: (N,) int64, not negative. An unconditional network uses them to balance classes alone; None: all images
            are alike.
        schedule: The full chain to train on.
        settings: Steps, batch, loss, averages and precision of the training.
        checkpoint: File that receives the state every `checkpoint_every` steps and at the end (by one rename), and
            from which a killed run goes on. A finished one makes this call return at once. None: no resuming.
        on_progress: Called about a hundred times and after the last step, before the checkpoint of that step.
        evaluations: When and how to evaluate the network on the way, before the checkpoint of that step; None: never.
        on_average: Called at the end with each of `average_lengths` and a copy of the network with that average.
        device: Where to train, where there is no process group.
        process_group: The processes that train together; callbacks and checkpoints are the first one's. None: this one
            alone.

    Raises:
        ValueError: Where there are no images, labels do not fit them or the network, the checkpoint belongs to another
            run or cannot be read, or the loss stops being finite.
    """
    check_data(images, labels)
    process_group = process_group or SingleProcess(device)
    run = _Run(network, images, labels, schedule=schedule, settings=settings, process_group=process_group)
    first = run.load(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    report_every = max(1, settings.steps // PROGRESS_REPORTS)
    started = time.monotonic()
    for step in range(first, settings.steps):
        run.step(step)
        done = step + 1
        last = done == settings.steps
        if done % report_every == 0 or last:
            loss, *buckets = run.report(step)
            left = (time.monotonic() - started) / (done - first) * (settings.steps - done)
            if on_progress is not None and process_group.rank == 0:
                on_progress(Progress(done, settings.steps, loss, tuple(buckets), left))
        if evaluations is not None and process_group.rank == 0 and (done % evaluations.every == 0 or last):
            evaluations.call(done, run.averaged_copy())
        if checkpoint is not None and process_group.rank == 0 and (done % settings.checkpoint_every == 0 or last):
            run.save(checkpoint, done)
    run.finish(on_average if process_group.rank == 0 else None)
    return network.eval()


class _Run:
    """The network, its optimiser, its averaged weights and its data."""

    def __init__(
        self,
        network: nn.Module,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64] | None,
        *,
        schedule: NoiseSchedule,
        settings: TrainingSettings,
        process_group: ProcessGroup,
    ) -> None:
        parts = settings.accumulate * process_group.size
        if settings.batch_size % parts:
            raise ValueError(
                f"TrainingSettings.batch_size must be a multiple of accumulate x processes = {parts}, got "
                f"{settings.batch_size}."
            )
        self.identity = run_identity(network, images, labels, schedule=schedule, settings=settings)
        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        self.network = network.to(process_group.device).to(memory_format=layout).train()
        self.settings, self.process_group = settings, process_group
        wrapped = process_group.wrap(self.network)
        self.predict = torch.compile(wrapped) if settings.compile else wrapped
        self._wrapped = wrapped
        no_label = _no_label(network, labels, settings)
        self.data = TrainingData(
            images,
            labels,
            settings,
            no_label=no_label,
            shown=_takes_labels(network),
            factors=_factors_of(network, settings),
        )
        self.noiser, self.loss = Noiser(schedule), DenoisingLoss(schedule, settings, process_group.device)
        self.window = LossWindow(schedule.num_steps, process_group.device)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(process_group.device.type, enabled=settings.precision == "fp16")
        decays = {_EXPONENTIAL: exponential(settings.ema_decay)}
        decays |= {str(length): power_function(length) for length in settings.average_lengths}
        self.averages = {name: WeightAverage(self.network, decay) for name, decay in decays.items()}

    def step(self, step: int) -> None:
        """One optimiser step."""
        generator = _generator(self.settings.seed, step)
        x_0, label = self.data.draw(generator)
        noisy = self.noiser.add(x_0, generator)
        seed = int(torch.randint(2**62, (1,), generator=generator))  # of dropout
        label = self.data.leave_out(label, generator)
        self.optimiser.zero_grad(set_to_none=True)
        self._accumulate(noisy, label, seed=seed)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * self._rate(step)
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        current = self.network.state_dict()
        for average in self.averages.values():
            average.update(step, current)

    def _accumulate(self, noisy: Noisy, label: Tensor | None, *, seed: int) -> None:
        """Gradients of this process's share of a batch, part by part."""
        count, device = self.settings.accumulate, self.process_group.device
        size = len(noisy.x_0) // (count * self.process_group.size)
        losses, errors, steps = [], [], []
        for part in range(self.process_group.rank * count, (self.process_group.rank + 1) * count):
            where = slice(part * size, (part + 1) * size)
            batch = noisy.part(where, device)
            shown = None if label is None else label[where].to(device)
            is_last = part == (self.process_group.rank + 1) * count - 1
            with nullcontext() if is_last else self.process_group.gather_gradients_later(self._wrapped):
                loss, error = self.loss(self._forward(batch, shown, seed=seed + part), batch)
                self.scaler.scale(loss / count).backward()
            losses.append(loss.detach())
            errors.append(error)
            steps.append(batch.step)
        self.window.add(torch.stack(losses).mean(), torch.cat(errors), torch.cat(steps))

    def _forward(self, batch: Noisy, label: Tensor | None, *, seed: int) -> Tensor:
        device, dtype = self.process_group.device, _DTYPES[self.settings.precision]
        x_t = batch.x_t.contiguous(memory_format=torch.channels_last) if self.settings.channels_last else batch.x_t
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
        ):
            torch.manual_seed(seed)
            output: Tensor = self.predict(x_t, batch.timestep, class_labels=label).sample
        return output

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.settings.warmup))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.settings.steps)))

    def report(self, step: int) -> list[float]:
        """The mean loss since the last report, and the errors by bucket, over all processes."""
        loss, *buckets = self.process_group.mean(self.window.means()).tolist()
        if not math.isfinite(loss):
            raise ValueError(f"the training loss was {loss} around step {step}; lower TrainingSettings.learning_rate.")
        return [loss, *buckets]

    def averaged_copy(self, name: str = _EXPONENTIAL) -> nn.Module:
        """A copy of the network, in eval mode, with averaged weights."""
        twin = copy.deepcopy(self.network)
        twin.load_state_dict(self.averages[name].weights)
        return twin.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)

    def save(self, path: Path, step: int) -> None:
        """Replace the checkpoint."""
        state = {"step": step, "identity": self.identity, "network": self.network.state_dict()}
        state |= {"averages": {name: average.weights for name, average in self.averages.items()}}
        state |= {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}
        write_checkpoint(path, state | {"window": self.window.state()})

    def load(self, path: Path) -> int:
        """Take over a checkpoint; returns the steps that it has done."""
        state = read_checkpoint(path, identity=self.identity)
        self.network.load_state_dict(state["network"])
        for name, weights in state["averages"].items():
            self.averages[name].restore(weights)
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.window.restore(state["window"])
        return int(state["step"])

    def finish(self, on_average: Callable[[float, nn.Module], None] | None) -> None:
        """Give the network its averaged weights, and hand over the others."""
        self.network.load_state_dict(self.averages[_EXPONENTIAL].weights)
        self.network.to(memory_format=torch.contiguous_format)
        if on_average is not None:
            for length in self.settings.average_lengths:
                on_average(length, self.averaged_copy(str(length)))


def _takes_labels(network: nn.Module) -> bool:
    return getattr(network, "class_embedding", None) is not None


def _no_label(network: nn.Module, labels: NDArray[np.int64] | None, settings: TrainingSettings) -> int | None:
    """The label that stands for none, where labels are left out."""
    embedding = getattr(network, "class_embedding", None)
    if isinstance(embedding, FactorEmbedding):
        return embedding.factors.nothing
    if settings.label_dropout == 0:
        return None
    if labels is None or not isinstance(embedding, nn.Embedding) or labels.max() >= embedding.num_embeddings - 1:
        raise ValueError(
            "TrainingSettings.label_dropout needs labels, and a network with one class embedding more than there are "
            f"classes; got {getattr(embedding, 'num_embeddings', 'no')} embeddings; set it to 0 to train without."
        )
    return embedding.num_embeddings - 1


def _factors_of(network: nn.Module, settings: TrainingSettings) -> Factors | None:
    """The conditions of a network that has several."""
    embedding = getattr(network, "class_embedding", None)
    if not isinstance(embedding, FactorEmbedding):
        return None
    count = len(embedding.factors.names)
    if len(settings.condition_dropout) not in (1, count) or settings.label_dropout == 0:
        raise ValueError(
            f"a network with {count} conditions needs TrainingSettings.label_dropout above 0, which teaches what no "
            f"condition means, and 1 or {count} numbers in condition_dropout; got {settings.label_dropout} and "
            f"{settings.condition_dropout}."
        )
    return embedding.factors


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
