import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from minority.gains import PairedDifference, evaluate, paired_difference, summarise, verdict


def table(**values):
    """Result rows of one metric: table(real=[0.1, 0.2]) has seeds 0 and 1 of arm real."""
    return pd.DataFrame(
        [
            (arm, seed, "accuracy", value)
            for arm, series in values.items()
            for seed, value in enumerate(series)
            if value is not None
        ],
        columns=["arm", "seed", "metric", "value"],
    )


@settings(max_examples=30, deadline=None)
@given(num_classes=st.integers(2, 6), num_images=st.integers(20, 80), seed=st.integers(0, 10_000))
def test_recalls_and_accuracies_agree_with_sklearn(num_classes, num_images, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=num_images)])
    probabilities = rng.dirichlet(np.ones(num_classes), size=len(labels))
    predicted = probabilities.argmax(axis=1)

    evaluation = evaluate(probabilities, labels)

    recall = recall_score(labels, predicted, average=None, labels=range(num_classes))
    np.testing.assert_allclose(evaluation.recall, recall)
    assert evaluation.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert evaluation.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert evaluation.worst_class_accuracy == pytest.approx(recall.min())
    assert recall[evaluation.worst_class] == recall.min()


def test_a_class_without_test_images_has_no_recall_and_cannot_be_the_worst():
    evaluation = evaluate(np.eye(3)[[0, 2, 2, 0]], np.array([0, 2, 2, 2]))

    assert np.isnan(evaluation.recall[1])
    assert evaluation.worst_class == 2
    assert evaluation.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert "recall_1" not in set(evaluation.rows("real", seed=0)["metric"])


def test_an_evaluation_becomes_one_row_a_measurement():
    rows = evaluate(np.eye(2)[[0, 1, 1, 1]], np.array([0, 0, 1, 1])).rows("real+plain", seed=7)

    assert list(rows.columns) == ["arm", "seed", "metric", "value"]
    assert set(rows["arm"]) == {"real+plain"}
    assert set(rows["seed"]) == {7}
    assert dict(zip(rows["metric"], rows["value"], strict=True)) == {
        "accuracy": 0.75,
        "balanced_accuracy": 0.75,
        "worst_class_accuracy": 0.5,
        "recall_0": 0.5,
        "recall_1": 1.0,
    }


def test_a_diverged_classifier_is_not_scored():
    with pytest.raises(ValueError, match="diverged"):
        evaluate(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]))


def test_labels_that_do_not_fit_the_predictions_are_refused():
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 0 ... 2"):
        evaluate(np.eye(2), np.array([0, 2]))
    with pytest.raises(ValueError, match="N at least 1"):
        evaluate(np.eye(2), np.array([0]))
    with pytest.raises(ValueError, match="N at least 1"):
        evaluate(np.empty((0, 2)), np.empty(0, dtype=np.int64))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_summary_is_scipys_t_interval_for_every_arm_and_metric(confidence):
    rng = np.random.default_rng(0)
    real, oversampled = rng.random(5), rng.random(5)

    summary = summarise(table(real=real, oversampled=oversampled), confidence=confidence)

    assert summary["arm"].tolist() == ["real", "oversampled"]
    for values, row in zip((real, oversampled), summary.itertuples(), strict=True):
        expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
        assert (row.mean, row.low, row.high) == pytest.approx((values.mean(), *expected))
        assert row.num_seeds == 5


@settings(max_examples=30, deadline=None)
@given(num_seeds=st.integers(2, 12), seed=st.integers(0, 10_000), confidence=st.floats(0.5, 0.999))
def test_the_paired_interval_is_scipys(num_seeds, seed, confidence):
    rng = np.random.default_rng(seed)
    arm, baseline = rng.random(num_seeds), rng.random(num_seeds)

    found = paired_difference(
        table(arm=arm, baseline=baseline), "arm", baseline="baseline", metric="accuracy", confidence=confidence
    )

    expected = stats.ttest_rel(arm, baseline).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((arm - baseline).mean())
    assert found.num_seeds == num_seeds


