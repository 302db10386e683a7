"""Headroom: what more images of each group could bring, from learning curves on real images alone.

A recipe is trained on a quarter, a half and all of the training images of every group, seed by seed, each seed with
held-out images and nested subsets of its own. The last two points tell what the last doubling brought a group, and all
three, over all groups, by how much a doubling brings less than the one before; the next doubling is predicted from
both. An error that falls as a power of the number of images loses the same share with every doubling (Hestness et al.
2017).

Images of any backbone are at best worth as much as as many new real ones, so the upper end of the interval is an upper
end for synthetic images, too.

Shapes: N images, G groups, S seeds, F = 3 fractions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from minority.downstream.arms import REAL_ARMS, Arm
from minority.downstream.data import DownstreamData, Float64, Int64, LabelledImages
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import Trial, run_trial

FRACTIONS = (0.25, 0.5, 1.0)
_HELD_OUT = 0.2  # of every group, by each seed's own draw
_STREAM = 7  # of the random numbers that hold out and thin
#: Fewer held-out images than this, all seeds together, tell nothing about a group.
FEWEST_HELD_OUT = 20
#: A gain below this is none, and an interval wider than that tells nothing.
NO_GAIN, WIDEST = 0.01, 0.4
_LEAST_SHARE = 0.3  # of the last doubling's gain that the next one brings, at least

Verdict = Literal["more images can help", "more images cannot help much", "too few to measure"]


@dataclass(frozen=True, kw_only=True)
class GroupHeadroom:
    """What is known of one group.

    Attributes:
        group: Its name.
        images: Images that there are for training and holding out.
        accuracy: Mean accuracy at each of the fractions, F values in [0, 1].
        gain: What twice as many images of every group are expected to add to its accuracy.
        interval: In which the gain of one more training lies with 95 % probability.
        verdict: What follows.
        reason: Why, in words.
    """

    group: str
    images: int
    accuracy: tuple[float, ...]
    gain: float
    interval: tuple[float, float]
    verdict: Verdict
    reason: str


def measure_curves(
    images: LabelledImages,
    *,
    class_names: Sequence[str],
    group_names: Sequence[str],
    settings: DownstreamSettings,
    arm: str = "oversampling",
    seeds: int = 5,
    on_done: Callable[[int, int], None] = lambda done, total: None,
    device: str = "cpu",
) -> tuple[Float64, Int64]:
    """Train at every fraction with every seed.

    Args:
        images: What may be trained on and held out; no test image.
        class_names: Of the labels.
        group_names: Of the groups.
        settings: The budget of one training, at the first of its learning rates and weight decays.
        arm: The recipe, one without synthetic images.
        seeds: At least 2.
        on_done: Told how many trainings of all are done.
        device: Where to train.

    Returns:
        Accuracy (S, F, G) on held-out images, NaN where a group has none; and how many were held out, (G,), by a seed.

    Raises:
        ValueError: An unknown recipe, or too few seeds.
    """
    recipe = _recipe(arm)
    if seeds < 2:
        raise ValueError(f"headroom needs at least 2 seeds to tell chance from gain, got {seeds}.")
    accuracy = np.full((seeds, len(FRACTIONS), len(group_names)), np.nan)
    held: Int64 = np.zeros(len(group_names), dtype=np.int64)
    for seed in range(seeds):
        rest, held_out = split_by_group(images.groups, seed=seed)
        held = np.bincount(images.groups[held_out], minlength=len(group_names))
        for column, fraction in enumerate(FRACTIONS):
            data = DownstreamData(
                train=images.subset(thinned(images.groups, rest, fraction=fraction)),
                validation=images.subset(held_out),
                test=images.subset(held_out),
                class_names=tuple(class_names),
                group_names=tuple(group_names),
            )
            accuracy[seed, column] = accuracy_by_group(recipe, data, settings=settings, seed=seed, device=device)
            on_done(seed * len(FRACTIONS) + column + 1, seeds * len(FRACTIONS))
    return accuracy, held


def accuracy_by_group(
    arm: Arm, data: DownstreamData, *, settings: DownstreamSettings, seed: int, device: str = "cpu"
) -> Float64:
    """Train once and return the accuracy (G,) on the validation images; NaN for a group that has none."""
    trial = Trial(arm=arm, learning_rate=settings.learning_rates[0], weight_decay=settings.weight_decays[0])
    predictions = run_trial(trial, seed, data, settings=settings, part="validation", device=device)
    right = predictions.predicted == data.validation.labels
    counts = np.bincount(data.validation.groups, minlength=len(data.group_names))
    hits = np.bincount(data.validation.groups, weights=right, minlength=len(data.group_names))
    with np.errstate(invalid="ignore"):
        return np.asarray(hits / counts, dtype=np.float64)


def split_by_group(groups: Int64, *, seed: int) -> tuple[Int64, Int64]:
    """Hold out a fifth of every group, by a draw of the seed's own. Returns the sorted positions (rest, held out)."""
    held = [order[: round(_HELD_OUT * len(order))] for order in _orders(groups, np.arange(len(groups)), seed=seed)]
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(groups)), held_out), held_out


