"""The example of a LightningDataModule with the real lightning, in an environment of its own.

python -m venv ENV && ENV/bin/pip install --no-deps lightning pytorch-lightning lightning-utilities torchmetrics, a
line in ENV/lib/python3.*/site-packages/project.pth with the folder of this project's own packages
(.venv/lib/python3.*/site-packages), and MINORITY_LIGHTNING_PYTHON=ENV/bin/python.
"""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SIZES = {("cat", "class=cat"): 30, ("dog", "class=dog"): 8}


@pytest.fixture
def manifest(tmp_path, make_image_set, make_published):
    return make_published(tmp_path / "run", make_image_set(SIZES, channels=3), num_synthetic={"class=dog": 12})


def run(*arguments):
    python = os.environ.get("MINORITY_LIGHTNING_PYTHON")
    if not python:
        pytest.skip(
            "MINORITY_LIGHTNING_PYTHON is not set; the docstring of this file says how to make that environment"
        )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_the_example_trains(manifest):
    assert ", seen 1" in run("examples/lightning_datamodule.py", manifest, "2")


_GO_ON = """
import json, sys
import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from examples.lightning_datamodule import Classifier, PublishedData, main

manifest, folder = sys.argv[1:]

class Killed(BaseException):
    pass

class Die(lightning.Callback):
    # Ends the training behind the checkpoint of its 13th step.
    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.global_step == 13:
            raise Killed

def go(**more):
    data = PublishedData(manifest, batch_size=5, num_workers=1, order="natural", synthetic_share=None)
    model = Classifier(2)
    model.network(next(iter(data.train_dataloader()))["image"])
    settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "max_epochs": 2}
    keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=13, save_top_k=-1)
    callbacks = [keep, *more.pop("callbacks", [])]
    trainer = lightning.Trainer(reload_dataloaders_every_n_epochs=1, callbacks=callbacks, **settings)
    try:
        trainer.fit(model, datamodule=data, **more)
    except Killed:
        pass
    return model.seen

first = go(callbacks=[Die()])
rest = go(ckpt_path=f"{folder}/step=13.ckpt")
whole = go()
print(json.dumps([first, rest, whole]))
"""


def test_an_epoch_goes_on_from_a_checkpoint_in_its_middle(manifest, tmp_path):
    first, rest, whole = json.loads(run("-c", _GO_ON, manifest, str(tmp_path)))

    assert (len(first), len(whole)) == (13 * 5, 100)
    assert set(Counter(whole).values()) == {2}, "every image once an epoch"
    assert Counter(first) + Counter(rest) == Counter(whole)
    assert first + rest == whole
