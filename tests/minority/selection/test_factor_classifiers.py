"""Classifiers of label and attributes, and verdicts where a group has no neighbours."""

import numpy as np
import pytest

from minority.classifier import ClassifierSettings
from minority.selection.factor_classifiers import FactorClassifiers
from minority.selection.filter_building import build_filter
from minority.selection.settings import SelectionSettings
from minority.selection.without_neighbours import SharedReference, without_neighbours

SETTINGS = ClassifierSettings(steps=60, width=4, batch_size=32, weight_decay=0.0, max_shift=0.0, max_rotation=0.0)


def squares(values, seed):
    """(N, 8, 8, 3): a square at the left or right (label), in red or blue (attribute)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (len(values), 8, 8, 3), dtype=np.uint8)
    for image, (label, colour) in zip(images, values, strict=True):
        top = rng.integers(0, 5)
        image[top : top + 3, 5 * label : 5 * label + 3, 2 * colour] = 220
    return images


def test_an_attribute_is_recognised_where_it_was_never_seen_and_not_taken_for_another():
    # The right square was never blue.
    seen = np.repeat([[0, 0], [0, 1], [1, 0]], 30, axis=0)
    unseen = np.repeat([[1, 1]], 40, axis=0)

    filters = FactorClassifiers.train(squares(seen, 0), seen, sizes=(2, 2), settings=SETTINGS, members=1)

    images, common = squares(unseen, 1), np.repeat([[1, 0]], 40, axis=0)
    assert filters.accepts(images, unseen)[:, 1].mean() > 0.8  # the colour, in a place where it was never seen
    assert filters.accepts(squares(common, 2), common).mean(axis=0).min() > 0.8
    assert filters.accepts(squares(common, 2), unseen)[:, 1].mean() < 0.2  # red is not blue
    assert filters.accepts(images, np.full_like(unseen, -1)).all()
    confidence = filters.confidence(images, unseen)
    assert ((confidence > 0.5) == filters.accepts(images, unseen).all(axis=1)).all()


def test_a_condition_with_one_value_cannot_be_told():
    seen = np.zeros((4, 2), dtype=np.int64)

    with pytest.raises(ValueError, match="needs at least 2 values"):
        FactorClassifiers.train(squares(seen, 0), seen, sizes=(2, 1), settings=SETTINGS)


def on_a_square(values, rng, spread=0.1):
    """(N, 2) features: label and attribute are the two directions."""
    return np.asarray(values, dtype=float) + rng.normal(0, spread, (len(values), 2))


def test_a_group_without_images_is_evaluated_by_what_it_shares_with_others():
    rng = np.random.default_rng(0)
    values = np.repeat([[0, 0], [0, 1], [1, 0]], 40, axis=0)
    features = on_a_square(values, rng)
    asked = np.repeat([[1, 1]], 60, axis=0)
    shared = SharedReference(features, values, neighbours=5)
    candidate_filter = build_filter(features, values[:, 0], settings=SelectionSettings())
    there, nowhere = on_a_square(asked, rng), on_a_square(asked, rng) + 40.0
    candidates = np.concatenate([there, nowhere, features[:60]])
    asked = np.concatenate([asked, asked, asked])
    shown = np.ones((180, 2), dtype=bool)
    shown[:10, 1] = False

    plain = candidate_filter.evaluate(candidates, asked[:, 0])
    said = type(plain)(**vars(plain) | {"shows_values": shown})
    found = without_neighbours(
        said,
        np.ones(180, dtype=bool),
        realism=shared.realism(candidates, asked),
        floor=shared.floor,
        candidate_filter=candidate_filter,
    )

    assert not plain.valid[:60].any()  # neighbours of the own kind are not there
    assert found.valid[:60].mean() > 0.8
    assert not found.valid[60:120].any()
    assert found.rare.all()
    assert not found.new[120:].any()  # copies stay copies
    assert found.label_kept.tolist() == shown.all(axis=1).tolist()


def test_groups_with_images_keep_their_neighbours_word_but_must_show_what_was_asked():
    rng = np.random.default_rng(0)
    values = np.repeat([[0, 0], [1, 1]], 40, axis=0)
    features = on_a_square(values, rng)
    candidate_filter = build_filter(features, values[:, 0], settings=SelectionSettings())
    plain = candidate_filter.evaluate(features + 0.01, values[:, 0])
    shown = rng.random((80, 2)) < 0.5

    found = without_neighbours(
        type(plain)(**vars(plain) | {"shows_values": shown}),
        np.zeros(80, dtype=bool),
        realism=np.zeros(80),
        floor=1.0,
        candidate_filter=candidate_filter,
    )

    assert found.rare.tolist() == plain.rare.tolist()
    assert found.valid.tolist() == plain.valid.tolist()
    assert found.label_kept.tolist() == (plain.label_kept & shown.all(axis=1)).tolist()
    with pytest.raises(ValueError, match="ask them first"):
        without_neighbours(
            plain, np.ones(80, dtype=bool), realism=np.zeros(80), floor=1.0, candidate_filter=candidate_filter
        )
