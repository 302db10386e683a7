import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from minority.neighbours.reference import RealReference
from minority.selection.choice import KEPT, choose
from minority.selection.filter_building import SelectionSettings, build_filter


@pytest.fixture
def real():
    return np.random.default_rng(0).normal(size=(60, 4))


def test_distances_are_those_of_scikit_learn(real):
    evaluated = np.random.default_rng(1).normal(size=(30, 4))
    distances, neighbours = NearestNeighbors(n_neighbors=5).fit(real).kneighbors(evaluated)

    found = RealReference.fit(real, k=5).locate(evaluated)

    np.testing.assert_allclose(found.knn_distance, distances.mean(axis=1))
    np.testing.assert_allclose(found.nearest_distance, distances[:, 0])
    np.testing.assert_array_equal(found.nearest, neighbours[:, 0])


def test_realism_is_its_plain_definition(real):
    evaluated = np.random.default_rng(1).normal(size=(30, 4)) * 1.5
    between = np.linalg.norm(real[:, None] - real[None], axis=2)
    radii = np.sort(between, axis=1)[:, 5]  # column 0 is the image itself
    expected = (radii[None] / np.linalg.norm(evaluated[:, None] - real[None], axis=2)).max(axis=1)

    found = RealReference.fit(real, k=5)

    np.testing.assert_allclose(found.locate(evaluated).realism, expected, rtol=1e-6)
    assert 0 < (found.locate(evaluated).realism >= 1).mean() < 1


def test_a_training_image_is_not_its_own_neighbour(real):
    own = RealReference.fit(real, k=5).of_training

    assert (own.nearest != np.arange(60)).all()
    assert (own.nearest_distance > 0).all()
    assert np.isfinite(own.realism).all()


def test_an_exact_copy_has_distance_zero_and_boundless_realism(real):
    found = RealReference.fit(real, k=5).locate(real[:1])

    assert found.nearest_distance[0] == 0
    assert found.realism[0] == np.inf


def test_more_neighbours_than_images_are_clipped():
    assert RealReference.fit(np.eye(3), k=10).k == 2


@pytest.mark.parametrize(
    ("features", "k", "message"),
    [
        (np.zeros((1, 3)), 5, "at least 2 images"),
        (np.zeros((3, 3)), 0, "k must be at least 1"),
        (np.full((3, 3), np.nan), 2, "not all finite"),
    ],
)
def test_an_impossible_reference_is_refused(features, k, message):
    with pytest.raises(ValueError, match=message):
        RealReference.fit(features, k=k)


def planted():
    """Two tight classes far apart, and a straggler in each."""
    rng = np.random.default_rng(0)
    first = np.concatenate([rng.normal(size=(30, 2)) * 0.1, [[1.0, 0.0]]])
    second = np.concatenate([rng.normal(size=(30, 2)) * 0.1 + [10, 0], [[9.0, 0.0]]])
    return np.concatenate([first, second]), np.repeat([0, 1], 31)


def test_the_filters_name_what_is_planted():
    features, labels = planted()
    candidate_filter = build_filter(
        features, labels, settings=SelectionSettings(neighbours=3, rare_quantile=0.9, label_floor=0.5)
    )
    candidates = {
        "common": ([0.01, 0.02], 0),
        "rare and fine": ([0.9, 0.1], 0),
        "garbage": ([5.0, 40.0], 0),
        "copy of a straggler": ([1.0, 0.0], 0),
        "of the other class": ([9.1, 0.1], 0),
    }
    verdicts = candidate_filter.evaluate(
        np.array([place for place, _ in candidates.values()]), np.array([label for _, label in candidates.values()])
    )
    found = {
        name: (bool(r), bool(v), bool(n), bool(k))
        for name, r, v, n, k in zip(
            candidates, verdicts.rare, verdicts.valid, verdicts.new, verdicts.label_kept, strict=True
        )
    }

    assert found["common"] == (False, True, True, True)
    assert found["rare and fine"] == (True, True, True, True)
    assert found["garbage"][1] is False
    assert found["copy of a straggler"][2] is False
    assert found["of the other class"] == (True, True, True, False)
    assert verdicts.passed.tolist() == [False, True, False, False, False]


def test_label_agreement_at_its_ends():
    candidate_filter = build_filter(
        np.array([[0.0], [1.0], [3.0]]), np.array([0, 0, 1]), settings=SelectionSettings(neighbours=1)
    )

    agreement = candidate_filter.evaluate(
        np.array([[0.0], [3.0], [2.0], [0.0]]), np.array([0, 0, 0, 5])
    ).label_agreement

    np.testing.assert_allclose(agreement, [1.0, 0.0, 0.5, 0.0])


def test_the_only_class_always_agrees():
    candidate_filter = build_filter(
        np.array([[0.0], [1.0]]), np.array([0, 0]), settings=SelectionSettings(neighbours=1)
    )

    assert candidate_filter.evaluate(np.array([[7.0]]), np.array([0])).label_agreement.tolist() == [1.0]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_choice_respects_quotas_and_never_changes_when_candidates_are_added(data):
    size = data.draw(st.integers(1, 40))
    verdict = st.lists(st.booleans(), min_size=size, max_size=size)
    rows = {name: np.array(data.draw(verdict)) for name in ("rare", "valid", "new", "label_kept")}
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    quotas = {0: 3, 1: 0}

    kept, reasons = choose(rows, labels, quotas=quotas)

    assert all(kept[labels == label].sum() <= quotas.get(label, 0) for label in range(3))
    assert [reason == KEPT for reason in reasons] == kept.tolist()
    passed = np.logical_and.reduce(list(rows.values()))
    assert (kept <= passed).all()
    assert kept[labels == 0].sum() == min(3, passed[labels == 0].sum())
    early, _ = choose({name: row[: size // 2] for name, row in rows.items()}, labels[: size // 2], quotas=quotas)
    assert early.tolist() == kept[: size // 2].tolist()


def test_a_refusal_names_the_first_filter():
    rows = {
        "rare": np.array([False, True, True, True, True, True]),
        "valid": np.array([False, False, True, True, True, True]),
        "new": np.array([False, False, False, True, True, True]),
        "label_kept": np.array([False, False, False, False, True, True]),
    }

    _, reasons = choose(rows, np.zeros(6, dtype=int), quotas={0: 1})

    assert reasons == [
        "common",
        "not real-looking",
        "copy of a training image",
        "label lost",
        "kept",
        "quota full",
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("neighbours", 0), ("rare_quantile", 1.0), ("copy_quantile", -0.1), ("label_floor", 1.1)],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=f"SelectionSettings.{field}"):
        SelectionSettings(**{field: value})
