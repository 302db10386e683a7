"""Combinations without real images: do composed samples of them help a classifier, and does the gate know where?

    nice .venv/bin/python -m benchmarks.absent_cells --data data/fashion_mnist --draws 10 --out runs/absent-cells

Fashion-MNIST with a mark (benchmarks/absent_cells_data.py). Each draw has training images, marks, a backbone, samples
and classifiers of its own. What is done lies in --out, so that the same command goes on where it was cut short; k by k,
all draws of the first k before the next. `--report` prints the tables of what is there and stops.

Written down before the runs: "synthetic, kept" pays at a k where the 95 % interval over at least 5 draws of its
accuracy in the absent cells, less that of the recipe on real images that validation chose in each draw, lies above 0;
it does not where the interval lies below one point; else it is not decided.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.absent_cells_data import ABSENT, CLASSES, Cells, Draw, Source, is_absent
from benchmarks.absent_cells_tables import Answers, report
from minority.classifier import ClassifierSettings, balancing_odds, predict, train_classifier
from minority.selection.factor_classifiers import FactorClassifiers

#: The same for every recipe; neither its rate nor its decay was tuned.
BUDGET = ClassifierSettings(
    steps=400, width=8, weight_decay=0.03, max_shift=1 / 16, max_rotation=0.0, flip=True, learning_rate=3e-3
)
#: Of the classifiers that evaluate samples, fitted on the training images of the draw.
JUDGES = ClassifierSettings(
    steps=300, width=16, weight_decay=0.03, max_shift=1 / 16, max_rotation=0.0, flip=True, learning_rate=3e-3
)
EDITED = 0.6


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a classifier is trained on and how: images, odds, and what is added to logits in the loss."""

    images: Cells
    odds: NDArray[np.float64]
    offsets: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """The recipes of one draw and one k."""

    draw: Draw
    k: int

    @cached_property
    def filters(self) -> FactorClassifiers:
        """Classifiers of label and mark, fitted on the training images."""
        train = self.draw.train(self.k)
        return FactorClassifiers.train(train.images, train.values, sizes=(CLASSES, 2), settings=JUDGES)

    def accepted(self, generation: int, *, edited: float | None = None) -> NDArray[np.bool_]:
        """(600, 2) whether label and mark of the samples are as asked, kept in a file."""
        path = self.draw.folder / f"accepted-{self.k}-{generation}{'' if edited is None else '-edited'}.npy"
        if not path.is_file():
            samples = self.draw.samples(self.k, generation=generation, edited=edited)
            np.save(path, self.filters.accepts(samples.images, samples.values))
        return np.load(path, allow_pickle=False)

    def recipe(self, name: str, *, generation: int) -> Recipe:
        """By name; see NAMES."""
        train = self.draw.train(self.k)
        balanced = balancing_odds(train.cell)
        if name == "real":
            return Recipe(train, np.ones(len(train.labels)))
        if name == "balanced":
            return Recipe(train, balanced)
        if name.startswith("logit adjustment"):
            counts = np.full((2, CLASSES), float(name.split()[-1]))
            np.add.at(counts, (train.marks, train.labels), 1)
            return Recipe(
                train, np.ones(len(train.labels)), np.log(counts / counts.sum(axis=1, keepdims=True))[train.marks]
            )
        if name == "balanced, absent cells no rivals":
            seen = np.zeros((2, CLASSES), dtype=bool)
            seen[train.marks, train.labels] = True
            return Recipe(train, balanced, np.where(seen[train.marks], 0.0, -1e4))
        if name == "100 real images a cell":
            every = train.joined(self.draw.ceiling())
            return Recipe(every, balancing_odds(every.cell))
        edited = EDITED if name.startswith("edited") else None
        samples = self.draw.samples(self.k, generation=generation, edited=edited)
        if name.endswith("kept"):
            samples = samples.subset(self.accepted(generation, edited=edited)[:, 1])
        if name.endswith("kept by both"):
            samples = samples.subset(self.accepted(generation, edited=edited).all(axis=1))
        # Every cell as often as any other; real and synthetic images of one cell half and half.
        every = train.joined(samples)
        source = np.repeat([0, 1], [len(train.labels), len(samples.labels)])
        odds = balancing_odds(every.cell * 2 + source)
        both = np.isin(every.cell, np.intersect1d(train.cell, samples.cell))
        return Recipe(every, np.where(both, odds / 2, odds))


