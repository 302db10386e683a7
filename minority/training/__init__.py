"""Training a backbone: a noise-prediction loss, averages of the weights, and a loop that can be killed.

settings.py: the knobs; data.py: what is drawn; loss.py: noising, weighting, the learnt variance; averages.py: averages
of the weights; checkpoint.py: state on disk; process_group.py: one process or several; loop.py: the loop.

Shapes: N training images, B of them a step, C channels, H x W pixels; images are uint8 outside, in [-1, 1] inside.
"""

from minority.training.data import drawing_weights
from minority.training.loop import Evaluations, Progress, train_denoiser
from minority.training.settings import TrainingSettings

__all__ = ["Evaluations", "Progress", "TrainingSettings", "drawing_weights", "train_denoiser"]
