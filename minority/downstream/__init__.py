"""Downstream: what a training set is worth to a classifier, measured so that a sceptic believes it.

An *arm* is one recipe of training: which images, drawn how, with which loss. Every arm gets the same network, the same
number of optimiser steps, the same augmentation and the same number of tuning trials; its settings are chosen on the
validation split, and the test split is looked at once.
"""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.downstream.arms import Arm, arms_for
    from minority.downstream.comparison import Difference, choose_arm, group_intervals, paired_difference
    from minority.downstream.data import DownstreamData, LabelledImages
    from minority.downstream.jobs import Comparison, Job
    from minority.downstream.learning_curve import GroupHeadroom, headroom, measure_curves
    from minority.downstream.metrics import measure, results_table
    from minority.downstream.settings import DownstreamSettings, NetworkSettings
    from minority.downstream.trials import Trial, run_trial

__all__ = [
    "Arm",
    "Comparison",
    "Difference",
    "DownstreamData",
    "DownstreamSettings",
    "GroupHeadroom",
    "Job",
    "LabelledImages",
    "NetworkSettings",
    "Trial",
    "arms_for",
    "choose_arm",
    "group_intervals",
    "headroom",
    "measure",
    "measure_curves",
    "paired_difference",
    "results_table",
    "run_trial",
]

__getattr__ = exported_from(__file__)