#: Logit adjustment is by p(label given mark), with so many imagined images in every cell.
REAL = ("real", "balanced", "logit adjustment 1", "logit adjustment 30", "balanced, absent cells no rivals")
NAMES = (*REAL, "synthetic", "synthetic, kept", "synthetic, kept by both", "edited, kept", "100 real images a cell")


def answers(trial: Trial, name: str, *, seed: int, test: Cells, validation: Cells) -> Answers:
    """What a classifier says of test and validation images: from its file, or trained now."""
    path = trial.draw.folder / f"answers-{trial.k}-{name.replace(' ', '_').replace(',', '')}-{seed}.npz"
    if not path.is_file():
        recipe = trial.recipe(name, generation=seed % 2)
        model = train_classifier(
            recipe.images.images,
            recipe.images.labels,
            num_classes=CLASSES,
            settings=BUDGET,
            seed=1000 * trial.draw.seed + seed,
            sampling_weights=recipe.odds,
            offsets=recipe.offsets,
        )
        said = {
            "test": predict(model, test.images).argmax(axis=1) == test.labels,
            "validation": predict(model, validation.images).argmax(axis=1) == validation.labels,
        }
        np.savez_compressed(path.with_suffix(".part.npz"), **said)
        path.with_suffix(".part.npz").replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return Answers(stored["test"], stored["validation"], is_absent(validation.cell), test.cell)


def oracle_shares(trial: Trial, oracle: FactorClassifiers, generation: int) -> list[list[float]]:
    """Share of each absent cell whose label, mark and both are as asked, by classifiers of unconfounded images."""
    samples = trial.draw.samples(trial.k, generation=generation)
    found = oracle.accepts(samples.images, samples.values).reshape(len(ABSENT), -1, 2)  # (6, 100, 2)
    return np.concatenate([found.mean(axis=1), found.all(axis=2).mean(axis=1)[:, None]], axis=1).tolist()


def fit_oracle(source: Source) -> FactorClassifiers:
    """Classifiers of images of no draw, marked at random: they measure, and nothing is chosen by them."""
    chosen = np.concatenate(source.oracle)
    marks = np.random.default_rng(9).integers(0, 2, len(chosen))
    images = source.cells(chosen, marks, seed=9)
    settings = replace(JUDGES, steps=1200)
    return FactorClassifiers.train(images.images, images.values, sizes=(CLASSES, 2), settings=settings, members=1)


def run(draw: Draw, k: int, oracle: FactorClassifiers, *, seeds: int, names: Sequence[str]) -> None:
    """Make everything of one draw and one k that is not there yet."""
    draw.folder.mkdir(parents=True, exist_ok=True)
    done = draw.folder / f"done-{k}-{seeds}-{len(names)}.json"
    if done.is_file():
        return
    started, trial = time.process_time(), Trial(draw, k)
    test, validation = draw.test(), draw.validation(with_absent=True)
    for name in names:
        for seed in range(seeds):
            answers(trial, name, seed=seed, test=test, validation=validation)
        print(f"draw {draw.seed} k {k}: {name}, {time.process_time() - started:.0f} CPU s", flush=True)
    shares = {str(generation): oracle_shares(trial, oracle, generation) for generation in range(min(2, seeds))}
    kept = {str(g): trial.accepted(g).reshape(len(ABSENT), 100, 2).mean(axis=1).tolist() for g in range(min(2, seeds))}
    facts = {"seconds": time.process_time() - started, "oracle": shares, "accepted": kept}
    done.write_text(json.dumps(facts), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/fashion_mnist"))
    parser.add_argument("--out", type=Path, default=Path("runs/absent-cells"))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--k", type=int, nargs="+", default=[0, 1, 2, 5, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=2700, help="Of the backbone of k = 0.")
    parser.add_argument("--report", action="store_true", help="Print what is there, train nothing.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = Source(arguments.data)
    draws = [
        Draw(source, seed, arguments.out / f"draw-{seed}", arguments.per_class, arguments.steps)
        for seed in range(arguments.draws)
    ]
    if not arguments.report:
        oracle = fit_oracle(source)
        for k in arguments.k:
            for draw in draws:
                run(draw, k, oracle, seeds=arguments.seeds, names=NAMES)
    print(report(draws, arguments.k, seeds=arguments.seeds, names=NAMES, real=REAL))


if __name__ == "__main__":
    main()
