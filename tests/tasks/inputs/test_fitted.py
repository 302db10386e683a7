"""Discriminator, labeller, label floor and validation scores are fitted once a recipe, for any number of workers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.runs.units import read_unit
from datasets.storage.checked import read_checked, write_checked
from datasets.storage.store import Store
from minority.classifier import ClassifierSettings
from minority.selection.discriminator import Discriminator, DiscriminatorSettings
from minority.selection.labelling import Labeller
from minority.selection.stored_networks import (
    discriminator_bytes,
    labeller_bytes,
    read_arrays,
    read_discriminator,
    read_labeller,
)
from tasks.augment.candidates import Candidates
from tasks.augment.planning import plan_round, quotas
from tasks.augment.plans import load_or_create_plan
from tasks.errors import InputError
from tasks.inputs.fitting import fit_once
from tasks.inputs.run_store import open_run_store
from tasks.inputs.scoring import validation_scores
from tasks.inputs.workspace import open_workspace

#: Makes the units given, and writes a line for every network that it trains.
WORKER = """
import sys
from pathlib import Path
import minority.selection.discriminator, minority.selection.labelling
from tasks.augment.plans import open_plan
from tasks.augment.units import make_unit
from tasks.config.runs import AugmentConfig
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace

config, count, *numbers = sys.argv[1:]
for module in (minority.selection.discriminator, minority.selection.labelling):
    def counted(*arguments, train=module.train_classifier, name=module.__name__, **options):
        with Path(count).open("a") as file:
            print(name.rpartition(".")[2], file=file)
        return train(*arguments, **options)
    module.train_classifier = counted
workspace = open_workspace(AugmentConfig.model_validate_json(config))
store = open_run_store(workspace.run)
plan = open_plan("minority-00", workspace.run, store)
for number in numbers:
    make_unit(plan[int(number)], workspace, store)
