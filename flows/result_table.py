"""What a finished run prints."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tasks.calibration.result import CalibrationSummary
from tasks.report.publish import RunSummary


def print_summary(summary: RunSummary) -> None:
    """Print the figures, the verdict, unfilled quotas, and where manifest and report lie."""
    console = Console()
    for title, rows in (("Samplers on the same seeds", summary.samplers), ("Classifiers on test images", summary.arms)):
        if rows:
            console.print(_table(f"{summary.dataset}: {title}", rows))
    console.print(summary.verdict, highlight=False)
    for group, count in summary.shortfall.items():
        console.print(f"quota not filled: {group} lacks {count} images", style="yellow")
    # Paths are printed whole on one line each, so that they can be copied.
    console.print(f"manifest: {summary.manifest}", highlight=False, soft_wrap=True)
    console.print(f"report:   {summary.report}", highlight=False, soft_wrap=True)


def print_calibration(summary: CalibrationSummary) -> None:
    """Print the figures of winner and baselines on fresh seeds, the preset, and where everything lies."""
    console = Console()
    # Wider than a terminal may be: a row that wraps at the edge reads better than cells that are folded.
    wide = Console(width=max(150, console.width))
    wide.print(_table("Winners and baselines on fresh seeds (95 % intervals)", summary.rows))
    if summary.winner is None:
        console.print(
            "no settings are sure to reach the floors of validity and diversity; search with a larger budget or space",
            style="yellow",
        )
    else:
        confirmed = "" if summary.confirmed else "; on fresh seeds it misses a floor, so search with a larger budget"
        console.print(f"winner: {summary.winner}{confirmed}", highlight=False, soft_wrap=True)
        console.print(summary.preset, highlight=False, soft_wrap=True)
    console.print(f"spent: {summary.spent:.0f} denoiser evaluations, {summary.samples} samples", highlight=False)
    console.print(f"result, picture and preset: {summary.folder}", highlight=False, soft_wrap=True)


def print_metrics(figures: Mapping[str, tuple[float, ...]], warnings: Sequence[str]) -> None:
    """Print a set's figures with their intervals, and what makes them doubtful."""
    console = Console()
    rows = [
        {"metric": name, "value": f"{value:.4g}", "95 % interval": "-" if low != low else f"{low:.4g} ... {high:.4g}"}
        for name, (value, low, high) in figures.items()
    ]
    console.print(_table("Generated against real images", rows))
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def _table(title: str, rows: list[dict[str, str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    return table
