import math

import numpy as np
import pytest
import torch

from minority.training.augmentation import AffineAugmentation

STILL = {"rotation": 0.0, "translation": 0.0, "scaling": 0.0, "shear": 0.0}


def images(count=6, size=8):
    # NumPy's draws: torch's are replaced below.
    return torch.tensor(np.random.default_rng(3).uniform(-1, 1, (count, 2, size, size)), dtype=torch.float32)


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
    with_draws(monkeypatch, 0.0)  # the lowest amount: minus 90 degrees

    moved = AffineAugmentation(**{**STILL, "rotation": 90.0})(images(), generator())

    torch.testing.assert_close(moved, torch.rot90(images(), -1, dims=(2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("amount", "value", "matrix"),
    [
        ({"rotation": 20.0}, 0.0, lambda: rotation(-20.0)),
        ({"scaling": 0.25}, 0.0, lambda: np.diag([0.75, 0.75])),
        ({"shear": 0.4}, 0.0, lambda: np.array([[1.0, 0.0], [-0.4, 1.0]])),
    ],
)
def test_every_amount_is_its_map_about_the_centre(monkeypatch, amount, value, matrix):
    with_draws(monkeypatch, value)

    moved = AffineAugmentation(**{**STILL, **amount})(images(), generator())

    expected = [[cubic_map(channel, matrix()) for channel in image] for image in images().numpy()]
    lowest, highest = (bound(images().numpy(), axis=(1, 2, 3), keepdims=True) for bound in (np.min, np.max))
    np.testing.assert_allclose(moved.numpy(), np.clip(expected, lowest, highest), atol=1e-5)


def cubic_map(image, matrix):
    """Slow definition: the image at matrix @ (y, x) about its centre, by cubic convolution (Keys 1981, a = -3/4)."""
    centre, size = (len(image) - 1) / 2, len(image)
    result = np.zeros_like(image)
    for row, column in np.ndindex(image.shape):
        y, x = matrix @ [row - centre, column - centre] + centre
        for i, j in np.ndindex(4, 4):
            near_y, near_x = math.floor(y) - 1 + i, math.floor(x) - 1 + j
            pixel = image[min(max(near_y, 0), size - 1), min(max(near_x, 0), size - 1)]
            result[row, column] += keys(y - near_y) * keys(x - near_x) * pixel
    return result


def keys(distance, a=-0.75):
    distance = abs(distance)
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0.0


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
