import io

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equalized_odds_difference,
    equalized_odds_ratio,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.metrics import RESULT_COLUMNS, calibration_error, measure, results_table
from minority.downstream.predictions import Predictions


def truth_of(labels, groups=None):
    labels = np.asarray(labels, dtype=np.int64)
    groups = labels if groups is None else np.asarray(groups, dtype=np.int64)
    return LabelledImages(np.zeros((len(labels), 4, 4, 1), dtype=np.uint8), labels, groups)


def said(predicted, confidence=None):
    predicted = np.asarray(predicted, dtype=np.int64)
    sure = np.full(len(predicted), 0.9) if confidence is None else np.asarray(confidence)
    return Predictions(predicted, sure.astype(np.float32))


def table(predictions, truth, *, num_classes, num_groups, sensitive=None):
    found = measure(
        predictions,
        truth,
        class_names=[f"c{k}" for k in range(num_classes)],
        group_names=[f"g{g}" for g in range(num_groups)],
        sensitive=sensitive,
    )
    return found.set_index(["metric", "group"])["value"]


@settings(max_examples=25, deadline=None)
@given(num_classes=st.integers(2, 5), seed=st.integers(0, 10_000))
def test_figures_by_class_and_group_are_those_of_sklearn_and_of_fairlearns_metric_frame(num_classes, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(num_classes), 3), rng.integers(num_classes, size=60)])
    groups = np.concatenate([np.arange(3), rng.integers(3, size=len(labels) - 3)])
    predicted = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(num_classes, size=len(labels)))

    found = table(said(predicted), truth_of(labels, groups), num_classes=num_classes, num_groups=3)

    frame = MetricFrame(metrics=accuracy_score, y_true=labels, y_pred=predicted, sensitive_features=groups)
    for group, accuracy in frame.by_group.items():
        assert found["group_accuracy", f"g{group}"] == pytest.approx(accuracy)
    assert found["worst_group_accuracy", ""] == pytest.approx(frame.group_min())
    assert found["accuracy", ""] == pytest.approx(frame.overall)
    assert found["balanced_accuracy", ""] == pytest.approx(balanced_accuracy_score(labels, predicted))
    recall = recall_score(labels, predicted, average=None)
    assert found["worst_class_accuracy", ""] == pytest.approx(recall.min())
    for k in range(num_classes):
        assert found["recall", f"c{k}"] == pytest.approx(recall[k])
        assert found["f1", f"c{k}"] == pytest.approx(f1_score(labels == k, predicted == k))
    assert found["macro_f1", ""] == pytest.approx(f1_score(labels, predicted, average="macro"))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), num_values=st.integers(2, 4))
def test_fairness_of_two_classes_is_fairlearns(seed, num_values):
    rng = np.random.default_rng(seed)
    kinds = np.concatenate([np.repeat(np.arange(num_values), 6), rng.integers(num_values, size=60)])
    labels = np.concatenate([np.tile([0, 1], 3 * num_values), rng.integers(2, size=60)])
    predicted = np.where(rng.random(len(labels)) < 0.6, labels, rng.integers(2, size=len(labels)))
    values = [f"v{kind}" for kind in kinds]

    found = table(said(predicted), truth_of(labels), num_classes=2, num_groups=2, sensitive={"sex": values})

    theirs = {
        "demographic_parity_difference": demographic_parity_difference,
        "demographic_parity_ratio": demographic_parity_ratio,
        "equalized_odds_difference": equalized_odds_difference,
        "equalized_odds_ratio": equalized_odds_ratio,
    }
    for name, figure in theirs.items():
        one, other = (figure(labels == k, predicted == k, sensitive_features=values) for k in (0, 1))
        expected = max(one, other) if name.endswith("difference") else np.nanmin([one, other])
        assert found[name, "sex"] == pytest.approx(expected)
    frame = MetricFrame(metrics=accuracy_score, y_true=labels, y_pred=predicted, sensitive_features=values)
    for value, accuracy in frame.by_group.items():
        assert found["attribute_accuracy", f"sex={value}"] == pytest.approx(accuracy)


