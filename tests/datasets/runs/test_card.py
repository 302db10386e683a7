"""The card of a published run: what the Hub reads of it, and what it says of where images come from."""

from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard

from datasets.runs.card import card_text
from datasets.runs.manifest import ShardEntry
from tests.datasets.conftest import FACTS

SHARDS = [ShardEntry(path="shards/pets-000000.tar", num_samples=12, bytes=1, sha256="0" * 64)]
COUNTS = {"cat": {"real": 5, "synthetic": 3}, "dog": {"real": 4, "synthetic": 0}}
QUOTAS = {"class=cat": {"asked": 3, "kept": 3, "shortfall": 0}, "class=d|g": {"asked": 9, "kept": 2, "shortfall": 7}}


def card(**changes):
    return card_text(replace(FACTS, **changes), counts=COUNTS, quotas=QUOTAS, shards=SHARDS, num_rows=20)


def test_the_hub_reads_its_front_matter():
    read = DatasetCard(card(provenance="Photographs of mine: CC BY 4.0"))

    assert read.data.license == "cc-by-4.0"
    assert read.data.size_categories == ["n<1K"]
    assert read.data.task_categories == ["image-classification"]
    assert "synthetic" in read.data.tags
    (configuration,) = read.data.to_dict()["configs"]
    assert configuration["data_files"] == [{"split": "train", "path": "shards/*.tar"}]


@pytest.mark.parametrize(
    ("provenance", "backbone", "licence"),
    [
        ("MIT licence.", {}, "mit"),
        ("MIT licence.", {"licence": "MIT license"}, "mit"),
        ("MIT licence.", {"licence": "CreativeML Open RAIL-M"}, "other"),
        ("For non-commercial research only.", {}, "other"),
        ("Some CC BY 4.0, some CC0.", {}, "other"),
        ("CC BY-NC 4.0", {}, "cc-by-nc-4.0"),
        ("Whose? [x](y) --- | #", {}, "other"),
    ],
)
def test_a_licence_is_named_where_one_alone_holds(provenance, backbone, licence):
    text = card(provenance=provenance, backbone=FACTS.backbone | backbone)

    assert DatasetCard(text).data.license == licence
    if "licence" in backbone:
        assert f"The backbone's licence is {backbone['licence']}" in text


def test_it_says_what_is_synthetic_and_which_quotas_lack_images():
    text = card()

    assert "**9 images are real, 3 are synthetic**" in text
    assert f"SHA-256 of its weights `{'0' * 64}`" in text
    assert "class=d\\|g (7)" in text
    assert "No person has looked at the images." in text
    assert "says so in its own bytes" not in text
    assert "Each synthetic PNG says so in its own bytes" in card(config={"publish": {"provenance": True}})
