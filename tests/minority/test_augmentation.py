import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from minority.augmentation import AffineAugmentation

STILL = {"rotation": 0.0, "translation": 0.0, "scaling": 0.0, "shear": 0.0}


def images(count=6, size=8):
    return torch.rand((count, 2, size, size), generator=torch.Generator().manual_seed(3)) * 2 - 1


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def with_draws(monkeypatch, value):
    """Let every uniform draw be `value` in [0, 1): 0 is the lowest amount, 0.5 none, just below 1 the highest."""
    monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.full(shape, value))


def test_no_amounts_leave_the_images_as_they_are():
    moved = AffineAugmentation(**STILL)(images(), generator())

    # The grid's coordinates are float32: a pixel's weight is off by some 1e-7.
    torch.testing.assert_close(moved, images(), atol=1e-5, rtol=0)


def test_a_shift_by_whole_pixels_moves_them_and_repeats_the_border(monkeypatch):
    with_draws(monkeypatch, 0.0)  # the lowest amount: minus one pixel of eight along both axes

    moved = AffineAugmentation(**{**STILL, "translation": 1 / 8})(images(), generator())

    # Sampling at -1 pixel: what was at (y, x) arrives at (y + 1, x + 1), and the first row and column are repeated.
    expected = images()[:, :, [0, 0, 1, 2, 3, 4, 5, 6], :][:, :, :, [0, 0, 1, 2, 3, 4, 5, 6]]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_a_quarter_turn_is_numpys_quarter_turn(monkeypatch):
    with_draws(monkeypatch, 0.0)

    moved = AffineAugmentation(**{**STILL, "rotation": 90.0})(images(), generator())

    turned = torch.rot90(images(), 1, dims=(2, 3)), torch.rot90(images(), -1, dims=(2, 3))
    assert min(float((moved - candidate).abs().max()) for candidate in turned) < 1e-5


@pytest.mark.parametrize(
    ("amount", "value", "matrix"),
    [
        ({"rotation": 20.0}, 0.0, lambda: rotation(-20.0)),
        ({"scaling": 0.25}, 0.0, lambda: np.diag([0.75, 0.75])),
        ({"shear": 0.4}, 0.0, lambda: np.array([[1.0, 0.0], [-0.4, 1.0]])),
    ],
)
def test_every_amount_is_the_map_that_scipy_draws(monkeypatch, amount, value, matrix):
    with_draws(monkeypatch, value)

    moved = AffineAugmentation(**{**STILL, **amount})(images(), generator())

    # scipy maps output (y, x) to input (y, x) about the corner; ours maps about the centre, (3.5, 3.5) of 8 pixels.
    centre = np.array([3.5, 3.5])
    expected = np.stack(
        [
            [
                ndimage.affine_transform(
                    channel, matrix(), offset=centre - matrix() @ centre, order=1, mode="nearest", prefilter=False
                )
                for channel in image
            ]
            for image in images().numpy()
        ]
    )
    np.testing.assert_allclose(moved.numpy(), expected, atol=1e-5)


def rotation(degrees):
    angle = math.radians(degrees)
    # Rows and columns are (y, x): the transpose of the usual (x, y) form.
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def test_the_generator_decides_how_images_are_moved():
    first = AffineAugmentation()(images(), generator(1))
    again = AffineAugmentation()(images(), generator(1))
    other = AffineAugmentation()(images(), generator(2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_image_gets_its_own_amounts():
    same = images(1).expand(5, -1, -1, -1)

    moved = AffineAugmentation()(same, generator())

    assert all(not torch.equal(moved[0], moved[i]) for i in range(1, 5))


def test_values_stay_within_those_of_the_image():
    moved = AffineAugmentation(rotation=45, translation=0.3, scaling=0.5, shear=0.5)(images(64), generator())

    assert moved.min() >= images(64).min() - 1e-6
    assert moved.max() <= images(64).max() + 1e-6


def test_torchs_global_random_state_is_not_touched():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    AffineAugmentation()(images(), generator())

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ({"rotation": -1.0}, r"AffineAugmentation.rotation must lie in \[0, 180\] degrees, got -1.0"),
        ({"translation": 1.5}, r"AffineAugmentation.translation must lie in \[0, 1\), got 1.5"),
        ({"scaling": 1.0}, r"AffineAugmentation.scaling must lie in \[0, 1\), got 1.0"),
        ({"shear": math.nan}, r"AffineAugmentation.shear must lie in \[0, 1\), got nan"),
    ],
)
def test_amounts_that_make_no_sense_are_refused(amount, message):
    with pytest.raises(ValueError, match=message):
        AffineAugmentation(**amount)
