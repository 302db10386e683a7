import numpy as np
import pytest

from minority.backbones import Backbone
from minority.generation import draw_images
from minority.named_samplers import NAMED_SAMPLERS, compare, contact_sheet, named_sampler


@pytest.fixture
def backbone(mixture, trained):
    return Backbone("mixture", mixture, trained, image_shape=(1, 4, 4), num_classes=2, sha256="0" * 64)


def test_every_named_sampler_draws_images(backbone):
    drawn = compare(backbone, list(NAMED_SAMPLERS), seed=0, indices=range(4), labels=[1] * 4)

    assert list(drawn) == list(NAMED_SAMPLERS)
    for result in drawn.values():
        assert result.images.shape == (4, 4, 4, 1)
        assert result.evaluations > 0
    assert not np.array_equal(drawn["ancestral"].images, drawn["sgms"].images)


def test_a_comparison_shows_what_each_sampler_draws_alone(backbone):
    both = compare(backbone, ["ddim", "ancestral"], seed=3, indices=[7, 2], labels=[0, 1])

    alone, cost = draw_images(backbone, seed=3, indices=[7, 2], labels=[0, 1], settings=named_sampler("ancestral"))
    assert np.array_equal(both["ancestral"].images, alone)
    assert both["ancestral"].evaluations == cost


def test_an_unknown_sampler_is_refused(backbone):
    with pytest.raises(ValueError, match=r"no sampler 'euler'; take one of ancestral, ddim"):
        compare(backbone, ["ancestral", "euler"], seed=0, indices=[0], labels=[0])


def test_a_contact_sheet_shows_one_row_a_sampler():
    rows = [np.full((3, 2, 2, 1), value, dtype=np.uint8) for value in (10, 20)]

    sheet = contact_sheet(rows, enlarge=2, gap=1)

    assert sheet.shape == (2 * 5 + 1, 3 * 5 + 1, 1)
    assert (sheet[1:5, 1:5], sheet[6:10, 11:15]) == (pytest.approx(10), pytest.approx(20))
    assert sheet[0].min() == sheet[-1].min() == 255
    with pytest.raises(ValueError, match="rows of one shape"):
        contact_sheet([])