def test_differences_of_two_classes_are_the_same_for_both():
    labels, predicted = [0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 0, 0]
    found = table(
        said(predicted), truth_of(labels), num_classes=2, num_groups=2, sensitive={"s": ["a", "a", "a", "b", "b", "b"]}
    )

    # Said to be of class 1: 2 of 3 in a, 1 of 3 in b.
    assert found["demographic_parity_difference", "s"] == pytest.approx(1 / 3)
    # Recall of class 1: 1 of 1 in a, 1 of 2 in b; wrongly said to be of it: 1 of 2 in a, 0 of 1 in b.
    assert found["equalized_odds_difference", "s"] == pytest.approx(0.5)


def test_images_without_a_value_take_no_part_and_a_lone_value_is_not_compared():
    labels, predicted = [0, 1, 0, 1, 0], [0, 1, 1, 1, 1]
    known = table(
        said(predicted[:4]), truth_of(labels[:4]), num_classes=2, num_groups=2, sensitive={"s": ["a", "a", "b", "b"]}
    )
    found = table(
        said(predicted),
        truth_of(labels),
        num_classes=2,
        num_groups=2,
        sensitive={"s": ["a", "a", "b", "b", None], "t": ["x", "x", "x", None, None]},
    )

    for metric in ("demographic_parity_difference", "equalized_odds_ratio"):
        assert found[metric, "s"] == known[metric, "s"]
    assert "t" not in set(found.index.get_level_values("group"))


def test_a_class_without_test_images_has_no_figure_and_cannot_be_the_worst():
    found = table(said([0, 2, 0, 2]), truth_of([0, 2, 2, 2]), num_classes=3, num_groups=3)

    assert ("recall", "c1") not in found.index
    assert found["worst_class_accuracy", ""] == pytest.approx(2 / 3)
    assert found["balanced_accuracy", ""] == pytest.approx((1 + 2 / 3) / 2)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    # Ten at 0.8 of which eight are right: no gap. Ten at 0.61 of which all are right: 0.39.
    calm = said([0] * 10, [0.8] * 10)
    assert calibration_error(calm, np.array([0] * 8 + [1] * 2)) == pytest.approx(0, abs=1e-6)
    both = said([0] * 20, [0.8] * 10 + [0.61] * 10)
    assert calibration_error(both, np.array([0] * 8 + [1] * 2 + [0] * 10)) == pytest.approx(0.39 / 2, abs=1e-6)


def test_full_confidence_falls_into_the_last_bin():
    assert calibration_error(said([0, 0], [1.0, 1.0]), np.array([0, 1])) == pytest.approx(0.5)


def test_results_are_one_row_a_measurement():
    truth = truth_of([0, 0, 1, 1])
    data = DownstreamData(train=truth, validation=truth, test=truth, class_names=("a", "b"), group_names=("a", "b"))

    found = results_table({("real", 3): said([0, 1, 1, 1]), ("dfr", 3): said([0, 0, 1, 1])}, data)

    assert tuple(found.columns) == RESULT_COLUMNS
    assert not found.duplicated(["arm", "seed", "metric", "group"]).any()
    accuracy = found[found["metric"] == "accuracy"].set_index("arm")["value"]
    assert accuracy.to_dict() == {"real": 0.75, "dfr": 1.0}


def test_predictions_for_other_images_are_refused():
    with pytest.raises(ValueError, match="one prediction an image, got 2 for 3"):
        measure(said([0, 1]), truth_of([0, 1, 1]), class_names=["a", "b"], group_names=["a", "b"])


def test_predictions_survive_a_file():
    before = Predictions.of(np.random.default_rng(0).dirichlet(np.ones(4), size=20))
    file = io.BytesIO()

    before.save(file)
    file.seek(0)
    after = Predictions.load(file)

    np.testing.assert_array_equal(after.predicted, before.predicted)
    np.testing.assert_allclose(after.confidence, before.confidence, atol=1e-3)  # float16 keeps 11 bits


def test_a_diverged_training_is_named():
    with pytest.raises(ValueError, match="lower its learning rate"):
        Predictions.of(np.array([[0.5, 0.5], [np.nan, np.nan]]))