def test_seeds_are_paired_by_number_not_by_order():
    results = table(arm=[0.1, 0.5, 0.9], baseline=[0.0, 0.4, 0.8])

    shuffled = paired_difference(results.iloc[[2, 0, 1, 4, 5, 3]], "arm", baseline="baseline", metric="accuracy")

    assert shuffled.mean == pytest.approx(0.1)
    assert shuffled.high - shuffled.low < 1e-9  # every seed gains the same; wrong pairs would not


def test_one_seed_has_a_difference_but_no_interval():
    found = paired_difference(table(arm=[0.5], baseline=[0.25]), "arm", baseline="baseline", metric="accuracy")

    assert found.mean == 0.25
    assert np.isnan([found.low, found.high]).all()
    assert not found.excludes_zero
    assert np.isnan(summarise(table(arm=[0.5]))[["low", "high"]].to_numpy()).all()


def test_equal_differences_give_an_interval_without_width():
    gain = paired_difference(table(a=[0.5, 0.75], b=[0.25, 0.5]), "a", baseline="b", metric="accuracy")
    nothing = paired_difference(table(a=[0.3, 0.7], b=[0.1 + 0.2, 0.7]), "a", baseline="b", metric="accuracy")

    assert (gain.low, gain.mean, gain.high) == (0.25, 0.25, 0.25)
    assert gain.excludes_zero
    assert not nothing.excludes_zero  # 0.1 + 0.2 is not quite 0.3 in float64


def test_arms_run_with_other_seeds_cannot_be_paired():
    results = table(arm=[0.1, 0.2, 0.3], baseline=[0.1, 0.2, None])
    with pytest.raises(ValueError, match=r"seeds \[2\] are in one only"):
        paired_difference(results, "arm", baseline="baseline", metric="accuracy")


def test_an_arm_or_metric_that_was_not_measured_is_named():
    with pytest.raises(ValueError, match="no 'accuracy' of arm 'real'"):
        paired_difference(table(arm=[0.1]), "arm", baseline="real", metric="accuracy")


def test_unsound_tables_are_refused():
    results = table(real=[0.1, 0.2])
    with pytest.raises(ValueError, match="missing: value"):
        summarise(results.drop(columns="value"))
    with pytest.raises(ValueError, match="seed 0 stands twice"):
        summarise(pd.concat([results, results.iloc[:1]]))
    with pytest.raises(ValueError, match="seed 1 has no value"):
        summarise(table(real=[0.1, float("nan")]))
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\), got 95"):
        summarise(results, confidence=95)


def difference(**changes):
    found = {"arm": "real+minority", "baseline": "real", "metric": "worst_class_accuracy", "mean": 0.142}
    found |= {"low": 0.081, "high": 0.203, "num_seeds": 5, "confidence": 0.95}
    return PairedDifference(**(found | changes))


def test_the_verdict_on_a_gain_says_size_interval_seeds_and_opponent():
    assert verdict(difference()) == (
        "+14.2 points worst-class accuracy (8.1 ... 20.3, 95% interval over 5 seeds) against real only"
    )


def test_the_verdict_admits_where_the_interval_does_not_exclude_zero():
    unclear = verdict(difference(mean=-0.0002, low=-0.03, high=0.0296, baseline="real+plain", metric="recall_9"))

    assert unclear == (
        "+0.0 points recall 9 (-3.0 ... 3.0, 95% interval over 5 seeds) against real+plain; "
        "the interval does not exclude 0"
    )


def test_the_verdict_on_harm_carries_its_sign_and_no_doubt():
    assert verdict(difference(mean=-0.1, low=-0.15, high=-0.05, baseline="oversampled")) == (
        "-10.0 points worst-class accuracy (-15.0 ... -5.0, 95% interval over 5 seeds) against real oversampled"
    )


def test_the_verdict_on_one_seed_has_no_interval():
    single = difference(low=float("nan"), high=float("nan"), num_seeds=1)

    assert verdict(single) == "+14.2 points worst-class accuracy (one seed, so no interval) against real only"
