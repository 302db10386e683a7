import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from minority.classifier import balancing_odds
from minority.downstream.last_layer import refit_last_layer


def test_the_refitted_layer_is_sklearns_logistic_regression_with_groups_of_equal_weight():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), [60, 25, 5])
    labels = groups.copy()
    features = rng.normal(size=(90, 4)) + np.eye(3, 4)[labels]
    ridge = 2.0

    layer = refit_last_layer(torch.tensor(features, dtype=torch.float32), labels, groups, num_classes=3, ridge=ridge)

    odds = balancing_odds(groups)
    mean = odds @ features
    scaled = (features - mean) / np.sqrt(odds @ (features - mean) ** 2)
    theirs = LogisticRegression(C=100 / ridge, tol=1e-8, max_iter=1000).fit(scaled, labels, sample_weight=odds)
    with torch.no_grad():
        found = layer(torch.tensor(features, dtype=torch.float32)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, theirs.predict_proba(scaled), atol=2e-4)


def test_a_large_group_does_not_outvote_a_small_one():
    # One feature; label 1 holds both groups' shortcut in the large group only.
    groups = np.repeat([0, 1, 2, 3], [200, 4, 4, 200])
    labels = groups // 2
    shortcut = np.isin(groups, [1, 3]).astype(float)
    core = labels + np.random.default_rng(0).normal(0, 0.3, size=len(labels))
    features = torch.tensor(np.stack([core, shortcut], axis=1), dtype=torch.float32)

    fair = refit_last_layer(features, labels, groups, num_classes=2, ridge=1.0)
    blind = refit_last_layer(features, labels, np.zeros_like(groups), num_classes=2, ridge=1.0)

    def leaning(layer):
        weight = (layer.weight[1] - layer.weight[0]).detach()
        return float(abs(weight[1] / weight[0]))

    assert leaning(fair) < 0.3 * leaning(blind)


def test_features_that_never_change_do_no_harm():
    features = torch.tensor([[1.0, 5.0], [2.0, 5.0], [-1.0, 5.0], [-2.0, 5.0]])

    layer = refit_last_layer(features, np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), num_classes=2, ridge=1.0)

    assert torch.isfinite(layer.weight).all()
    assert layer(features).argmax(dim=1).tolist() == [0, 0, 1, 1]
    assert float(layer.weight.detach()[:, 1].abs().max()) == pytest.approx(0, abs=1e-6)
