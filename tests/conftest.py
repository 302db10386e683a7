"""Settings that hold for every test, and the tiny parts of a run that several rooms test with."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

# Before anything imports prefect: a developer's profile or .env must not redirect the tests, and nothing phones home.
os.environ["PREFECT_API_URL"] = ""
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # a busy machine starts it slowly
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
# A developer's own presets are no part of the project.
os.environ["MINORITY_PRESETS"] = os.devnull
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")
os.environ["MINORITY_CACHE"] = tempfile.mkdtemp(prefix="minority-cache-")

import pytest
import torch

# One thread: the same bytes whatever the number of cores, and no contention between tests and servers.
torch.set_num_threads(1)


def pytest_unconfigure():
    """Take away what Prefect left in its home, and the cache."""
    for name in ("PREFECT_HOME", "MINORITY_CACHE"):
        shutil.rmtree(os.environ[name], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests that run side by side stay together by file, to share fixtures, and the flows with their one server."""
    from xdist.scheduler import LoadFileScheduling

    class ByRoom(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "flows" if nodeid.startswith("tests/flows/") else super()._split_scope(nodeid)

    return ByRoom(config, log)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory):
    """A class-conditional backbone for 8x8 grey images of ten classes."""
    from tests.tiny_networks import save_tiny_backbone

    return save_tiny_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="session")
def make_backbone():
    """Saves other tiny backbones: make_backbone(folder, side=16, channels=3, num_classes=None)."""
    from tests.tiny_networks import save_tiny_backbone

    return save_tiny_backbone


@pytest.fixture(scope="session")
def tiny_pipelines():
    """The module that builds and saves tiny pipelines of every kind."""
    spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).with_name("tiny_pipelines.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_overrides(tiny_backbone):
    """Settings that make `augment/digits` a matter of a second or two: 91 scans, some 20 units, two rounds."""
    return {
        "backbone.path": tiny_backbone,
        "dataset.split.test_fraction": 0.9,
        "dataset.split.validation_fraction": 0.06,
        "dataset.split.imbalance": 5,
        "sampler.steps": 4,
        "sampler.self_guidance.interval": 2,
        "scores.elbo_steps": 2,
        "scores.draws": 1,
        # The tiny backbone draws noise, which no filter but that of the label would ever let through.
        "selection.rare_quantile": 0,
        "selection.realism_floor": 0,
        "selection.label_floor": 0.5,
        "plan.unit_size": 24,
        "plan.quota": 16,
        "plan.expected_yield": 0.8,
        "plan.max_rounds": 2,
        "publish.samples_per_shard": 40,
        "downstream.arms": ["real", "oversampling", "real+plain", "real+minority"],
        "downstream.seeds": 1,
        "downstream.budget": {"network": {"width": 4}, "steps": 2, "trials": 1, "tuning_seeds": 1},
    }


@pytest.fixture
def tiny_config(tiny_overrides, tmp_path):
    """Makes the config of a tiny run whose store is tmp_path/"store"; takes further overrides."""
    from tasks.config.presets import load_preset
    from tasks.config.runs import AugmentConfig

    def make(**overrides):
        changes = {key.replace("__", "."): value for key, value in overrides.items()}
        store = {"store": str(tmp_path / "store")}
        return load_preset(AugmentConfig, "digits", overrides=tiny_overrides | store | changes)

    return make


@pytest.fixture
def tiny_celeba(tmp_path):
    """CelebA's layout with 40 small faces of every group: 20 train, 10 validation, 10 test. Returns the folder."""
    import numpy as np
    from PIL import Image

    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, parts = [], []
    for i in range(40):
        blond, male = i % 2, i // 2 % 2
        name = f"{i + 1:06d}.jpg"
        face = rng.integers(0, 80, (218, 178, 3)) + 80 * blond + np.array([60, 0, 0]) * male
        Image.fromarray(face.astype(np.uint8)).save(folder / "img_align_celeba" / name)
        rows.append(f"{name} {2 * blond - 1} {2 * male - 1}")
        parts.append(f"{name} {0 if i < 20 else 1 if i < 30 else 2}")
    (folder / "list_attr_celeba.txt").write_text("\n".join(["40", "Blond_Hair Male", *rows]) + "\n")
    (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_text_pipelines():
    """The module that builds and saves tiny text-to-image pipelines; skips where transformers is missing."""
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location(
        "tiny_text_pipelines", Path(__file__).with_name("tiny_text_pipelines.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
