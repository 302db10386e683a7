"""What each condition adds to the prediction, weighed together and alone."""

import numpy as np
import pytest
import torch

from minority.backbones import Backbone
from minority.backbones.factors import Factor, Factors
from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.composed_conditions import ComposedConditions
from minority.guidance.materials import Materials
from minority.sampling.draw import draw
from minority.sampling.settings import SamplerSettings
from minority.solvers.ancestral import Ancestral

FACTORS = Factors((Factor("label", ("cat", "dog")), Factor("sex", ("f", "m"))))
ROWS = torch.tensor(FACTORS.rows(np.array([[0, 1], [1, 0], [1, -1]])))


class ByRow:
    """Says a different noise for every row, and counts how often it is asked."""

    no_label = FACTORS.nothing

    def __init__(self):
        self.calls = 0

    def __call__(self, x_t, timestep, label, /):
        self.calls += 1
        said = self.say(label).view(-1, 1, 1, 1)
        return Prediction(eps=x_t * 0 + said, x0_hat=x_t - said)

    @staticmethod
    def say(rows):
        return torch.sin(3.0 * rows) + 0.1 * rows


def backbone(denoiser, factors=FACTORS):
    return Backbone(
        name="bars",
        denoiser=denoiser,
        schedule=NoiseSchedule.cosine(10),
        image_shape=(1, 4, 4),
        num_classes=2,
        sha256="",
        factors=factors,
    )


@pytest.mark.parametrize(
    "settings", [{"joint": 2.0}, {"joint": 0.0, "separate": (1.5, 3.0)}, {"joint": 1.2, "separate": [0.7]}]
)
def test_the_prediction_is_the_published_sum(settings):
    denoiser, method = ByRow(), ComposedConditions(**settings)
    guided = method.ready(backbone(denoiser), Materials()).wrap_denoiser(denoiser)
    x = torch.randn(3, 1, 4, 4)

    found = guided(x, torch.zeros(3, dtype=torch.int64), ROWS)

    say, free = denoiser.say, denoiser.say(torch.full((3,), FACTORS.nothing))
    alone = [torch.tensor([0, 1, 1]), torch.tensor([2 + 3 * 2, 2 + 3 * 1, 2])]  # rows of label alone, of sex alone
    separate = {0: (0.0, 0.0), 1: method.separate * 2, 2: method.separate}[len(method.separate)]
    expected = free + method.joint * (say(ROWS) - free)
    expected = expected + sum(weight * (say(rows) - free) for weight, rows in zip(separate, alone, strict=True))
    torch.testing.assert_close(found.eps[:, 0, 0, 0], expected)
    torch.testing.assert_close(found.x0_hat, x - expected.view(-1, 1, 1, 1))
    assert denoiser.calls == 1 + (method.joint > 0) + sum(weight > 0 for weight in separate)


def test_weight_one_on_all_together_is_plain_conditional_sampling():
    plain = SamplerSettings(steps=4)
    rows = ROWS.tolist()

    one, other = (
        draw(backbone(ByRow()), seed=0, indices=range(3), labels=rows, settings=settings).images
        for settings in (plain, plain.guided(ComposedConditions(joint=1.0)))
    )

    assert np.abs(one.astype(int) - other).max() <= 1  # of 255: rounding of the same numbers summed another way


def test_a_backbone_without_separate_conditions_is_refused_by_name():
    with pytest.raises(ValueError, match="backbone bars has no separate conditions"):
        draw(
            backbone(ByRow(), factors=None),
            seed=0,
            indices=[0],
            labels=[0],
            settings=SamplerSettings(steps=4).guided(ComposedConditions()),
        )
    assert "3 weights" in ComposedConditions(separate=(1.0, 1.0, 1.0)).refusal(backbone(ByRow()))


@pytest.mark.parametrize("wrong", [{"joint": -1.0}, {"joint": 0.0}, {"separate": (1.0, -0.5)}])
def test_weights_are_not_negative_and_not_all_zero(wrong):
    with pytest.raises(ValueError, match="must not be negative"):
        ComposedConditions(**wrong)


def test_a_second_classifier_free_scale_is_refused():
    reason = ComposedConditions().conflict([ClassifierFree()], Ancestral())

    assert "two classifier-free scales" in reason
