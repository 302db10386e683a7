"""Digits in colours: what the two forms show, and that they are divided alike."""

from collections import Counter

import numpy as np

from datasets.readers.coloured_digits import COLOURS, NAMES, read_coloured_digits
from datasets.readers.digits import read_digits
from datasets.splits.identity_split import split_set
from datasets.splits.stratified import SplitSettings


def test_every_scan_is_there_once_in_a_common_or_a_rare_colour():
    digits, scans = read_coloured_digits(), read_digits()
    assert len(digits) == len(scans)
    np.testing.assert_array_equal(digits.labels, scans.labels)
    for label, name in enumerate(NAMES):
        counts = Counter(group for group in digits.groups if f"digit={name}," in group)
        common, rare = ("red", "blue") if label % 2 == 0 else ("blue", "red")
        assert counts.keys() == {f"digit={name},colour=red", f"digit={name},colour=blue"}
        assert 0.03 < counts[f"digit={name},colour={rare}"] / counts.total() < 0.17
        assert counts[f"digit={name},colour={common}"] > 100


def test_images_have_the_colour_that_their_group_says_and_the_scans_ink():
    digits, scans = read_coloured_digits(colours="even"), read_digits()
    assert len(digits) == len(COLOURS) * len(scans)
    for index in (0, 1, 2, 3, 4, 5, 600, 10781):
        image, scan = digits.image(index).astype(float), scans.image(index // 6)[:, :, 0].astype(float)
        colour = np.array(COLOURS[digits.attributes["colour"][index]], dtype=float)
        brightest = image[np.unravel_index(image.sum(axis=2).argmax(), image.shape[:2])]
        np.testing.assert_allclose(brightest / brightest.max(), colour / colour.max(), atol=0.01)
        small = image[4:28, 4:28].reshape(8, 3, 8, 3, 3).mean(axis=(1, 3, 4)).ravel()
        assert np.corrcoef(small, scan.ravel())[0, 1] > 0.97
        assert not image[0].any()
        assert not image[:, -1].any()


def test_no_scan_is_held_out_in_one_form_and_learned_in_the_other():
    settings = SplitSettings(test_fraction=0.3, validation_fraction=0.2)
    parts = []
    for colours in ("skewed", "even"):
        digits = read_coloured_digits(colours=colours)
        split = split_set(digits, settings)
        parts.append([{digits.identities[i] for i in part} for part in (split.train, split.validation, split.test)])
    assert parts[0] == parts[1]
    assert all(len(part) > 200 for part in parts[0])
