"""Policies on planted candidates, and what both verdicts on a label make of it."""

import numpy as np
import pytest

from minority.neighbours.reference import Neighbourhood
from minority.selection.choice import KEPT, QUOTA_FULL, choose
from minority.selection.discriminator import DiscriminatorOutput
from minority.selection.filter_contract import Verdicts
from minority.selection.policy import POLICIES, asked_columns, refusals
from minority.selection.settings import HeldOutRules, SelectionSettings

#: name: (rare, valid, new, label_kept, knn_distance_quantile, label_margin)
PLANTED = {
    "perfect": (True, True, True, True, 0.95, 0.9),
    "common": (False, True, True, True, 0.2, 0.8),
    "in the middle": (False, True, True, True, 0.5, 0.7),
    "beyond the middle": (False, True, True, True, 0.51, 0.6),
    "odd but clear": (True, False, True, True, 0.99, 0.5),
    "unclear": (True, True, True, True, 0.97, 0.1),
    "copy": (True, True, False, True, 0.96, 0.95),
    "of another label": (True, True, True, False, 0.98, -0.4),
}
NAMES = np.array(list(PLANTED))


def planted():
    columns = np.array(list(PLANTED.values()), dtype=float).T
    rows = dict(zip(("rare", "valid", "new", "label_kept"), columns[:4].astype(bool), strict=True))
    # To the backbone all but the last look like their label.
    rows["zero_shot_kept"] = NAMES != "of another label"
    return rows | {"knn_distance_quantile": columns[4], "label_margin": columns[5]}


CHOSEN = {
    "all": list(PLANTED),
    "clean": ["perfect", "common", "in the middle", "beyond the middle", "unclear"],
    "moderate": ["perfect", "beyond the middle", "unclear"],
    "rare": ["perfect", "unclear"],
    "consistent": ["perfect", "common", "in the middle"],
    "recognised": ["perfect", "common", "in the middle", "beyond the middle", "odd but clear", "unclear"],
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_chooses_what_it_promises(policy):
    kept, reasons = choose(planted(), np.zeros(8, dtype=int), quotas={0: 8}, policy=policy)

    assert NAMES[kept].tolist() == CHOSEN[policy]
    assert np.array_equal(kept, np.array(reasons) == KEPT)


def test_the_default_is_rare_and_a_quota_is_filled_in_order():
    kept, reasons = choose(planted(), np.zeros(8, dtype=int), quotas={0: 1})

    assert SelectionSettings().policy == "rare"
    assert NAMES[kept].tolist() == ["perfect"]
    assert reasons[5] == QUOTA_FULL


@pytest.mark.parametrize(
    ("policy", "name", "reason"),
    [
        ("rare", "common", "common"),
        ("moderate", "in the middle", "common"),
        ("clean", "odd but clear", "not real-looking"),
        ("clean", "copy", "copy of a training image"),
        ("rare", "of another label", "label lost"),
        ("consistent", "copy", "copy of a training image"),
        ("consistent", "unclear", "label less clear than in half of its group"),
    ],
)
def test_a_refusal_names_what_was_asked_first(policy, name, reason):
    assert refusals(policy, planted(), np.zeros(8, dtype=int))[NAMES.tolist().index(name)] == reason


def test_a_consistent_half_is_that_of_the_own_group_and_round():
    margin = {"new": np.ones(8, dtype=bool), "label_margin": np.array([0.1, 0.2, 0.8, 0.9, 0.3, 0.4, 0.1, 0.6])}
    groups, rounds = np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1])

    both = refusals("consistent", margin, groups, rounds=rounds)
    first = refusals("consistent", {k: v[:4] for k, v in margin.items()}, groups[:4], rounds=rounds[:4])

    assert [reason is None for reason in both] == [False, True, False, True, False, True, False, True]
    assert both[:4] == first


def test_what_a_policy_asks_must_be_known():
    rows = planted()
    without = {name: values for name, values in rows.items() if name != "label_margin"}
    unevaluated = rows | {"label_margin": np.full(8, np.nan)}

    for incomplete in (without, unevaluated):
        with pytest.raises(ValueError, match=r"consistent needs label_margin .* evaluate them with selection.held_out"):
            refusals("consistent", incomplete, np.zeros(8, dtype=int))
    with pytest.raises(ValueError, match="clean needs valid"):
        refusals("clean", {}, np.zeros(8, dtype=int))
    assert asked_columns("all") == ()


def test_consistent_without_a_discriminator_is_refused_by_the_settings():
    with pytest.raises(ValueError, match=r"consistent .* give held_out too"):
        SelectionSettings(policy="consistent")
    assert SelectionSettings(policy="consistent", held_out=HeldOutRules()).policy == "consistent"


def verdicts(*, output):
    ones = np.ones(4, dtype=bool)
    place = Neighbourhood(*[np.ones(4)] * len(Neighbourhood._fields))
    label_kept = np.array([True, True, False, False])
    return Verdicts(place, np.full(4, 0.7), ones, ones, ones, label_kept, output=output)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (DiscriminatorOutput(np.ones(4), np.ones((4, 1))), [True, False, False, False]),
        (None, [True, False, True, False]),
    ],
    ids=["discriminator", "neighbours"],
)
def test_the_labellers_word_stands_beside_the_discriminators_and_in_place_of_the_neighbours(output, expected):
    confidence = np.array([0.9, 0.3, 0.8, 0.2])

    found = verdicts(output=output).with_labeller(confidence, confidence >= 0.5)

    assert found.label_kept.tolist() == expected
    assert found.passed.tolist() == expected
    assert found.labeller_confidence.tolist() == confidence.tolist()
    assert found.label_agreement.tolist() == [0.7] * 4
