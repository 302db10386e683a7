import numpy as np
import pytest

from datasets.describe import describe
from datasets.readers.imageset import Problem
from datasets.splits.account import take_account
from datasets.splits.identity_split import split_set
from datasets.splits.stratified import OVER_VALIDATION_CAP, THINNED, SplitSettings
from datasets.splits.streams import Stream

ROW = {"is_row": True, "on_disk": False}


def entries(account):
    return {entry.reason: (entry.images, entry.rows) for entry in account.left_out}


def test_images_and_rows_add_up(make_image_set):
    problems = (
        Problem("t.csv:3", "has no label.", kind="row without label", is_row=True),
        Problem("t.csv:4", "has no label.", kind="row without label", is_row=True, on_disk=False),
        Problem("t.csv:9", "names x.png, which is not there.", kind="row whose image is missing", **ROW),
        Problem("images/z.png", "is named by no row.", kind="image that no readable row names"),
    )
    images = make_image_set({("a", "a"): 10}, problems=problems)
    parts = {"train": images.subset(range(5)), "validation": images.subset([5]), "test": images.subset([6, 7])}

    account = take_account(
        parts,
        left_out={THINNED: ["toy/8"], OVER_VALIDATION_CAP: []},
        unreadable=[Problem("toy/9", "is cut short.")],
        num_beyond_cap=0,
    )

    assert account.parts == {"train": 5, "validation": 1, "test": 2}
    assert entries(account) == {
        "row without label": (1, 2),
        "row whose image is missing": (0, 1),
        "image that no readable row names": (1, 0),
        THINNED: (1, 1),
        "image that cannot be read": (1, 1),
    }
    assert account.num_images == 12
    assert account.num_rows == 13
    lines = account.to_markdown().splitlines()
    assert lines[0] == "| where | images | rows |"
    assert "| left out: row without label | 1 | 2 |" in lines
    assert "| all | 12 | 13 |" in lines
    text = account.to_text()
    assert text.startswith("12 images: 5 train, 1 validation, 2 test, 4 in no part. ")
    assert "1 images: image that cannot be read (toy/9)." in text
    assert "1 rows: row whose image is missing (t.csv:9 names x.png, which is not there)." in text
    assert "toy/9" not in account.to_text(examples=False) + account.to_markdown(examples=False)


def test_a_set_without_a_table_counts_images_alone(make_image_set):
    images = make_image_set({("a", "a"): 4})

    account = take_account({"train": images}, left_out={THINNED: ["x", "y"]}, num_beyond_cap=7)

    assert account.num_images == 13
    assert account.to_markdown().splitlines()[0] == "| where | images |"
    assert "7 images: above dataset.max_images." in account.to_text()


def test_every_image_that_cannot_be_read_is_named(make_image_set):
    damaged = [Problem(f"toy/{number:03d}", "is cut short.") for number in range(52)]

    text = take_account({"train": make_image_set({("a", "a"): 1})}, left_out={}, unreadable=damaged).to_text()

    assert all(f"toy/{number:03d}" in text for number in range(50))
    assert "and 2 more" in text


def test_what_is_used_and_yet_worth_knowing_is_told(make_image_set):
    images = make_image_set(
        {("None", "None"): 3, ("Bird", "Bird"): 2, ("bird ", "bird "): 2},
        attributes={"sex": ["f", "F", None, None, "m", "m", "m"]},
        identities=list("1123456"),
    )

    account = take_account({"train": images.subset([0, 2, 4, 5, 6]), "test": images.subset([1, 3])}, left_out={})

    assert list(account.notes) == [
        "'None' is taken as a class, not as a missing label: 3 images.",
        "'sex' has no value in 2 images; their groups say unknown.",
        "The classes 'Bird' and 'bird ' differ in case or spaces alone, and are counted apart.",
        "The values of 'sex' 'F' and 'f' differ in case or spaces alone, and are counted apart.",
        "1 identities have images in two parts, e.g. '1'.",
    ]


def test_what_a_terminal_would_obey_is_written_out(make_image_set):
    problem = Problem("t.csv:2", "names \x1b[2J\u202ea.png\nb.", kind="row whose image is missing", **ROW)

    text = take_account({"train": make_image_set({("a", "a"): 1}, problems=(problem,))}, left_out={}).to_text()

    assert text.isprintable()
    assert r"\x1b[2J\u202ea.png\nb" in text


@pytest.mark.parametrize("identities", [None, [str(number // 2) for number in range(300)]])
def test_a_split_says_why_each_image_is_in_no_part(make_image_set, identities):
    images = make_image_set({("a", "a"): 200, ("b", "b"): 100}, identities=identities)
    settings = SplitSettings(imbalance=10, validation_fraction=0.3, validation_cap=2)

    split = split_set(images, settings)

    everything = [split.train, split.validation, split.test, *split.left_out.values()]
    np.testing.assert_array_equal(np.sort(np.concatenate(everything)), np.arange(300))
    assert len(split.left_out[THINNED]) > 0
    assert len(split.left_out[OVER_VALIDATION_CAP]) > 0
    card = describe(images, split)
    assert card.account.num_images == 300
    assert card.account.parts["train"] == len(split.train)


def test_images_in_none_of_the_makers_parts_are_told(make_image_set):
    parts = ["train"] * 5 + ["test"] * 3 + [""] * 2
    images = make_image_set({("a", "a"): 10}, parts=parts)

    split = split_set(images, SplitSettings(imbalance=None, validation_fraction=0))

    assert split.left_out["in none of the makers' parts"].tolist() == [8, 9]
    assert describe(images).account.num_images == 10


def test_no_two_choices_share_a_stream():
    assert len({stream.value for stream in Stream}) == len(Stream.__members__)


def test_the_streams_of_published_splits_keep_their_numbers():
    numbers = {stream.name: stream.value for stream in Stream}

    assert numbers == {
        "TEST": 0, "EXPONENTIAL_TAIL": 1, "VALIDATION": 2, "VALIDATION_CAP": 3, "SPURIOUS": 4, "STEP_TAIL": 5,
        "POOL": 6, "VALIDATION_EACH": 7,
    }  # fmt: skip
