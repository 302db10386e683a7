"""The sampler benchmark runs from the command line on a backbone folder and prints one row a sampler."""

import re
import sys

import pytest

from benchmarks import samplers
from minority.backbones import UNetSettings, save_folder
from minority.diffusion.schedule import NoiseSchedule
from tasks.errors import InputError
from tests.tiny_networks import tiny_unet


@pytest.fixture
def folder(tmp_path):
    unet = tiny_unet(num_class_embeds=10)
    settings = UNetSettings(num_classes=10)
    return save_folder(tmp_path / "tiny", unet, schedule=NoiseSchedule.cosine(100), settings=settings)


def test_the_benchmark_prints_one_row_a_sampler(folder, monkeypatch, capsys):
    names = "dpm-solver,classifier-free,boost-and-prune-by-features"
    command = f"samplers --backbone {folder} --real digits --num 12 --scored 6 --samplers {names}"
    monkeypatch.setattr(sys, "argv", command.split())

    samplers.main()

    out = capsys.readouterr().out
    rows = re.findall(r"^\| ([a-z-]+) +\|", out, flags=re.MULTILINE)
    # Plain sampling is always there to compare with; classifier-free guidance cannot be had from this backbone.
    assert rows[:4] == ["sampler", "ancestral", "dpm-solver", "boost-and-prune-by-features"]
    assert "12 samples a sampler, 332 real images" in out
    assert "| 0.5 " in out


def test_an_unknown_real_set_is_refused():
    with pytest.raises(InputError, match="cats"):
        samplers.read_real("cats", limit=10)


def test_a_limited_real_set_is_a_part_of_the_training_split():
    part, whole = samplers.read_real("digits", limit=10), samplers.read_real("digits", limit=10_000)

    found = [int((whole.images == image).all(axis=(1, 2, 3)).argmax()) for image in part.images]
    assert len(part.images) == 10
    assert (whole.images[found] == part.images).all()
    assert (whole.labels[found] == part.labels).all()