def thinned(groups: Int64, positions: Int64, *, fraction: float) -> Int64:
    """The same share of every group, at least one image each; a smaller share lies in a larger one."""
    kept = [order[: max(1, round(fraction * len(order)))] for order in _orders(groups, positions, seed=0)]
    return np.sort(np.concatenate(kept))


def headroom(
    accuracy: Float64, held_out: Int64, *, group_names: Sequence[str], images: Sequence[int]
) -> list[GroupHeadroom]:
    """Foretell, group by group, what twice as many images bring.

    Args:
        accuracy: (S, F, G), from `measure_curves`.
        held_out: (G,) images that each seed's accuracies are from.
        group_names: G names.
        images: G numbers of images.
    """
    share = share_of_the_last_gain(accuracy)
    seeds = len(accuracy)
    rows = []
    for column, name in enumerate(group_names):
        curve = accuracy[:, :, column]
        number = int(held_out[column])
        if number * seeds < FEWEST_HELD_OUT:
            mean = tuple(float(value) for value in np.nanmean(curve, axis=0)) if number else (float("nan"),) * 3
            reason = f"{number} held-out images a seed; collect more before anything is said about it"
            rows.append(_unmeasured(name, images[column], mean, reason))
            continue
        last = curve[:, 2] - curve[:, 1]  # (S,)
        gain = share * max(0.0, float(last.mean()))
        gain = min(gain, 1.0 - float(curve[:, 2].mean()))
        low, high = _interval(last, gain, number=number, level=float(curve[:, 2].mean()))
        rows.append(_measured(name, images[column], curve.mean(axis=0), gain, (low, high)))
    return rows


def share_of_the_last_gain(accuracy: Float64) -> float:
    """How much of a doubling's gain the next doubling brings, over all groups and seeds; in [0.3, 1]."""
    first = float(np.nanmean(accuracy[:, 1] - accuracy[:, 0]))
    last = float(np.nanmean(accuracy[:, 2] - accuracy[:, 1]))
    return float(np.clip(last / first, _LEAST_SHARE, 1.0)) if first > 0 else 1.0


def _interval(last: Float64, gain: float, *, number: int, level: float) -> tuple[float, float]:
    """For the gain of one training: how the last doubling's gains differ, and what few held-out images hide."""
    seeds = len(last)
    # Two classifiers of one accuracy that agree no more than half by chance; never less than a quarter of an image.
    chance = max(level * (1 - level), 0.25 / number) / number
    spread = np.sqrt(max(float(last.var(ddof=1)), chance) * (1 + 1 / seeds))
    reach = float(stats.t.ppf(0.975, seeds - 1)) * float(spread)
    return max(gain - reach, -1.0), min(gain + reach, 1.0 - level + reach)


def _measured(
    name: str, images: int, curve: NDArray[np.float64], gain: float, interval: tuple[float, float]
) -> GroupHeadroom:
    low, high = interval
    verdict: Verdict
    if high - low > WIDEST:
        verdict, reason = "too few to measure", f"the interval is {high - low:.0%} wide; collect more images of it"
    elif gain < NO_GAIN:
        verdict = "more images cannot help much"
        reason = (
            "it is right nearly always"
            if curve[-1] > 0.95
            else f"its accuracy stays at {curve[-1]:.0%}: labels in doubt, or a class that looks alike"
        )
    else:
        verdict, reason = "more images can help", f"the last doubling brought {curve[2] - curve[1]:+.1%}"
    return GroupHeadroom(
        group=name,
        images=images,
        accuracy=tuple(float(value) for value in curve),
        gain=gain,
        interval=interval,
        verdict=verdict,
        reason=reason,
    )


def _unmeasured(name: str, images: int, accuracy: tuple[float, ...], reason: str) -> GroupHeadroom:
    nothing = float("nan")
    return GroupHeadroom(
        group=name,
        images=images,
        accuracy=accuracy,
        gain=nothing,
        interval=(nothing, nothing),
        verdict="too few to measure",
        reason=reason,
    )


def _recipe(name: str) -> Arm:
    known = {arm.name: arm for arm in REAL_ARMS if not arm.last_layer}
    if name not in known:
        raise ValueError(f"headroom knows no recipe {name!r}; there are {', '.join(known)}.")
    return known[name]


def _orders(groups: Int64, positions: Int64, *, seed: int) -> list[Int64]:
    """The positions of every group, each in a random order that does not depend on the other groups."""
    return [
        np.random.default_rng([seed, _STREAM, int(group)]).permutation(np.sort(positions[groups[positions] == group]))
        for group in np.unique(groups[positions])
    ]
