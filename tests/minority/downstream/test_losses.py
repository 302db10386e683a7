import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minority.downstream.arms import Arm
from minority.downstream.losses import (
    ClassBalanced,
    GroupDRO,
    LogitAdjusted,
    class_balanced_weights,
    cross_entropy,
    loss_of,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 0.0], [1.0, 1.0, -2.0], [0.3, 0.2, 0.1]])
LABELS = torch.tensor([0, 1, 2, 1])
TARGETS = F.one_hot(LABELS, 3).float()
GROUPS = torch.tensor([0, 1, 1, 0])


def test_class_balanced_weights_are_inverse_to_the_effective_number_of_images():
    weights = class_balanced_weights(np.array([1, 2, 1000]), beta=0.9)

    # Effective numbers: (1 - 0.9) / 0.1 = 1, (1 - 0.81) / 0.1 = 1.9, and all but 10.
    np.testing.assert_allclose(weights / weights[0], [1, 1 / 1.9, 0.1], rtol=1e-6)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(class_balanced_weights(np.array([3, 50]), beta=0.0), 1)


def test_the_class_balanced_loss_is_torchs_weighted_one_but_for_the_norm():
    weights = np.array([0.5, 1.0, 1.5])

    found = ClassBalanced(weights, device="cpu")(LOGITS, TARGETS, GROUPS)

    theirs = F.cross_entropy(LOGITS, LABELS, weight=torch.tensor(weights, dtype=torch.float32), reduction="sum")
    assert float(found) == pytest.approx(float(theirs) / 4)


def test_logit_adjustment_with_the_bayes_classifiers_scores_is_the_posterior():
    # Balanced scores plus the log prior are the posterior's logits: what a calibrated classifier minimises.
    prior = np.array([90.0, 9.0, 1.0])

    found = LogitAdjusted(prior, tau=1.0, device="cpu")(LOGITS, TARGETS, GROUPS)

    posterior = LOGITS.softmax(1) * torch.tensor(prior / 100, dtype=torch.float32)
    posterior = posterior / posterior.sum(dim=1, keepdim=True)
    assert float(found) == pytest.approx(float(-posterior[range(4), LABELS].log().mean()), rel=1e-5)


def test_without_strength_or_imbalance_logit_adjustment_is_cross_entropy():
    plain = float(cross_entropy(LOGITS, TARGETS, GROUPS))

    for prior, tau in ((np.array([90.0, 9.0, 1.0]), 0.0), (np.ones(3), 1.5)):
        found = LogitAdjusted(prior, tau=tau, device="cpu")(LOGITS, TARGETS, GROUPS)
        assert float(found) == pytest.approx(plain, rel=1e-6)


def test_group_dro_moves_weight_to_the_group_with_the_higher_loss_as_the_paper_says():
    loss = GroupDRO(3, eta=0.5, device="cpu")

    found = loss(LOGITS, TARGETS, GROUPS)

    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    groups = torch.stack([each[[0, 3]].mean(), each[[1, 2]].mean(), torch.tensor(0.0)])
    weights = torch.exp(0.5 * groups) / torch.exp(0.5 * groups).sum()
    torch.testing.assert_close(loss.weights, weights)
    torch.testing.assert_close(found, (weights * groups).sum())
    again = loss(LOGITS, TARGETS, GROUPS)
    assert loss.weights[1] > weights[1]
    assert again > found


def test_mixed_targets_give_the_mixed_loss():
    mixed = 0.25 * TARGETS + 0.75 * TARGETS.roll(1, 0)
    balanced = ClassBalanced(np.array([0.5, 1.0, 1.5]), device="cpu")

    found = balanced(LOGITS, mixed, GROUPS)

    parts = [float(balanced(LOGITS, t, GROUPS)) for t in (TARGETS, TARGETS.roll(1, 0))]
    assert float(found) == pytest.approx(0.25 * parts[0] + 0.75 * parts[1], rel=1e-5)


def test_the_prior_of_logit_adjustment_is_that_of_what_is_drawn():
    # Class 1 is rare among the real images, but every draw has it as often as class 0.
    labels, odds = np.array([0, 0, 0, 1]), np.array([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    arm = Arm(name="adjusted", loss="logit_adjusted")
    targets = F.one_hot(torch.tensor([0, 1]), 2).float()
    logits = torch.tensor([[1.0, 0.0], [0.3, 0.2]])

    loss = loss_of(arm, labels=labels, odds=odds, num_classes=2, num_groups=2, device="cpu")

    plain = cross_entropy(logits, targets, torch.tensor([0, 1]))
    torch.testing.assert_close(loss(logits, targets, torch.tensor([0, 1])), plain)
