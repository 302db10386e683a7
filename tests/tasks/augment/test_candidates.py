import pyarrow as pa
import pytest

from datasets.runs.tables import conform_rows, replace_column
from datasets.storage.store import Store
from tasks.augment.candidates import choose_candidates, name_near_duplicates, read_rows, tally_candidates
from tasks.augment.planning import Tally

GROUPS = ["a", "b"]
FILTERS = ("rare", "valid", "new", "label_kept")


def candidates(groups, *, refused=(), by="rare"):
    """Rows that pass every filter but those at the positions `refused`, which the filter `by` stops."""
    columns = {name: [not (name == by and i in refused) for i in range(len(groups))] for name in FILTERS}
    columns |= {"group": list(groups), "key": [f"{by}{i}" for i in range(len(groups))], "kept": [False] * len(groups)}
    columns |= {"label": [GROUPS.index(group) for group in groups], "minority_score": [0.5] * len(groups)}
    fixed = {"source": "synthetic", "sampler": "minority", "unit": "u", "label_name": "", "reason": "not chosen yet"}
    columns |= {name: [value] * len(groups) for name, value in fixed.items()}
    return conform_rows(pa.table(columns), name="candidates")


def test_candidates_are_kept_in_order_up_to_the_quota_of_their_group():
    rows = choose_candidates(candidates("aabab"), groups=GROUPS, wanted=[2, 1])

    assert rows["kept"].to_pylist() == [True, True, True, False, False]
    assert rows["reason"].to_pylist() == ["kept", "kept", "kept", "quota full", "quota full"]


@pytest.mark.parametrize(
    ("stopped_by", "reason"),
    [
        ("rare", "common"),
        ("valid", "not real-looking"),
        ("new", "copy of a training image"),
        ("label_kept", "label lost"),
    ],
)
def test_a_refused_candidate_carries_the_reason_and_takes_no_place(stopped_by, reason):
    rows = choose_candidates(candidates("aa", refused=[0], by=stopped_by), groups=GROUPS, wanted=[1, 0])

    assert rows["kept"].to_pylist() == [False, True]
    assert rows["reason"].to_pylist() == [reason, "kept"]


def test_later_rounds_do_not_change_the_choice_among_earlier_ones():
    early = candidates("abba", refused=[1])
    later = candidates("abab", refused=[0])

    alone = choose_candidates(early, groups=GROUPS, wanted=[2, 2])
    together = choose_candidates(pa.concat_tables([early, later]), groups=GROUPS, wanted=[2, 2])

    assert together.slice(0, 4).equals(alone)


def test_a_tally_tells_what_is_missing_after_the_choice():
    rows = choose_candidates(candidates("aaab", refused=[0]), groups=GROUPS, wanted=[1, 3])

    tallies = tally_candidates(rows, groups=GROUPS, wanted=[1, 3])

    assert tallies == [Tally(missing=0, candidates=3, accepted=2), Tally(missing=2, candidates=1, accepted=1)]


def test_before_the_first_round_everything_is_missing(tmp_path):
    rows = read_rows(Store(tmp_path), [])

    assert rows is None
    assert tally_candidates(rows, groups=GROUPS, wanted=[4, 0]) == [Tally(missing=4), Tally(missing=0)]


def with_projections(rows, places):
    """The same rows with these places as random projections, all of round 0."""
    rows = replace_column(rows, "round", values=[0] * len(places))
    return replace_column(rows, "random_projection", values=[list(place) for place in places])


def test_a_quota_is_filled_with_candidates_that_differ():
    rows = with_projections(candidates("aaa"), [(0.0, 0.0), (0.1, 0.0), (5.0, 0.0)])

    chosen = choose_candidates(rows, groups=GROUPS, wanted=[2, 0], spacing=0.0)
    spaced = choose_candidates(rows, groups=GROUPS, wanted=[3, 0], spacing=0.5)

    assert chosen["kept"].to_pylist()[2]
    assert sum(chosen["kept"].to_pylist()) == 2
    assert sorted(spaced["reason"].to_pylist()) == ["kept", "kept", "look-alike of a kept sample"]


def test_near_duplicates_are_named_by_the_first_of_them():
    rows = with_projections(candidates("aab"), [(0.0, 0.0), (5.0, 0.0), (0.1, 0.0)])

    named = name_near_duplicates(rows, radius=0.2)

    keys = rows["key"].to_pylist()
    assert named["near_duplicate_group"].to_pylist() == [keys[0], keys[1], keys[0]]
