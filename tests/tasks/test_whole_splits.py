"""What goes through a whole split of real images reads it part by part, and knows groups that are not drawn for."""

from functools import partial

import pytest

from datasets.readers.images.image_array import ImageArray
from datasets.readers.imageset import ImageSet
from minority.classifier import ClassifierSettings
from minority.evaluation.factor_fidelity import measure_fidelity
from minority.training.process_group import SingleProcess
from minority.training.text import loop
from tasks.backbone import train
from tasks.backbone.adapt import evaluate_adapter, learn
from tasks.backbone.train import evaluate, train_here
from tasks.backbone.train_text import train_text_backbone
from tasks.calibration.result import real_reference
from tasks.config.presets import load_preset
from tasks.config.runs import TrainBackboneConfig
from tasks.inputs import real_data
from tasks.inputs.real_data import load_real_data
from tasks.inputs.workspace import _open_models, _open_workspace, open_workspace
from tests.marked_set import make_marked_set
from tests.tasks.backbone.test_adapt import config as adapting
from tests.tasks.backbone.test_train_text import FEW, TINY

ABSENT = "shape=standing,colour=blue"
BATCH = 512  # of classifiers
SPLIT = {"dataset.split.test_fraction": 0.1, "dataset.split.validation_fraction": 0.1, "dataset.split.imbalance": None}


@pytest.fixture
def read(monkeypatch):
    """How many images are read at once, one number a reading; no set is small enough to be held."""
    counts = []
    build, choose, images = ImageArray.__init__, ImageArray.__getitem__, ImageSet.images

    def build_large(self, *arguments, **options):
        build(self, *arguments, **options)
        self.is_held = False

    def choose_watched(self, indices):
        found = choose(self, indices)
        counts.append(len(found))
        return found

    def images_watched(self, indices):
        counts.append(len(indices))
        return images(self, indices)

    monkeypatch.setattr(ImageArray, "__init__", build_large)
    monkeypatch.setattr(ImageArray, "__getitem__", choose_watched)
    monkeypatch.setattr(ImageSet, "images", images_watched)
    for cache in (real_data._load, _open_models, _open_workspace):
        cache.cache_clear()
    yield counts
    for cache in (real_data._load, _open_models, _open_workspace):
        cache.cache_clear()


def test_a_text_to_image_model_is_trained_and_evaluated_part_by_part(read, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(loop, "_STATISTICS", 100)
    quality = FEW | {"train_images": 60, "held_out": 40}
    overrides = SPLIT | {"out": str(tmp_path / "tiny"), "text.model": TINY, "text.quality": quality}
    config = load_preset(TrainBackboneConfig, "coloured-digits", overrides=overrides)

    train_text_backbone(config, config.text, on_done=lambda done, total: None)
    evaluate(config)

    assert len(load_real_data(config.dataset).train) > 2 * BATCH
    assert 60 in read
    assert max(read) <= BATCH


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_learned_and_evaluated_part_by_part(read, tmp_path):
    pytest.importorskip("peft")
    split = {"test_fraction": 0.1, "validation_fraction": 0.1, "imbalance": None}
    quality = {"samples": 10, "sampling_steps": 1, "classifier": {"steps": 2, "width": 4}, "train_images": 60}
    config = adapting(tmp_path, dataset={"reader": "digits", "split": split}, quality=quality)

    learn(config, on_done=lambda *_: None, on_picture=lambda _: None)
    evaluate_adapter(config)

    assert len(load_real_data(config.dataset).train) > 2 * BATCH
    assert 60 in read
    assert max(read) <= BATCH


def bars(folder):
    """A set without any training image of ABSENT, which validation shows."""
    counts = {("lying", "red"): 60, ("lying", "blue"): 60, ("standing", "red"): 600, ("standing", "blue"): 0}
    return make_marked_set(folder, counts=counts)


def test_a_backbone_of_separate_conditions_is_evaluated_part_by_part(read, tmp_path, monkeypatch):
    short = partial(measure_fidelity, classifier=ClassifierSettings(steps=2, width=4))
    monkeypatch.setattr(train, "measure_fidelity", short)
    few = {"samples": 8, "sampling_steps": 2, "bits_images": 2, "bits_steps": 2, "train_images": 60}
    config = TrainBackboneConfig(
        name="bars",
        dataset=bars(tmp_path / "set"),
        conditions=("label", "colour"),
        out=str(tmp_path / "bars"),
        architecture={"block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 8, "dropout": 0.0},
        training={"steps": 1, "batch_size": 4, "label_dropout": 0.1},
        quality=few | {"features": {"kind": "pixels"}},
    )
    train_here(config, process_group=SingleProcess("cpu"), on_step=lambda _: None, on_evaluation=lambda _: None)

    evaluate(config)

    assert len(load_real_data(config.dataset).train) == 720
    assert max(read) <= BATCH


def test_validation_images_of_groups_without_training_images_do_not_count(read, tiny_config, make_backbone, tmp_path):
    config = tiny_config(
        name="bars",
        dataset=bars(tmp_path / "set"),
        backbone__path=make_backbone(tmp_path / "backbone", side=8, channels=3, num_classes=None),
        features__kind="backbone",
        selection__label_precision=0.5,
        labeller={"steps": 2, "width": 4},
    )
    workspace = open_workspace(config)
    real = workspace.real
    read.clear()  # the discriminator is made of so many at once as `max_images` says

    measured = real_reference(workspace)

    assert ABSENT in real.validation.groups
    assert ABSENT not in real.groups
    assert [real.groups[i] if i >= 0 else ABSENT for i in real.validation_groups] == real.validation.groups
    assert (real.validation_groups == -1).sum() == 8
    assert measured is not None
    assert measured.samples == len(real.validation) - 8
    assert workspace.label_floor >= 0
    assert max(read) <= BATCH
