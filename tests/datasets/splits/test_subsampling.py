import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.contact_sheet import contact_sheet
from datasets.describe import describe
from datasets.runs.tar_writing import tar_of_members
from datasets.splits.identity_split import split_by_identity, split_set, straddling
from datasets.splits.stratified import Split, SplitSettings
from datasets.splits.subsampling import exponential_tail, spurious, step_tail

LABELS = np.repeat(np.arange(4), [40, 60, 100, 80])
EVERYTHING = np.arange(len(LABELS))


def counts(labels, indices):
    return np.bincount(labels[indices], minlength=labels.max() + 1).tolist()


def test_a_step_leaves_rare_classes_a_fixed_fraction():
    kept = step_tail(LABELS, EVERYTHING, imbalance=10, rare=[1, 3], seed=0)

    assert counts(LABELS, kept) == [40, 4, 40, 4]
    np.testing.assert_array_equal(kept, step_tail(LABELS, EVERYTHING, imbalance=10, rare=[1, 3], seed=0))
    assert not np.array_equal(kept, step_tail(LABELS, EVERYTHING, imbalance=10, rare=[1, 3], seed=1))


def test_an_exponential_tail_can_follow_any_order():
    kept = exponential_tail(LABELS, EVERYTHING, imbalance=27, order=[2, 3, 1, 0], seed=0)

    assert counts(LABELS, kept) == [4, 11, 100, 33]


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_label_goes_with_an_attribute_as_often_as_asked(share):
    attribute = ["woman" if number % 2 else "man" for number in range(len(LABELS))]

    kept = spurious(LABELS, attribute, EVERYTHING, majority={2: "woman", 3: "man"}, share=share, seed=0)

    for label, value in {2: "woman", 3: "man"}.items():
        members = [attribute[index] for index in kept if LABELS[index] == label]
        assert members.count(value) / len(members) == pytest.approx(share, abs=0.02)
        assert members.count(value) in {40, 50}  # no more are left out than the share asks for
    assert counts(LABELS, kept)[:2] == [40, 60]


