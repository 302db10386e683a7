"""Figures of a set of images and of a backbone, with intervals."""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.evaluation.backbone_quality import QualitySettings, measure_quality
    from minority.evaluation.intervals import bootstrap_interval, wilson
    from minority.evaluation.metrics import (
        SetMetrics,
        avg_knn,
        density_coverage,
        frechet_distance,
        local_outlier_factor,
        precision_recall,
        rarity_score,
        set_metrics,
    )
    from minority.evaluation.set_report import SetReport, report_set

__all__ = [
    "QualitySettings",
    "SetMetrics",
    "SetReport",
    "avg_knn",
    "bootstrap_interval",
    "density_coverage",
    "frechet_distance",
    "local_outlier_factor",
    "measure_quality",
    "precision_recall",
    "rarity_score",
    "report_set",
    "set_metrics",
    "wilson",
]

__getattr__ = exported_from(__file__)