"""
DISCRIMINATOR = {"folds": 2, "classifier": {"steps": 2, "width": 4}}
KINDS = ("discriminator", "label-floor", "labeller", "validation-scores")


@pytest.fixture
def config(tiny_config, make_backbone, tmp_path):
    """A run whose groups are recognised and whose candidates a discriminator evaluates: five trainings in all."""
    return tiny_config(
        backbone__path=str(make_backbone(tmp_path / "unconditional", num_classes=None)),
        selection__held_out={"discriminator": DISCRIMINATOR},
        selection__label_precision=0.5,
        labeller__steps=2,
        labeller__width=4,
    )


@pytest.fixture
def dataset(config):
    return Store(config.store).child(config.name)


def start_worker(config, count, *numbers):
    arguments = [config.model_dump_json(), str(count), *map(str, numbers)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def finish(workers):
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors


def plan_first_round(config):
    workspace = open_workspace(config)
    store = open_run_store(workspace.run)
    wanted, tallies = quotas(workspace.real, config.plan), Candidates(workspace, store).tallies()
    plan = plan_round(config.plan, tallies, round_number=0, first_index=0, wanted=wanted, particle_group=1)
    return load_or_create_plan(plan, store), store


@pytest.mark.system
def test_two_worker_processes_train_nothing_that_the_step_before_them_has_fitted(config, dataset, tmp_path):
    fit_once.fn(config, scores=True)
    plan, store = plan_first_round(config)
    count = tmp_path / "trainings"
    before = {path: dataset.read(path) for path in dataset.list("fitted")}

    finish([start_worker(config, count, 0), start_worker(config, count, 1)])

    assert not count.exists()
    assert [path.partition("/")[2].rpartition("-")[0] for path in sorted(before)] == list(KINDS)
    assert {path: dataset.read(path) for path in dataset.list("fitted")} == before
    for number in (0, 1):
        rows = read_unit(store, plan[number].unit)[1]
        assert rows["labeller_confidence"].null_count == rows["label_probability"].null_count == 0


@pytest.mark.system
def test_two_processes_that_begin_at_once_end_with_one_filter(config, dataset, tmp_path):
    plan_first_round(config)
    fitted_here = {path: dataset.read(path) for path in dataset.list("fitted")}
    dataset.remove_tree("fitted")
    count = tmp_path / "trainings"

    finish([start_worker(config, count, 0, 1), start_worker(config, count, 1, 0)])

    # At least one of them trained, and what lies there now is what this process had fitted, byte for byte.
    trained = count.read_text().split()
    assert trained.count("discriminator") in (2, 4)
    assert trained.count("labelling") in (3, 6)
    found = {path: dataset.read(path) for path in dataset.list("fitted")}
    assert {path: found[path] for path in fitted_here} == fitted_here


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("harm", ["flipped", "cut short", "emptied"])
def test_what_is_damaged_is_named_and_fitted_again(config, dataset, caplog, what, harm):
    fit_once.fn(config, scores=True)
    (path,) = [path for path in dataset.list("fitted") if path.startswith(f"fitted/{what}-")]
    whole = dataset.read(path)
    harmed = {"flipped": bytes([*whole[:-200], whole[-200] ^ 1, *whole[-199:]]) if len(whole) > 200 else b"x" + whole}
    harmed |= {"cut short": whole[: len(whole) // 2], "emptied": b""}
    dataset.write(path, harmed[harm])
    other = config.model_copy(update={"units_a_task": 7})  # the same run, not in this process's memory

    fit_once.fn(other, scores=True)

    assert dataset.read(path) == whole
    (line,) = [record.getMessage() for record in caplog.records if "fitted again" in record.getMessage()]
    assert dataset.url(path) in line
    assert f"The {what} is fitted again" in line


def test_what_was_fitted_is_what_is_used(config, dataset):
    first = open_workspace(config)
    (path,) = [path for path in dataset.list("fitted") if path.startswith("fitted/label-floor-")]
    write_checked(dataset, path, b'{"floor": 0.125}')

    again = open_workspace(config.model_copy(update={"units_a_task": 7}))

    assert again.label_floor == 0.125
    assert again.candidate_filter.thresholds == first.candidate_filter.thresholds
    images = first.train_images[:9]
    for mine, theirs in zip(first.labeller.label(images), again.labeller.label(images), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("change", "refitted"),
    [
        ({"labeller__steps": 3}, {"labeller", "label-floor"}),
        ({"selection__label_precision": 0.6}, {"label-floor"}),
        (
            {"selection__held_out": {"realism": 0.2, "discriminator": DISCRIMINATOR}},
            set(),
        ),
        ({"selection__held_out": {"discriminator": DISCRIMINATOR | {"folds": 3}}}, {"discriminator"}),
        ({"scores__draws": 2}, {"validation-scores"}),
        ({"selection__rare_quantile": 0.5}, set()),
        ({"dataset__split__seed": 5}, set(KINDS)),
    ],
)
def test_only_what_a_setting_decides_is_fitted_again(tiny_config, config, dataset, change, refitted):
    fit_once.fn(config, scores=True)
    before = set(dataset.list("fitted"))
    content = {
        "backbone__path": config.backbone.path,
        "selection__held_out": {"discriminator": DISCRIMINATOR},
        "selection__label_precision": 0.5,
        "labeller__steps": 2,
        "labeller__width": 4,
    }

    fit_once.fn(tiny_config(**(content | change)), scores=True)

    new = {path.partition("/")[2].rpartition("-")[0] for path in set(dataset.list("fitted")) - before}
    assert new == refitted


def test_a_run_without_discriminator_and_labeller_keeps_its_scores_alone(tiny_config):
    config = tiny_config()

    fit_once.fn(config, scores=True)

    workspace = open_workspace(config)
    (path,) = workspace.run.dataset_store.list("fitted")
    stored = read_arrays(read_checked(workspace.run.dataset_store, path))
    np.testing.assert_array_equal(stored["minority_score"], validation_scores(workspace).minority_score)
    assert workspace.labeller is None


def test_a_precision_without_validation_images_is_refused(tiny_config, config):
    with pytest.raises(InputError, match=r"label_precision needs a validation split"):
        open_workspace(
            tiny_config(
                backbone__path=config.backbone.path,
                selection__label_precision=0.5,
                labeller__steps=2,
                dataset__split__validation_fraction=0,
            )
        )


def test_networks_are_the_same_after_bytes_and_back():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (24, 12, 9, 3), dtype=np.uint8), np.arange(24) % 3
    settings = DiscriminatorSettings(folds=2, classifier=ClassifierSettings(steps=3, width=5))
    discriminator = Discriminator.train(images, labels, num_classes=3, settings=settings)

    again = read_discriminator(discriminator_bytes(discriminator))

    assert discriminator_bytes(again) == discriminator_bytes(discriminator)
    for mine, theirs in zip(discriminator.predict(images), again.predict(images), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(discriminator.of_training.p_real, again.of_training.p_real)
    with pytest.raises(ValueError, match="cannot be read"):
        read_discriminator(b"no networks")
    with pytest.raises(ValueError, match="cannot be read"):
        read_labeller(b"")
    labeller = Labeller(discriminator.members)
    assert labeller_bytes(read_labeller(labeller_bytes(labeller))) == labeller_bytes(labeller)
