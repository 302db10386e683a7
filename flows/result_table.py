"""What a finished run prints."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from datasets.storage.escaping import for_terminal
from tasks.calibration.result import CalibrationSummary
from tasks.discovery.result import DiscoverySummary
from tasks.report.publish import RunSummary


def print_summary(summary: RunSummary) -> None:
    """Print the figures, the verdict, unfilled quotas, and where manifest and report lie."""
    console = _console()
    for title, rows in (("Samplers on the same seeds", summary.samplers), ("Classifiers on test images", summary.arms)):
        if rows:
            console.print(_table(f"{summary.dataset}: {title}", rows))
    console.print(_plain(summary.verdict))
    for group, count in summary.shortfall.items():
        console.print(_plain(f"quota not filled: {group} lacks {count} images"), style="yellow")
    # Paths are printed whole on one line each, so that they can be copied.
    console.print(_plain(f"manifest: {summary.manifest}"), soft_wrap=True)
    console.print(_plain(f"report:   {summary.report}"), soft_wrap=True)
    if summary.gallery is not None:
        console.print(_plain(f"gallery:  {summary.gallery}"), soft_wrap=True)


def print_calibration(summary: CalibrationSummary) -> None:
    """Print the figures of winner and baselines on fresh seeds, the preset, and where everything lies."""
    console = _console()
    # Wider than a terminal may be: a row that wraps at the edge reads better than cells that are folded.
    wide = _console(width=max(150, console.width))
    wide.print(_table("Winners and baselines on fresh seeds (95 % intervals)", summary.rows))
    if summary.winner is None:
        console.print(
            "no settings are sure to reach the floors of validity and diversity; search with a larger budget or space",
            style="yellow",
        )
    else:
        confirmed = "" if summary.confirmed else "; on fresh seeds it misses a floor, so search with a larger budget"
        console.print(_plain(f"winner: {summary.winner}{confirmed}"), soft_wrap=True)
        console.print(_plain(summary.preset), soft_wrap=True)
    console.print(_plain(f"spent: {summary.spent:.0f} denoiser evaluations, {summary.samples} samples"))
    console.print(_plain(f"result, picture and preset: {summary.folder}"), soft_wrap=True)


def print_discovery(summary: DiscoverySummary) -> None:
    """Print what biased models get wrong, how that agrees with known attributes, and where everything lies."""
    console = _console()
    console.print(_table("Training images that biased models take for another class", summary.classes))
    if summary.agreement:
        console.print(_table("Agreement with known attributes, for measuring alone", summary.agreement))
    for note in summary.notes:
        console.print(_plain(note))
    console.print(_plain(f"table:  {summary.table}"), soft_wrap=True)
    console.print(_plain(f"sheets: {summary.sheets}"), soft_wrap=True)


def print_metrics(figures: Mapping[str, tuple[float, ...]], warnings: Sequence[str]) -> None:
    """Print a set's figures with their intervals, and what makes them doubtful."""
    console = _console()
    rows = [
        {"metric": name, "value": _figure(value), "95 % interval": "-" if low != low else f"{low:.4g} ... {high:.4g}"}
        for name, (value, low, high) in figures.items()
    ]
    console.print(_table("Generated against real images", rows))
    for warning in warnings:
        console.print(_plain(f"warning: {warning}"), style="yellow", soft_wrap=True)


def _figure(value: float) -> str:
    """A number; what is none is no figure."""
    return "-" if value != value else f"{value:.4g}"


def _console(width: int | None = None) -> Console:
    """A console that takes no text for markup, and colours nothing by itself."""
    return Console(width=width, markup=False, highlight=False, emoji=False)


def _plain(text: str) -> Text:
    """Text, which may hold names from outside, as it is."""
    return Text(for_terminal(text))


def _table(title: str, rows: list[dict[str, str]]) -> Table:
    table = Table(title=_plain(title), title_justify="left")
    for column in rows[0]:
        table.add_column(_plain(column))
    for row in rows:
        table.add_row(*map(_plain, row.values()))
    return table
