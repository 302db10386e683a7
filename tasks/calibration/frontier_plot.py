"""The picture of a calibration: yield against validity, the colour telling what is kept per unit of compute."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One candidate in the picture.

    Attributes:
        name: Its settings.
        valid: Share that is valid, in [0, 1].
        kept: Share that passes every filter, in [0, 1].
        per_1000_evaluations: Kept samples per 1000 denoiser evaluations.
        best: Whether it won.
    """

    name: str
    valid: float
    kept: float
    per_1000_evaluations: float
    best: bool


def frontier_picture(points: Sequence[Point], *, validity_floor: float) -> bytes:
    """Draw the candidates and the frontier that none of them surpasses. Returns a PNG.

    Args:
        points: The candidates.
        validity_floor: Drawn as a line.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    cost = [point.per_1000_evaluations for point in points]
    coordinates = [100 * point.valid for point in points], [100 * point.kept for point in points]
    scatter = axes.scatter(*coordinates, c=cost, cmap="viridis", s=36, edgecolors="black", linewidths=0.4)
    figure.colorbar(scatter, ax=axes, label="kept per 1000 denoiser evaluations")
    edge = sorted(unsurpassed(points), key=lambda point: point.valid)
    axes.plot([100 * p.valid for p in edge], [100 * p.kept for p in edge], color="grey", linewidth=1, zorder=0)
    axes.axvline(100 * validity_floor, color="grey", linestyle="--", linewidth=1)
    for point in points:
        if point.best or point.name.startswith(("plain", "published")):
            axes.annotate(
                f"{point.name} (winner)" if point.best else point.name,
                (100 * point.valid, 100 * point.kept),
                xytext=(-6 if point.valid > 0.5 else 6, -2),
                textcoords="offset points",
                horizontalalignment="right" if point.valid > 0.5 else "left",
                fontsize=7,
            )
    axes.set_xlabel("valid, %")
    axes.set_ylabel("kept, %")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()


def unsurpassed(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both validity and yield."""
    return [
        point
        for point in points
        if not any(
            other.valid >= point.valid
            and other.kept >= point.kept
            and (other.valid, other.kept) != (point.valid, point.kept)
            for other in points
        )
    ]
