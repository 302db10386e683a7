"""What the backbone says about images, and its quantiles among validation images."""

import numpy as np
import pytest

from minority.sampling.draw import Scores
from minority.selection.quantiles import quantile_among
from tasks.inputs.scoring import VALIDATION_INDEX, score, score_quantiles
from tasks.inputs.workspace import open_workspace

NAMES = ("minority_score", "negative_elbo")
MANY = {"dataset__split__test_fraction": 0.5, "dataset__split__validation_fraction": 0.2}


@pytest.fixture
def workspace(tiny_config):
    return open_workspace(tiny_config(**MANY))


def validation_scores(workspace, positions):
    validation = workspace.real.validation
    return score(
        workspace,
        validation.images(positions),
        indices=[VALIDATION_INDEX + position for position in positions],
        condition=validation.labels[positions].tolist(),
    )


def test_quantiles_are_shares_of_the_validation_images(workspace):
    own = validation_scores(workspace, [*range(len(workspace.real.validation))])
    asked = Scores(
        minority_score=np.quantile(own.minority_score, [0, 0.3, 1]).astype(np.float32),
        negative_elbo=np.array([-1e6, 1e6, np.nan], dtype=np.float32),
    )

    quantiles = score_quantiles(workspace, asked)

    expected = quantile_among(asked.minority_score, own.minority_score)
    np.testing.assert_array_equal(quantiles["minority_score"], expected)
    np.testing.assert_array_equal(quantiles["negative_elbo"], [0, 1, np.nan])


def test_a_validation_image_has_the_quantile_of_its_rank(workspace):
    own = validation_scores(workspace, [*range(len(workspace.real.validation))])

    quantiles = score_quantiles(workspace, own)

    for name in NAMES:
        ranks = getattr(own, name).argsort().argsort()
        np.testing.assert_allclose(quantiles[name], (ranks + 0.5) / len(ranks), atol=1e-9, err_msg=name)


def test_of_many_validation_images_as_many_are_drawn_as_asked_for(tiny_config):
    workspace = open_workspace(tiny_config(**MANY, scores__held_out=4))
    own = validation_scores(workspace, [*range(len(workspace.real.validation))])

    quantiles = score_quantiles(workspace, own)

    assert len(workspace.real.validation) > 4
    assert set(np.unique(quantiles["negative_elbo"] * 8).tolist()) <= set(range(9))


@pytest.mark.parametrize("without", [{"scores__held_out": 0}, {"dataset__split__validation_fraction": 0}])
def test_without_validation_images_there_are_no_quantiles(tiny_config, without):
    workspace = open_workspace(tiny_config(**without))
    zeros = np.zeros(3, dtype=np.float32)

    assert score_quantiles(workspace, Scores(minority_score=zeros, negative_elbo=zeros)) == {}


def test_validation_images_without_a_number_are_no_part_of_the_scale(workspace, monkeypatch):
    def scores_with_gaps(backbone, images, **_):
        minority = np.arange(len(images), dtype=np.float32)
        minority[0] = np.nan
        return Scores(minority_score=minority, negative_elbo=np.full(len(images), np.nan, dtype=np.float32))

    monkeypatch.setattr("tasks.inputs.scoring.score_images", scores_with_gaps)
    asked = np.array([0.5, 1e6], dtype=np.float32)

    quantiles = score_quantiles(workspace, Scores(minority_score=asked, negative_elbo=asked))

    np.testing.assert_array_equal(quantiles["minority_score"], [0, 1])
    assert set(quantiles) == {"minority_score"}
