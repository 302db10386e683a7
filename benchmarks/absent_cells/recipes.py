"""The recipes that are compared, and what their classifiers say."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.absent_cells.congress import GREY_COPIES, with_grey_copies
from benchmarks.absent_cells.construction import Cells, Construction, Draw, Source
from minority.classifier import balancing_odds, predict, train_classifier
from minority.selection.factor_classifiers import FactorClassifiers

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
        """Classifiers of label and attribute, fitted on the training images."""
        train = self.draw.train(self.k)
        of = self.draw.construction
        return FactorClassifiers.train(train.images, train.values, sizes=(len(of.labels), 2), settings=of.judges)

    def accepted(self, generation: int, *, edited: float | None = None) -> NDArray[np.bool_]:
        """(M, 2) whether label and attribute of the samples are as asked, kept in a file."""
        path = self.draw.folder / f"accepted-{self.k}-{generation}{'' if edited is None else '-edited'}.npy"
        if not path.is_file():
            samples = self.draw.samples(self.k, generation=generation, edited=edited)
            np.save(path.with_suffix(".part.npy"), self.filters.accepts(samples.images, samples.values))
            path.with_suffix(".part.npy").replace(path)
        found: NDArray[np.bool_] = np.load(path, allow_pickle=False)
        return found

    @property
    def _classes(self) -> int:
        return len(self.draw.construction.labels)

    def recipe(self, name: str, *, generation: int) -> Recipe:
        """By name; see `real_recipes`, `GENERATED` and `Construction.ceiling`."""
        train = self.draw.train(self.k)
        balanced = balancing_odds(train.cell)
        if name == "real":
            return Recipe(train, np.ones(len(train.labels)))
        if name == "balanced":
            return Recipe(train, balanced)
        if name.startswith("logit adjustment"):
            counts = np.full((2, self._classes), float(name.split()[-1]))
            np.add.at(counts, (train.attributes, train.labels), 1)
            prior = np.log(counts / counts.sum(axis=1, keepdims=True))
            return Recipe(train, np.ones(len(train.labels)), prior[train.attributes])
        if name == "balanced, absent cells no rivals":
            seen = np.zeros((2, self._classes), dtype=bool)
            seen[train.attributes, train.labels] = True
            return Recipe(train, balanced, np.where(seen[train.attributes], 0.0, -1e4))
        if name == GREY_COPIES:
            every = with_grey_copies(train)
            return Recipe(every, balancing_odds(every.cell))
        if name == self.draw.construction.ceiling:
            every = train.joined(self.draw.ceiling())
            return Recipe(every, balancing_odds(every.cell))
        edited = EDITED if name.startswith("edited") else None
        samples = self.draw.samples(self.k, generation=generation, edited=edited)
        if name.endswith("kept"):
            samples = samples.subset(self.accepted(generation, edited=edited)[:, 1])
        if name.endswith("kept by both"):
            samples = samples.subset(np.flatnonzero(self.accepted(generation, edited=edited).all(axis=1)))
        # Every cell as often as any other; real and synthetic images of one cell half and half.
        every = train.joined(samples)
        source = np.repeat([0, 1], [len(train.labels), len(samples.labels)])
        odds = balancing_odds(every.cell * 2 + source)
        both = np.isin(every.cell, np.intersect1d(train.cell, samples.cell))
        return Recipe(every, np.where(both, odds / 2, odds))


_REAL = ("real", "balanced", "logit adjustment 1", "logit adjustment 30", "balanced, absent cells no rivals")
#: Recipes with drawn or edited images.
GENERATED = ("synthetic", "synthetic, kept", "synthetic, kept by both", "edited, kept")


def real_recipes(construction: Construction) -> tuple[str, ...]:
    """Recipes on real images. Logit adjustment is by p(label given attribute), with so many imagined images a cell."""
    return (*_REAL, *construction.recipes)


def all_recipes(construction: Construction) -> tuple[str, ...]:
    """Every recipe that is compared."""
    return (*real_recipes(construction), *GENERATED, construction.ceiling)


@dataclass(frozen=True, eq=False)
class Answers:
    """One classifier.

    Attributes:
        test, validation: (N,) and (V,) whether it was right.
        absent: (V,) which validation images are of absent cells.
        cells: (N,) the test images' cells.
    """

    test: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    absent: NDArray[np.bool_]
    cells: NDArray[np.int64]

    def accuracy(self, cells: Sequence[int]) -> float:
        """Mean accuracy of some cells, in %."""
        return 100 * float(np.mean([self.test[self.cells == cell].mean() for cell in cells]))

    def validated(self, *, with_absent: bool) -> float:
        """Accuracy on validation images, in %."""
        return 100 * float(self.validation[np.full(len(self.absent), True) if with_absent else ~self.absent].mean())


def answers(trial: Trial, name: str, *, seed: int, test: Cells, validation: Cells) -> Answers:
    """What a classifier says of test and validation images: from its file, or trained now."""
    of = trial.draw.construction
    path = trial.draw.folder / f"answers-{trial.k}-{name.replace(' ', '_').replace(',', '')}-{seed}.npz"
    if not path.is_file():
        recipe = trial.recipe(name, generation=seed % 2)
        model = train_classifier(
            recipe.images.images,
            recipe.images.labels,
            num_classes=len(of.labels),
            settings=of.budget,
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
        return Answers(stored["test"], stored["validation"], of.is_absent(validation.cell), test.cell)


def finished(draw: Draw, k: int, *, seeds: int) -> dict[str, dict[str, list[list[float]]]] | None:
    """What was measured of the samples of a draw that is done: generation seed -> shares of each absent cell.

    Shares whose label and attribute are as asked: "oracle" by classifiers of `Source.oracle`, "accepted" by those of
    the training images.
    """
    path = _done(draw, k, seeds=seeds)
    return json.loads(path.read_bytes()) if path.is_file() else None


def accepted_shares(
    trial: Trial, *, seeds: int, oracle: FactorClassifiers | None = None
) -> dict[str, list[list[float]]]:
    """Generation seed -> shares of the samples of each absent cell whose label and attribute are as asked.

    By the oracle where it is given, else by classifiers of the training images.
    """
    shares = {}
    for generation in range(min(2, seeds)):
        if oracle is None:
            accepted = trial.accepted(generation)
        else:
            samples = trial.draw.samples(trial.k, generation=generation)
            accepted = oracle.accepts(samples.images, samples.values)
        of_cells = accepted.reshape(len(trial.draw.construction.absent), -1, 2)
        shares[str(generation)] = of_cells.mean(axis=1).tolist()
    return shares


def fit_oracle(source: Source) -> FactorClassifiers:
    """Classifiers of images of all cells, each drawn equally often: they measure, and nothing is chosen by them."""
    images, of = source.oracle(), source.construction
    settings = replace(of.judges, steps=1200)
    return FactorClassifiers.train(
        images.images, images.values, sizes=(len(of.labels), 2), settings=settings, members=1
    )


def run(draw: Draw, k: int, oracle: FactorClassifiers, *, seeds: int) -> None:
    """Make everything of one draw and one k that is not there yet."""
    draw.folder.mkdir(parents=True, exist_ok=True)
    if finished(draw, k, seeds=seeds) is not None:
        return
    started, trial = time.process_time(), Trial(draw, k)
    test, validation = draw.test(), draw.validation()
    for name in all_recipes(draw.construction):
        for seed in range(seeds):
            answers(trial, name, seed=seed, test=test, validation=validation)
        print(f"draw {draw.seed} k {k}: {name}, {time.process_time() - started:.0f} CPU s", flush=True)
    shares = {
        "oracle": accepted_shares(trial, seeds=seeds, oracle=oracle),
        "accepted": accepted_shares(trial, seeds=seeds),
    }
    path = _done(draw, k, seeds=seeds)
    path.with_suffix(".part").write_text(json.dumps(shares), encoding="utf-8")
    path.with_suffix(".part").replace(path)


def _done(draw: Draw, k: int, *, seeds: int) -> Path:
    return draw.folder / f"done-{k}-{seeds}-{len(all_recipes(draw.construction))}.json"
