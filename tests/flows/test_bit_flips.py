"""One random bit in one random file of a store, flipped; then readers, and the same command again.

No dataset is ever different without a word, and no refusal without the file's name. By default half a dozen flips; as
many as MINORITY_FLIPS says, whose table is in docs/faults.md:

    MINORITY_FLIPS=300 .venv/bin/python -m pytest tests/flows/test_bit_flips.py -s
"""

import importlib.util
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
FLIPS = int(os.environ.get("MINORITY_FLIPS", "6"))


def load(path):
    """A module of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bit_flips = load(HERE / "bit_flips.py")
s3_server = load(HERE.parent / "datasets" / "storage" / "s3_server.py")


@pytest.fixture(scope="module")
def command(tiny_overrides, as_options):
    """The arguments of a tiny run with features in the store and one classifier, for a store."""
    settings = {"features.kind": "backbone", "plan.unit_size": 60, "plan.max_rounds": 1, "downstream.arms": ["real"]}

    def of(url):
        return ["augment", "digits", "--store", url, *as_options(tiny_overrides | settings)]

    return of


def finished_run(minority, command, folder, contents):
    ended = minority(*command(folder))
    assert (ended.code, ended.stderr) == (0, "")
    return contents(folder)


def flip_a_checkpoint(folder, *, rng, tally):
    """A training that died, a bit of its checkpoint, and the training begun again."""
    from minority.diffusion.schedule import NoiseSchedule
    from minority.training import TrainingSettings, train_denoiser

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, *_, **__):
            return SimpleNamespace(sample=self.layer(x))

    def train(checkpoint, *, dies_at=None):
        def on_progress(progress):
            if dies_at is not None and progress.step >= dies_at:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        network = Network()
        images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
        settings = TrainingSettings(steps=4, batch_size=2, warmup=1, checkpoint_every=1, augmentation=None)
        return train_denoiser(
            network,
            images=images,
            labels=None,
            schedule=NoiseSchedule.cosine(10),
            settings=settings,
            checkpoint=checkpoint,
            on_progress=on_progress,
        )

    path = folder / "training.pt"
    path.unlink(missing_ok=True)
    with pytest.raises(KeyboardInterrupt):
        train(path, dies_at=2)
    path.write_bytes(bit_flips.flipped(path.read_bytes(), rng))
    try:
        train(path)
    except ValueError as error:
        outcome = "refused by name" if path.name in str(error) else "refused without a name"
        tally.add("checkpoint", outcome, str(error))
    else:
        tally.add("checkpoint", "silently different", "the damaged checkpoint was trained on")


def flip_a_calibration(config, store, *, rng, tally):
    """Counts of a calibration, a bit of them, and the same measurement again."""
    from tasks.calibration.search import Measurement, measured_once

    order = Measurement(candidate=0, first=0, count=10)
    before = measured_once(order, config)
    (path,) = store.rglob("measured/*.json")
    whole = path.read_bytes()
    path.write_bytes(bit_flips.flipped(whole, rng))
    same = measured_once(order, config) == before and path.read_bytes() == whole
    tally.add("calibration", "made again" if same else "silently different", str(path))


def run_campaign(flips, url_of, tally, *, seed, more=()):
    """Strike the kinds in turn: those of the store, and further ones given as (name, function of a generator)."""
    others = dict(more)
    kinds = [*bit_flips.KINDS, *others]
    for number, rng in enumerate(bit_flips.seeds(seed, FLIPS)):
        # The kinds in another order each time around, so that a short campaign is no campaign of the first ones.
        around, place = divmod(number, len(kinds))
        kind = sorted(kinds, key=lambda kind: bit_flips.random.Random(f"{seed}-{around}-{kind}").random())[place]
        if kind in others:
            others[kind](rng=rng, tally=tally)
        else:
            flips.strike(kind, url_of(number), rng=rng, tally=tally)
        sys.stdout.write(f"{number + 1:4d} {kind}: {len(tally.stories)} found\n")
        if number % 50 == 49:
            sys.stdout.write(f"{tally.table()}\n")
        sys.stdout.flush()


def test_no_flipped_bit_of_a_store_passes_unseen(minority, command, contents, tiny_config, tmp_path):
    from tasks.config.presets import load_preset
    from tasks.config.runs import CalibrateConfig

    base = tiny_config()
    calibration = load_preset(CalibrateConfig, "digits", overrides={"store": str(tmp_path / "calibration")})
    calibration = calibration.model_copy(
        update={name: getattr(base, name) for name in ("dataset", "backbone", "selection")}
        | {"sampler": replace(base.sampler, steps=2)}
    )
    whole, tally = finished_run(minority, command, tmp_path / "sound", contents), bit_flips.Tally()
    flips = bit_flips.StoreFlips(whole, lambda url: minority(*command(url)))

    run_campaign(
        flips,
        lambda number: str(tmp_path / f"store-{number:03d}"),
        tally,
        seed=FLIPS,
        more=[
            ("checkpoint", partial(flip_a_checkpoint, tmp_path)),
            ("calibration", partial(flip_a_calibration, calibration, tmp_path / "calibration")),
        ],
    )

    sys.stdout.write(f"\n{tally.table()}\n")
    assert tally.stories == []
    assert sum(counted.total() for counted in tally.outcomes.values()) == FLIPS
    assert tally.outcomes["made again"].total() > 0


@pytest.mark.slow
def test_no_flipped_bit_of_an_object_store_passes_unseen(
    make_launcher, server_url, command, contents, monkeypatch, tmp_path
):
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    with s3_server.s3_endpoint() as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        keys |= {"AWS_ENDPOINT_URL": endpoint}
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="flips")
        launcher = make_launcher(tmp_path, server_url, more=keys)
        tally = bit_flips.Tally()
        whole = finished_run(launcher, command, "s3://flips/sound", contents)
        flips = bit_flips.StoreFlips(whole, lambda url: launcher(*command(url)))

        run_campaign(flips, lambda number: f"s3://flips/store-{number:03d}", tally, seed=FLIPS + 1)
        launcher.close()

    sys.stdout.write(f"\n{tally.table()}\n")
    assert tally.stories == []
    assert tally.outcomes["made again"].total() > 0
