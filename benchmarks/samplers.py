"""Every sampler on one backbone and one real set: rarity, quality, yield, cost.

    .venv/bin/python -m benchmarks.samplers --backbone backbones/digits --real digits
    .venv/bin/python -m benchmarks.samplers --backbone backbones/fashion-mnist-lt --real fashion-mnist-lt --num 200

All samplers draw the same indices with the same labels and noise. Sets are compared in pixel space, which is right for
small aligned images; the real set is the training split that the preset `backbone/NAME` trains on, or `--limit` of its
images drawn at random. "Yield" is the share that is rare (beyond the real 90 %
quantile of the mean distance to 5 real neighbours), inside the real manifold, and no copy (beyond the real 1 % quantile
of the distance to the nearest). Time is CPU or GPU time of the drawing alone, relative to plain ancestral sampling in
the same run; peak memory is what the process needed beyond its start, per sampler.

The methods that need training (minority guidance, low-density sampling, JEPA guidance) are trained here, on the real
set, with the budget of `--method-steps` and `--method-width`; their training is not counted. JEPA guidance should have
a self-supervised encoder of natural images, which small grey images do not fit; it gets the features of a classifier of
the real labels instead, so its row shows that it runs and what it costs, no more.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.machine import PeakMemory, clock
from minority.backbones import Backbone, load_backbone
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels
from minority.diffusion.score import minority_score, negative_elbo
from minority.evaluation.metrics import set_metrics
from minority.features.pixel_features import pixel_features
from minority.guidance.materials import Lessons, Parts, Tensors
from minority.guidance.method import TrainedMethod
from minority.guidance.noise_aware_network import NoiseAwareSettings
from minority.neighbours.reference import RealReference
from minority.sampling.draw import SamplerSettings, draw
from minority.sampling.named_samplers import NAMED_SAMPLERS
from tasks.config.presets import load_preset
from tasks.config.runs import TrainBackboneConfig
from tasks.inputs.real_data import load_real_data

PLAIN = "ancestral"


@dataclass(frozen=True)
class RealImages:
    """A real set: (N, H, W, C) uint8 and (N,) labels."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_real(preset: str, *, limit: int) -> RealImages:
    """The training split of a backbone's preset, or `limit` images of it drawn at random."""
    train = load_real_data(load_preset(TrainBackboneConfig, preset).dataset).train
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:limit])
    return RealImages(images=train.images(chosen.tolist()), labels=np.asarray(train.labels)[chosen])


def learnt(
    backbone: Backbone, real: RealImages, settings: SamplerSettings, *, budget: NoiseAwareSettings, device: str
) -> dict[str, Parts]:
    """What the methods of a sampler learn from the real set, within a budget."""
    lessons = Lessons(
        backbone=backbone.to(device),
        images=real.images,
        labels=real.labels,
        draw_plain=lambda labels: (
            draw(
                backbone,
                seed=99,
                indices=range(len(labels)),
                labels=None if backbone.num_classes is None else labels.tolist(),
                settings=SamplerSettings(),
                device=device,
            ).images
        ),
        device=device,
    )
    found: dict[str, Parts] = {}
    for method in settings.guidance:
        if isinstance(method, TrainedMethod):
            parts: dict[str, Tensors] = {}
            for name in method.part_names:
                parts[name] = replace(method, training=budget).train(name, lessons, parts)
            found[method.key] = parts
    return found


