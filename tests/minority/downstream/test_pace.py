"""How long a training takes, reckoned from a few steps."""

import numpy as np
import pytest

from minority.downstream import pace
from minority.downstream.data import LabelledImages
from minority.downstream.settings import DownstreamSettings, NetworkSettings


def test_a_training_is_its_start_its_steps_and_a_pass_over_what_is_evaluated(monkeypatch):
    times = iter([1.0, 4.0, 0.5])  # of two steps, of eight, and of a pass over the sample

    def seconds_of(work, *, device):
        work()
        return next(times)

    monkeypatch.setattr(pace, "seconds_of", seconds_of)
    labels = np.repeat(np.arange(3), [30, 9, 1]).astype(np.int64)
    images = LabelledImages(np.zeros((40, 8, 8, 1), np.uint8), labels, labels)

    seconds = pace.seconds_a_training(
        images,
        class_names="abc",
        group_names="abc",
        evaluated=80,
        settings=DownstreamSettings(network=NetworkSettings(width=4), steps=102, batch_size=4),
        device="cpu",
    )

    # Half a second a step; the sample is all 40 images.
    assert seconds == pytest.approx(1.0 + 100 * 0.5 + 80 * 0.5 / 40)
