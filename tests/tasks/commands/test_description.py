import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.splits.stratified import SplitSettings
from tasks.commands.description import describe_dataset
from tasks.config.dataset_file import load_dataset
from tasks.config.sections import DatasetConfig
from tasks.inputs.real_data import load_real_data

PLACE = os.environ.get("MINORITY_DATA", "")
SETS = Path(__file__).parents[3] / "examples" / "sets"
DIGITS = DatasetConfig(reader="digits", split=SplitSettings())


def test_a_card_counts_every_group_in_every_part(tmp_path):
    text = describe_dataset(DIGITS, tmp_path / "card").to_markdown()

    real = load_real_data(DIGITS)
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| digit=")}
    assert len(rows) == 10
    for group, line in rows.items():
        numbers = {int(cell) for cell in line.split("|")[2:-1] if cell.strip().isdigit()}
        assert {part.groups.count(group) for part in (real.train, real.validation, real.test)} <= numbers, group


def test_the_card_is_written_with_a_picture(tmp_path):
    text = describe_dataset(DIGITS, tmp_path / "card").to_markdown()

    assert (tmp_path / "card" / "README.md").read_text(encoding="utf-8").startswith(text)
    picture = Image.open(io.BytesIO((tmp_path / "card" / "examples.png").read_bytes()))
    assert np.asarray(picture).std() > 0


@pytest.mark.realdata
@pytest.mark.skipif(not PLACE, reason="MINORITY_DATA names no folder with the real image sets")
@pytest.mark.parametrize("path", sorted(SETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_set_of_the_examples_is_described_and_its_numbers_add_up(path):
    config = load_dataset(str(path), overrides={})

    lines = describe_dataset(config, None).to_markdown().splitlines()

    begin, end = (lines.index(heading) for heading in ("## Where every image is", "## Images by class and part"))
    counted = [line.split("|")[1:3] for line in lines[begin:end] if line.startswith("| ")][1:]
    *parts, (last, total) = [(where.strip(), int(images)) for where, images in counted]
    assert last == "all"
    assert sum(images for _, images in parts) == total > 0
    assert [where for where, _ in parts[:3]] == ["train", "validation", "test"]


def test_what_is_left_out_is_in_the_card_and_the_rest_of_it_is_of_the_whole_set(tmp_path):
    (tmp_path / "images").mkdir()
    rows = ["file,kind,sex,who"]
    for number in range(40):
        pixels = np.full((8, 8, 3), 6 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        kind, sex = "ab"[number % 2], "f" if number % 4 else "null"
        rows.append(f"{number}.png,{kind.upper() if number in (5, 6) else kind},{sex},{number // 2}")
    rows[-1] = '39.png,b,"f "x" y",19'
    (tmp_path / "t.csv").write_text("\n".join(rows))
    (tmp_path / "images" / "30.png").write_bytes(b"no image")
    config = DatasetConfig(
        reader="image_table",
        folder=str(tmp_path),
        table={
            "name": "own", "table": "t.csv", "images": "images", "image_column": "file", "label_column": "kind",
            "classes": ["a", "b"], "groups": ["sex"], "identity_column": "who",
        },
        split=SplitSettings(imbalance=None, test_fraction=0.3),
    )  # fmt: skip

    text = describe_dataset(config, None).to_markdown()

    assert text.splitlines()[2].startswith("36 images of 20 identities")
    assert "| left out: label in another spelling than its class | 2 | 2 |" in text
    assert "| left out: image that cannot be read | 1 | 1 |" in text
    assert "| left out: row with a stray quote | 0 | 1 |" in text
    assert "| left out: image that no readable row names | 1 | 0 |" in text
    assert "| all | 40 | 40 |" in text
    assert "- sex: 10 images" in text
    problems = text.split("## Problems")[1].split("\n## ")[0]
    assert "own/30.png: " in problems
    assert "labels" not in problems
    assert problems.count("did you mean") == 2
