"""The search for the sampler settings with the best yield per evaluation."""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.calibration.outcome import Floors, Measured
    from minority.calibration.search import CalibrationSettings
    from minority.calibration.space import CalibrationSpace, Candidate, SolverSteps

__all__ = ["CalibrationSettings", "CalibrationSpace", "Candidate", "Floors", "Measured", "SolverSteps"]

__getattr__ = exported_from(__file__)
