import io

import numpy as np
from PIL import Image

from datasets.splits.stratified import SplitSettings
from tasks.commands.description import describe_dataset
from tasks.config.sections import DatasetConfig
from tasks.inputs.real_data import load_real_data

DIGITS = DatasetConfig(reader="digits", split=SplitSettings())


def test_a_card_counts_every_group_in_every_part(tmp_path):
    text = describe_dataset(DIGITS, tmp_path / "card")

    real = load_real_data(DIGITS)
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| digit=")}
    assert len(rows) == 10
    for group, line in rows.items():
        numbers = {int(cell) for cell in line.split("|")[2:-1] if cell.strip().isdigit()}
        assert {part.groups.count(group) for part in (real.train, real.validation, real.test)} <= numbers, group


def test_the_card_is_written_with_a_picture(tmp_path):
    text = describe_dataset(DIGITS, tmp_path / "card")

    assert (tmp_path / "card" / "README.md").read_text(encoding="utf-8").startswith(text)
    picture = Image.open(io.BytesIO((tmp_path / "card" / "examples.png").read_bytes()))
    assert np.asarray(picture).std() > 0