def test_images_whose_attribute_is_missing_are_on_neither_side():
    labels = np.zeros(6, dtype=np.int64)

    kept = spurious(labels, ["a", "a", "a", "b", None, None], np.arange(6), majority={0: "a"}, share=0.75, seed=0)

    assert kept.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: step_tail(LABELS, EVERYTHING, imbalance=0.5, rare=[0], seed=0), "imbalance must be at least 1"),
        (lambda: step_tail(LABELS, EVERYTHING, imbalance=2, rare=[0, 1, 2, 3], seed=0), "some but not all"),
        (lambda: step_tail(LABELS, EVERYTHING, imbalance=1000, rare=[0], seed=0), "leaves class 0 no image"),
        (lambda: exponential_tail(LABELS, EVERYTHING, imbalance=2, order=[0, 1], seed=0), "each of the 4 classes once"),
        (
            lambda: spurious(LABELS, ["a"] * 280, EVERYTHING, majority={0: "a"}, share=0.9, seed=0),
            "needs some of both",
        ),
        (lambda: spurious(LABELS, ["a"] * 280, EVERYTHING, majority={0: "a"}, share=1, seed=0), "below 1, got 1"),
        (lambda: split_by_identity(["a"], test_fraction=2, validation_fraction=0, seed=0), r"in \[0, 1\], got 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(identities=st.lists(st.integers(0, 30).map(str), min_size=1, max_size=80), seed=st.integers(0, 3))
def test_no_identity_is_in_two_parts_and_later_images_move_no_earlier_one(identities, seed):
    split = split_by_identity(identities, test_fraction=0.3, validation_fraction=0.2, seed=seed)
    longer = split_by_identity([*identities, "new", "0"], test_fraction=0.3, validation_fraction=0.2, seed=seed)

    assert straddling(identities, split) == []
    together = np.sort(np.concatenate([split.train, split.validation, split.test]))
    np.testing.assert_array_equal(together, np.arange(len(identities)))
    for part in ("train", "validation", "test"):
        assert set(getattr(split, part)) == {i for i in getattr(longer, part) if i < len(identities)}


def test_the_shares_of_a_split_by_identity_are_as_asked():
    identities = [str(number) for number in range(4000)]

    split = split_by_identity(identities, test_fraction=0.4, validation_fraction=0.1, seed=0)

    # 4 standard deviations of a binomial share of 4,000.
    assert abs(len(split.test) - 1600) < 4 * (4000 * 0.4 * 0.6) ** 0.5
    assert abs(len(split.validation) - 240) < 4 * (4000 * 0.06 * 0.94) ** 0.5


def test_a_set_with_repeated_identities_is_never_split_by_chance(make_image_set):
    images = make_image_set({("a", "a"): 30, ("b", "b"): 30}, identities=[str(number // 3) for number in range(60)])
    settings = SplitSettings(imbalance=None)

    assert straddling(images.identities, split_set(images, settings)) == []
    with pytest.raises(ValueError, match="split it by the rule identity"):
        split_set(images, settings, rule="stratified")
    with pytest.raises(ValueError, match="has no official parts"):
        split_set(images, settings, rule="parts")
    with pytest.raises(ValueError, match="rule must be auto, parts, identity or stratified, got 'luck'"):
        split_set(images, settings, rule="luck")


def test_a_tail_is_given_to_training_alone(make_image_set):
    images = make_image_set({("a", "a"): 200, ("b", "b"): 200}, identities=[str(number // 2) for number in range(400)])

    tailed, whole = (split_set(images, SplitSettings(imbalance=imbalance)) for imbalance in (10.0, None))

    np.testing.assert_array_equal(tailed.test, whole.test)
    np.testing.assert_array_equal(tailed.validation, whole.validation)
    first, last = counts(images.labels, tailed.train)
    assert first / last == pytest.approx(10, rel=0.1)


def test_a_description_tells_counts_gaps_problems_duplicates_and_leaks(make_image_set):
    images = make_image_set(
        {("a", "a"): 4, ("b", "b"): 3},
        attributes={"sex": ["m", None, "f", None, "m", "m", "m"]},
        identities=["1", "1", "2", "3", "4", "5", "6"],
    )
    pixels = images.images(range(7))
    pixels[5] = pixels[0]

    def load(index):
        if index == 6:
            raise ValueError("toy/00006 is cut short.")
        return pixels[index]

    damaged = type(images)(**{**images.__dict__, "load": load})
    split = Split(train=np.array([0, 2, 4]), validation=np.array([5]), test=np.array([1, 6]))

    card = describe(damaged, split)

    assert card.counts["a"] == {"train": 2, "validation": 0, "test": 1, "unused": 1}
    assert card.missing == {"sex": 2}
    assert [problem.reason for problem in card.problems] == ["toy/00006 is cut short."]
    (duplicate,) = card.duplicates
    assert duplicate.source_ids == ["toy/00000", "toy/00005"]
    assert duplicate.parts == ["train", "validation"]
    assert duplicate.labels_differ
    assert card.straddling == ["1"]
    text = card.to_markdown()
    assert "1 sets of images with equal pixels, 1 of them in two parts, 1 with different labels" in text
    assert "- sex: 2 images" in text
    assert card.to_dict()["num_identities"] == 6
    assert card.picture().startswith(b"\x89PNG")


def test_a_contact_sheet_of_nothing_is_still_a_picture():
    assert contact_sheet([], image_shape=(8, 8, 1), columns=3).startswith(b"\x89PNG")


def test_tar_members_need_short_plain_names():
    for name in ("", "x" * 101, "\u00e9"):
        with pytest.raises(ValueError, match="needs an ASCII name of 1 to 100"):
            tar_of_members([(name, b"")])
