"""Bad input through the command line: one clear line, exit code 2, nothing published."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.settings import PREFECT_API_URL, temporary_settings
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows.command_line import app

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


def refused(command, *parts):
    """The command ended with code 2 and one line on stderr that holds all parts."""
    assert command.code == 2, (command.code, command.stderr)
    assert command.stdout == ""
    assert command.stderr.count("\n") == 1, command.stderr
    assert command.stderr.startswith(("error: ", "failed: "))
    assert all(str(part) in command.stderr for part in parts), command.stderr


def nothing_published(store):
    assert list(Path(store).rglob("manifest.json")) == []
    assert list(Path(store).rglob("latest.json")) == []


def test_an_unknown_preset(minority, tmp_path):
    refused(minority("augment", "digit", "--store", tmp_path / "s"), "no preset augment/digit", "did you mean digits")

    nothing_published(tmp_path)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"sampler.stepz": 3}, ["sampler.stepz is not a setting", "did you mean steps"]),
        ({"seed": "many"}, ["seed: ", "integer", "'many'"]),
        ({"sampler.self_guidance.interval": 0}, ["interval", "got 0"]),
        ({"sampler.steps": 5000}, ["5000"]),
        ({"name": "a/b"}, ["name: ", "'a/b'"]),
        ({"backbone.path": "no/such/weights"}, ["backbone: no/such/weights does not exist"]),
        ({"device": "cuda"}, ["device is cuda", "set device to auto or cpu"]),
        ({"dataset.split.imbalance": 5000}, ["imbalance", "leaves class"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting(augment_tiny, tmp_path, settings, parts):
    refused(augment_tiny(tmp_path / "store", settings), *parts)

    nothing_published(tmp_path)


def test_a_store_of_an_unknown_protocol(augment_tiny):
    refused(augment_tiny("nowhere://bucket"), "nowhere://bucket", "check the URL")


def test_an_assignment_without_a_value(minority):
    refused(minority("augment", "digits", "--set", "seed"), "--set takes key=value", "'seed'")


def spoiled(backbone, folder, **values):
    """A copy of a backbone in which single tensors are filled with a value."""
    copied = Path(shutil.copytree(backbone, folder))
    tensors = load_file(copied / WEIGHTS)
    for name, value in values.items():
        tensors[name].fill_(value)
    save_file(tensors, copied / WEIGHTS)
    return copied


def test_a_checkpoint_that_holds_nan(augment_tiny, tiny_backbone, tmp_path):
    folder = spoiled(tiny_backbone, tmp_path / "diverged", **{"conv_out.bias": float("nan")})

    command = augment_tiny(tmp_path / "store", {"backbone.path": str(folder)})

    refused(command, "holds NaN or infinity in 1 of", "conv_out.bias")
    nothing_published(tmp_path)
    assert list((tmp_path / "store").rglob("*.tar")) == []


@pytest.mark.parametrize("settings", [{}, {"edit.fraction": 0.5}], ids=["augment", "edit"])
def test_a_network_that_answers_no_number(augment_tiny, tiny_backbone, tmp_path, settings):
    folder = spoiled(tiny_backbone, tmp_path / "huge", **{"conv_in.weight": 3e38, "conv_in.bias": 3e38})

    command = augment_tiny(tmp_path / "store", settings | {"backbone.path": str(folder)})

    refused(command, "backbone huge in fp32: the network's first answer", "is NaN or infinite", "another checkpoint")
    nothing_published(tmp_path)


def test_a_truncated_checkpoint(augment_tiny, tiny_backbone, tmp_path):
    folder = Path(shutil.copytree(tiny_backbone, tmp_path / "torn"))
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])

    refused(augment_tiny(tmp_path / "store", {"backbone.path": str(folder)}), folder / WEIGHTS, "truncated")

    nothing_published(tmp_path)


def test_a_checkpoint_of_another_shape(augment_tiny, make_backbone, tmp_path):
    large = make_backbone(tmp_path / "large", side=16)

    refused(
        augment_tiny(tmp_path / "store", {"backbone.path": large}), "(1, 16, 16)", "(1, 8, 8)", "choose a backbone of"
    )

    nothing_published(tmp_path)


def test_a_file_that_is_no_checkpoint(augment_tiny, tmp_path):
    (tmp_path / "weights.pt").write_text("not weights at all")

    refused(augment_tiny(tmp_path / "store", {"backbone.path": str(tmp_path / "weights.pt")}), "weights.pt")

    nothing_published(tmp_path)


def celeba_settings(folder, backbone):
    return {
        "dataset": {"reader": "celeba", "folder": str(folder), "image_size": 8},
        "backbone.path": backbone,
        "backbone.flags": {},
        "labeller.steps": 2,
        "plan.quota": 8,
        "selection.label_floor": 0,
    }


def without_digits_only(overrides):
    return {key: value for key, value in overrides.items() if not key.startswith("dataset.")}


@pytest.fixture
def augment_celeba(minority, tiny_overrides, as_options, tiny_celeba, make_backbone, tmp_path):
    """Runs a tiny job on the tiny CelebA folder."""
    backbone = make_backbone(tmp_path / "faces", channels=3, num_classes=None)
    settings = without_digits_only(tiny_overrides) | celeba_settings(tiny_celeba, backbone)
    return lambda: minority("augment", "celeba", "--store", tmp_path / "store", *as_options(settings))


def test_a_sound_celeba_folder_is_augmented(augment_celeba, tmp_path):
    finished = augment_celeba()

    assert (finished.code, finished.stderr) == (0, "")
    assert len(list((tmp_path / "store").rglob("manifest.json"))) == 1


def test_a_truncated_face_is_left_out_and_named(augment_celeba, tiny_celeba, tmp_path):
    face = tiny_celeba / "img_align_celeba" / "000007.jpg"
    face.write_bytes(face.read_bytes()[:600])

    finished = augment_celeba()

    assert (finished.code, finished.stderr) == (0, "")
    assert "1 images: image that cannot be read (celeba/000007)." in finished.on_the_way
    assert len(list((tmp_path / "store").rglob("manifest.json"))) == 1


def test_a_celeba_folder_without_its_lists(augment_celeba, tiny_celeba, tmp_path):
    (tiny_celeba / "list_attr_celeba.txt").unlink()

    refused(augment_celeba(), "lacks list_attr_celeba.txt")

    nothing_published(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """Two classes of 8x8 grey images, by their numbers."""
    rng = np.random.default_rng(0)
    for name in ("3", "7"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            image.save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def score(minority, photos, backbone):
    return minority("score", photos, "--backbone", backbone, "--out", photos.parent / "scores.parquet")


def test_sound_images_are_scored(minority, photos, tiny_backbone):
    scored = score(minority, photos, tiny_backbone)

    assert (scored.code, scored.stderr) == (0, "")
    assert (photos.parent / "scores.parquet").is_file()


@pytest.mark.parametrize(("name", "content"), [("3/9.png", b"no image"), ("3/9.png", b"")])
def test_a_file_that_is_no_image(minority, photos, tiny_backbone, name, content):
    (photos / name).write_bytes(content)

    refused(score(minority, photos, tiny_backbone), photos / name)

    assert not (photos.parent / "scores.parquet").exists()


def test_an_image_that_breaks_off(minority, photos, tiny_backbone):
    broken = photos / "7" / "1.png"
    broken.write_bytes(broken.read_bytes()[:-30])

    refused(score(minority, photos, tiny_backbone), broken)

    assert not (photos.parent / "scores.parquet").exists()


def test_an_empty_class(minority, photos, tiny_backbone):
    (photos / "8").mkdir()

    refused(score(minority, photos, tiny_backbone), photos / "8", "empty class")


def test_a_folder_that_is_not_there(minority, tmp_path, tiny_backbone):
    refused(score(minority, tmp_path / "none", tiny_backbone), tmp_path / "none", "not a folder")


def test_images_of_another_size_than_the_backbones(minority, photos, make_backbone, tmp_path):
    large = make_backbone(tmp_path / "large", side=16)

    refused(score(minority, photos, large), "(1, 8, 8)", "(1, 16, 16)")


def test_scores_that_cannot_be_written(minority, photos, tiny_backbone, tmp_path):
    (tmp_path / "file").write_text("in the way")

    refused(
        minority("score", photos, "--backbone", tiny_backbone, "--out", tmp_path / "file" / "scores.parquet"),
        tmp_path / "file",
    )


def test_a_label_the_backbone_does_not_know(minority, tiny_backbone, tmp_path):
    drawn = minority(
        "sample", "--backbone", tiny_backbone, "--out", tmp_path / "out", "--label", 11, "--guidance", "steps=2"
    )

    refused(drawn, "label 11", "0 ... 9")


def test_a_misspelt_sampler_setting(minority, tiny_backbone, tmp_path):
    drawn = minority("sample", "--backbone", tiny_backbone, "--out", tmp_path / "out", "--guidance", "stepz=2")

    refused(drawn, "stepz is not a setting")


def test_a_store_below_a_file(augment_tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")

    refused(augment_tiny(tmp_path / "file" / "store"), tmp_path / "file" / "store", "choose another store")


def test_a_store_on_a_read_only_disk(augment_tiny, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    refused(augment_tiny(small_disk / "store"), small_disk / "store", "read-only", "choose another store")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 4 MB; skips where this user may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk, *, leave):
    """Put a file on the disk that leaves so many bytes."""
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - leave))


def test_a_disk_that_is_full_from_the_start(augment_tiny, small_disk):
    fill(small_disk, leave=0)

    refused(augment_tiny(small_disk / "store"), small_disk / "store", "no space left", "free space there")

    nothing_published(small_disk)


@pytest.mark.parametrize("part", [pytest.param(0.3, marks=pytest.mark.slow), 0.8])
def test_a_disk_that_fills_up_on_the_way_and_is_freed_again(augment_tiny, small_disk, undisturbed, contents, part):
    store = small_disk / "store"
    needed = sum(4096 * -(-len(data) // 4096) for data in contents(undisturbed.store).values())
    fill(small_disk, leave=int(part * needed) // 4096 * 4096)

    stopped = augment_tiny(store)

    refused(stopped, store, "no space left", "free space there")
    nothing_published(store)

    (small_disk / "ballast").unlink()
    finished = augment_tiny(store)

    assert (finished.code, finished.stderr) == (0, "")
    assert contents(store) == contents(undisturbed.store)


def test_a_server_that_does_not_answer(tiny_overrides, as_options, tmp_path):
    options = ["--store", str(tmp_path), *as_options(tiny_overrides)]

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        ended = CliRunner().invoke(app, ["augment", "digits", *options])

    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: no Prefect server answers at http://127.0.0.1:9/api")
    assert "unset PREFECT_API_URL" in ended.stderr
    assert ended.stderr.count("\n") == 1
    nothing_published(tmp_path)


def test_a_manifest_that_is_not_there(minority, tmp_path):
    checked = minority("verify", tmp_path / "manifest.json")

    assert checked.code == 2
    assert str(tmp_path / "manifest.json") in checked.stderr
    assert len(checked.stderr.strip().splitlines()) == 1


def test_a_manifest_that_is_no_manifest(minority, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": 3}))

    checked = minority("verify", tmp_path / "manifest.json")

    assert checked.code == 1
    assert "manifest.json" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_the_installed_command_does_what_the_launcher_does(tmp_path):
    command = [Path(sys.executable).with_name("minority"), "augment", "nope", "--store", str(tmp_path)]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: there is no preset augment/nope; ")
    assert ended.stderr.count("\n") == 1
