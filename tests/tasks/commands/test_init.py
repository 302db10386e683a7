"""From a folder of pictures to a file of presets, and from there to a run."""

import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.command_line import app
from tasks.commands.init import Wishes, checked_text, choose, described, look, parts
from tasks.config.preset_files import entries, list_presets, worded
from tasks.config.presets import load_preset, presets_in
from tasks.config.runs import AugmentConfig, CalibrateConfig, DownstreamConfig, TrainBackboneConfig
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """Own presets lie in a folder of the test."""
    folder = tmp_path / "presets"
    monkeypatch.setenv("MINORITY_PRESETS", str(folder))
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Forty cats and eight dogs of unequal sizes, in colour."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for name, count in {"no": 40, "yes": 8}.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            side = int(rng.integers(20, 40))
            pixels = rng.integers(0, 255, (side, side + i % 3, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def scans(tmp_path):
    """Sixty scans beside a table with label, sex, age and patient."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "scans"
    (folder / "files").mkdir(parents=True)
    rows = ["file,dx,sex,age,patient"]
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (32, 32)).astype(np.uint8)).save(folder / "files" / f"{i}.png")
        rows.append(f"{i}.png,{'01' if i % 6 else 'no'},{'mf'[i % 2]},{20 + i},p{i}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def entrypoints_of(name):
    return {worded(entry, "entrypoint") for entry in entries() if worded(entry, "name") == name}


def test_a_folder_of_classes_becomes_four_presets_that_every_command_finds(pictures, presets):
    result = run("init", "pets", "--images", pictures, "--yes")

    assert result.exit_code == 0, result.output
    assert "48 images" in result.output
    assert "no (40), yes (8)" in result.output
    assert "minority train-backbone pets    # about" in result.output
    assert [flow for flow, name, _ in list_presets() if name == "pets"] == [
        "backbone", "calibrate", "augment", "downstream"
    ]  # fmt: skip
    config = load_preset(AugmentConfig, "pets")
    assert config.dataset.image_size == 32
    assert config.dataset.split.imbalance is None
    assert config.plan.quota == 20  # four times the five dogs that train
    assert load_preset(TrainBackboneConfig, "pets").out == config.backbone.path == "models/pets"
    assert load_preset(CalibrateConfig, "pets").sampler == config.sampler
    assert load_preset(DownstreamConfig, "pets").store == "runs"
    # Their forms in Prefect have the settings of this reader alone.
    of_reader = {f"flows.reader_forms.folder:{flow}" for flow in ("backbone", "calibrate", "augment")}
    assert entrypoints_of("pets") == of_reader | {"flows.downstream:downstream"}


def test_texts_stay_texts_and_columns_become_settings(scans, presets):
    result = run(
        "init", "lesions", "--images", scans / "files", "--table", scans / "labels.csv", "--yes",
        "--group", "sex", "--group", "age", "--mirrored", "--size", 16, "--quota", 33, "--store", "/tmp/somewhere",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    config = load_preset(AugmentConfig, "lesions")
    table = config.dataset.table
    assert table.classes == ("01", "no")
    assert [group.column for group in table.groups] == ["sex", "age"]
    assert table.groups[1].edges == (40.0, 60.0)
    assert table.identity_column == "patient"
    assert config.labeller.flip
    assert config.plan.quota == 33
    assert config.store == "/tmp/somewhere"
    assert "flows.reader_forms.image_table:augment" in entrypoints_of("lesions")


def test_a_dry_run_shows_the_file_and_writes_nothing(pictures, presets):
    result = run("init", "pets", "--images", pictures, "--yes", "--dry-run")

    assert result.exit_code == 0
    assert not presets.exists()
    assert {flow for flow, _ in presets_in(result.stdout, source="stdout")} == {
        "backbone", "calibrate", "augment", "downstream"
    }  # fmt: skip


def test_a_backbone_of_ones_own_leaves_the_training_out(pictures, presets, tiny_backbone):
    result = run("init", "pets", "--images", pictures, "--yes", "--backbone", tiny_backbone)

    assert result.exit_code == 0, result.output
    assert "train-backbone" not in result.output
    assert load_preset(AugmentConfig, "pets").backbone.path == tiny_backbone


def test_nothing_is_overwritten_and_no_name_is_taken_twice(pictures, presets):
    assert run("init", "pets", "--images", pictures, "--yes").exit_code == 0
    before = (presets / "pets.yaml").read_bytes()

    again = run("init", "pets", "--images", pictures, "--yes")
    taken = run("init", "digits", "--images", pictures, "--yes")

    assert again.exit_code == taken.exit_code == 2
    assert "exists, and is not overwritten" in again.output
    assert "has presets called digits already" in taken.output
    assert (presets / "pets.yaml").read_bytes() == before
    assert [path.name for path in presets.iterdir()] == ["pets.yaml"]


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"label": "sex"}, "names a column, and there is no table"),
        ({"image_size": 17}, "the side must be 8, 16, 32, 64, 128 or 256 pixels"),
        ({"test_fraction": 1.5}, "the test share must be between 0 and 1"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused(pictures, wishes, message):
    with pytest.raises(InputError, match=message):
        choose("pets", look(pictures, None), Wishes(**wishes), on_gpu=False)


def test_what_cannot_be_seen_is_asked_for(scans, tmp_path):
    (scans / "odd.csv").write_text("file,kind\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    with pytest.raises(InputError, match=r"no column of .* looks like the label; name it, e\.g\. --label kind\."):
        choose("odd", look(scans / "files", scans / "odd.csv"), Wishes(), on_gpu=False)
    with pytest.raises(InputError, match="has no folders, so no image has a label"):
        choose("odd", look(scans / "files", None), Wishes(), on_gpu=False)
    with pytest.raises(InputError, match="no column 'colour'"):
        choose("odd", look(scans / "files", scans / "labels.csv"), Wishes(groups=["colour"]), on_gpu=False)


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("side", [8, 16, 32, 64, 128, 256])
def test_every_size_gives_presets_that_are_valid(pictures, side, on_gpu):
    choices = choose("pets", look(pictures, None), Wishes(image_size=side), on_gpu=on_gpu)

    assert f"image_size: {side}" in checked_text(choices, on_gpu=on_gpu)


def test_plan_says_to_train_first_then_tells_what_a_run_costs(presets, pictures, tiny_backbone):
    assert run("init", "pets", "--images", pictures, "--yes").exit_code == 0

    untrained = run("plan", "pets")
    digits = run("plan", "digits", "--set", f"backbone.path={tiny_backbone}", "--set", "plan.quota=20")

    assert untrained.exit_code == 2
    assert "models/pets is not trained yet; run minority train-backbone pets first" in untrained.output
    assert digits.exit_code == 0, digits.output
    assert "digit=9: 5 real, 15 wanted, 36 in the first round" in digits.output
    assert "minutes" in digits.output or "seconds" in digits.output


def test_two_files_with_presets_of_one_name_are_named(presets, pictures):
    assert run("init", "pets", "--images", pictures, "--yes").exit_code == 0
    (presets / "twin.yaml").write_bytes((presets / "pets.yaml").read_bytes())

    result = run("presets")

    assert result.exit_code == 2
    assert "backbone/pets stands in" in result.output


def test_a_zip_of_class_folders_becomes_presets_that_are_read(pictures, presets, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(pictures.rglob("*.png")):
            archive.write(path, f"pets/{path.relative_to(pictures)}")

    result = run("init", "pets", "--images", tmp_path / "pets.zip", "--yes", "--size", 16)

    assert result.exit_code == 0, result.output
    assert "classes: no (40), yes (8)" in result.output
    real = load_real_data(load_preset(AugmentConfig, "pets").dataset)
    assert len(real.train) + len(real.validation) + len(real.test) == 48
    assert real.train.image(0).shape == (16, 16, 3)


def test_tars_become_presets_that_are_read(pictures, presets, tmp_path):
    paths = sorted(pictures.rglob("*.png"))
    for part in range(2):
        with tarfile.open(tmp_path / f"pets-{part}.tar", "w") as tar:
            for key, path in enumerate(paths[part::2]):
                tar.add(path, f"{key}.png")
                (tmp_path / "label").write_text(str(int(path.parent.name == "yes")))
                tar.add(tmp_path / "label", f"{key}.cls")

    result = run("init", "pets", "--images", f"{tmp_path}/pets-{{0..1}}.tar", "--yes", "--size", 16)

    assert result.exit_code == 0, result.output
    real = load_real_data(load_preset(AugmentConfig, "pets").dataset)
    assert real.train.class_names == ["0", "1"]
    assert len(real.train) + len(real.validation) + len(real.test) == 48
    assert "flows.reader_forms.image_tars:augment" in entrypoints_of("pets")


def test_classes_that_are_numbers_are_in_the_order_of_these(scans):
    table = scans / "labels.csv"
    table.write_text(table.read_text().replace(",01,", ",10,").replace(",no,", ",9,"))

    choices = choose("scans", look(scans / "files", table), Wishes(), on_gpu=False)

    assert list(choices.class_counts) == ["10", "9"]
    assert 'classes: ["9", "10"]' in checked_text(choices, on_gpu=False)


def test_columns_that_may_be_the_label_are_named_where_none_is_called_so(scans):
    table = scans / "labels.csv"
    table.write_text(table.read_text().replace("file,dx", "file,kind"))

    with pytest.raises(InputError, match=r"name it, e\.g\. --label kind"):
        choose("scans", look(scans / "files", table), Wishes(), on_gpu=False)


def test_json_lines_are_a_table(scans):
    rows = [line.split(",") for line in (scans / "labels.csv").read_text().splitlines()]
    header, cells = rows[0], rows[1:]
    lines = [json.dumps(dict(zip(header, row, strict=True))) for row in cells]
    (scans / "labels.jsonl").write_text("\n".join([*lines, ""]))

    by_lines, by_commas = (
        choose("scans", look(scans / "files", scans / f"labels.{kind}"), Wishes(), on_gpu=False)
        for kind in ("jsonl", "csv")
    )

    assert by_lines.class_counts == by_commas.class_counts
    text = checked_text(by_lines, on_gpu=False)
    assert "labels.jsonl" in text
    assert parts(text) == parts(checked_text(by_commas, on_gpu=False))


def test_what_systems_leave_beside_images_is_told_and_not_counted(pictures, presets):
    for name in (".DS_Store", "yes/._000.png", "__MACOSX/yes/000.png", "no/Thumbs.db"):
        path = pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"none of yours")

    seen = look(pictures, None)

    assert seen.num_images == 48
    assert seen.others == {"hidden": 3, ".db": 1}
    assert "4 other files, which are left out: 3 hidden, 1 .db" in described(seen)
    assert run("init", "pets", "--images", pictures, "--yes", "--dry-run").exit_code == 0


def test_a_test_share_beside_the_makers_own_parts_is_refused(scans, tmp_path):
    table = scans / "labels.csv"
    first, *rest = table.read_text().splitlines()
    divided = [f"{row},{'test' if i % 5 == 0 else 'train'}" for i, row in enumerate(rest)]
    table.write_text("\n".join([f"{first},split", *divided]))
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "parted" / part / name).mkdir(parents=True)
            Image.new("L", (8, 8)).save(tmp_path / "parted" / part / name / "0.png")

    with pytest.raises(InputError, match=r"column split of .* tells which images test, so there is no --test-share"):
        choose("scans", look(scans / "files", table), Wishes(test_fraction=0.3), on_gpu=False)
    with pytest.raises(InputError, match=r"folders of .* tell which images test, so there is no --test-share"):
        choose("parted", look(tmp_path / "parted", None), Wishes(test_fraction=0.3), on_gpu=False)
    assert choose("scans", look(scans / "files", table), Wishes(test_fraction=0.3, split=""), on_gpu=False)


def test_init_is_a_document_where_one_is_asked_for(presets, pictures):
    result = run("init", "pets", "--images", pictures, "--yes", "--json")

    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["classes"] == {"no": 40, "yes": 8}
    assert told["file"] == str(presets / "pets.yaml")
    assert "minority augment pets" in told["commands"]
    assert "48 images in" in result.stderr
