"""From which confidence the answers of an ensemble are believed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minority.selection.labelling import confidence_floor


def test_the_floor_is_the_lowest_that_is_right_often_enough():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = np.array([True, True, False, True, False])

    assert confidence_floor(confidence, correct, precision=1.0) == 0.8
    assert confidence_floor(confidence, correct, precision=0.75) == 0.6
    assert confidence_floor(confidence, correct, precision=0.5) == 0.5


def test_nothing_is_believed_where_the_most_confident_answers_are_wrong():
    assert confidence_floor(np.array([0.9, 0.4]), np.array([False, True]), precision=0.9) == 1.0


@given(st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=1), st.floats(0.1, 1))
def test_what_is_believed_keeps_the_promise(answers, precision):
    confidence = np.array([value for value, _ in answers])
    correct = np.array([right for _, right in answers])

    floor = confidence_floor(confidence, correct, precision=precision)

    believed = correct[confidence >= floor]
    assert len(believed) == 0 or believed.mean() >= precision - 1e-12


def test_the_selection_takes_a_precision_in_its_range_only():
    from minority.selection.settings import SelectionSettings

    with pytest.raises(ValueError, match="label_precision"):
        SelectionSettings(label_precision=0.0)