def measure(
    name: str,
    backbone: Backbone,
    real: RealImages,
    *,
    num: int,
    seed: int,
    budget: NoiseAwareSettings,
    batch_size: int,
    device: str,
) -> dict[str, object]:
    """One row of the table."""
    classes = backbone.num_classes
    # Runs of equal labels, so that particle groups of chains have one label.
    labels = None if classes is None else [i * classes // num for i in range(num)]
    settings = replace(NAMED_SAMPLERS[name], batch_size=batch_size)
    reference = RealReference.fit(pixel_features(real.images))
    parts = learnt(backbone, real, settings, budget=budget, device=device)
    memory = PeakMemory(device)
    start = clock(device)
    drawn = draw(
        backbone,
        seed=seed,
        indices=range(num),
        labels=labels,
        settings=settings,
        reference=reference,
        parts=parts,
        device=device,
    )
    seconds = clock(device) - start
    own, place = reference.of_training, reference.locate(pixel_features(drawn.images))
    rare = place.knn_distance > np.quantile(own.knn_distance, 0.9)
    new = place.nearest_distance > np.quantile(own.nearest_distance, 0.01)
    usable = rare & (place.realism >= 1) & new
    metrics = set_metrics(pixel_features(real.images), pixel_features(drawn.images)).as_dict()
    return (
        {"sampler": name}
        | metrics
        | {
            "yield %": 100 * usable.mean(),
            "root ancestors %": 100 * len(np.unique(drawn.root_ancestors)) / num,
            "evaluations": drawn.evaluations,
            "a usable one": drawn.evaluations / usable.mean() if usable.any() else float("inf"),
            "seconds": seconds,
            "peak MiB": memory.mebibytes(),
        }
    )


def score_agreement(backbone: Backbone, real: RealImages, *, num: int, device: str) -> pd.DataFrame:
    """Rank correlation of the minority score with the negative ELBO on real images, by perturbation step."""
    chosen = np.random.default_rng(0).permutation(len(real.images))[:num]
    x = from_pixels(real.images[chosen]).to(device)
    label = torch.from_numpy(real.labels[chosen]).to(device) if backbone.num_classes is not None else None
    backbone = backbone.to(device)

    def noise(start: int) -> SampleNoise:
        return SampleNoise(5, range(start, start + num), shape=backbone.image_shape, device=device)

    schedule = backbone.schedule.respaced(100)
    # Mean of several bounds: the noise of one would hide the agreement.
    bounds = [negative_elbo(backbone.denoiser, schedule, x, noise(num * i), label=label).total for i in range(3)]
    elbo = torch.stack(bounds).mean(dim=0).cpu().numpy()
    rows = []
    for fraction in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        score = minority_score(
            backbone.denoiser,
            backbone.schedule,
            x,
            noise(num * 10),
            label=label,
            perturbations=(fraction,),
            draws=8,
        )
        rows.append({"s / T": fraction, "Spearman": stats.spearmanr(score.cpu().numpy(), elbo).statistic})
    first, second = (bound.cpu().numpy() for bound in bounds[:2])
    rows.append({"s / T": "bound with itself, other noise", "Spearman": stats.spearmanr(first, second).statistic})
    return pd.DataFrame(rows)


def table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows with the time relative to plain ancestral sampling."""
    frame = pd.DataFrame(rows)
    plain = float(frame.loc[frame["sampler"] == PLAIN, "seconds"].iloc[0])
    frame["time x"] = frame["seconds"] / plain
    return frame.drop(columns=["seconds", "precision"]).rename(
        columns={"avg_knn": "AvgkNN", "lof": "LOF", "rarity_score": "rarity", "inside": "inside = precision"}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="a diffusers folder")
    parser.add_argument("--real", required=True, help="a preset of backbone/: its training split, e.g. digits")
    parser.add_argument("--num", type=int, default=400, help="samples a sampler")
    parser.add_argument("--samplers", default=",".join(NAMED_SAMPLERS), help="names, comma-separated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--limit", type=int, default=5000, help="real images, at most")
    parser.add_argument("--method-steps", type=int, default=1000, help="training steps of methods that learn")
    parser.add_argument("--method-width", type=int, default=32, help="first width of their networks")
    parser.add_argument("--scored", type=int, default=200, help="real images whose scores are compared; 0 for none")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    backbone, real = load_backbone(arguments.backbone), read_real(arguments.real, limit=arguments.limit)
    names = [PLAIN, *(name for name in arguments.samplers.split(",") if name != PLAIN)]
    if backbone.num_classes is None or getattr(backbone.denoiser, "no_label", None) is None:
        names = [name for name in names if name != "classifier-free"]  # the backbone knows no "no label"
    budget = NoiseAwareSettings(steps=arguments.method_steps, width=arguments.method_width)
    rows = []
    for name in names:
        rows.append(
            measure(
                name,
                backbone,
                real,
                num=arguments.num,
                seed=arguments.seed,
                budget=budget,
                batch_size=arguments.batch_size,
                device=arguments.device,
            )
        )
        print(f"{name}: yield {rows[-1]['yield %']:.1f} %", flush=True)
    print(f"\n{arguments.num} samples a sampler, {len(real.images)} real images\n")
    print(table(rows).to_markdown(index=False, floatfmt=".3g"))
    if arguments.scored:
        print("\nMinority score against negative ELBO on real images\n")
        agreement = score_agreement(
            backbone, real, num=min(arguments.scored, len(real.images)), device=arguments.device
        )
        print(agreement.to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
