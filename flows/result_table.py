"""What a finished run prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from datasets.storage.escaping import for_terminal
from flows.output import result
from tasks.calibration.result import CalibrationSummary
from tasks.discovery.result import DiscoverySummary
from tasks.report.publish import RunSummary
from tasks.review.review_run import ReviewSummary


def show_summary(summary: RunSummary) -> bool:
    """Print what a run left behind, as the command was asked to. Returns whether all came out that was asked for."""
    result(lambda: summary_document(summary), show=lambda: print_summary(summary))
    return summary.complete


def show_review(summary: ReviewSummary) -> bool:
    """Print what a review came to, as the command was asked to. Returns whether all quotas are still filled."""
    counts = {name: getattr(summary, name) for name in ("refused", "filled", "passed_over")}
    report = summary.report
    places = {
        name: getattr(report, name) for name in ("dataset", "run_id", "manifest", "report", "gallery", "shortfall")
    }
    result(lambda: places | counts, show=lambda: _print_review(summary))
    return report.complete


def _print_review(summary: ReviewSummary) -> None:
    print_summary(summary.report)
    _console().print(
        f"{summary.refused} images refused, {summary.filled} filled in; {summary.passed_over} called good that the "
        "rules or the quotas leave out",
        soft_wrap=True,
    )


def summary_document(summary: RunSummary) -> dict[str, Any]:
    """What a run left behind, for --json; the tables for people are left out, as the figures hold what is in them."""
    return {name: value for name, value in vars(summary).items() if name not in ("samplers", "arms")}


def print_summary(summary: RunSummary) -> None:
    """Print unfilled quotas first, then recommendation, figures and verdict, and where manifest and report lie."""
    console = _console()
    if summary.shortfall:
        lacking = ", ".join(f"{group} lacks {count}" for group, count in summary.shortfall.items())
        text = f"shortfall: kept {summary.kept} of {summary.wanted} synthetic images; {lacking}"
        console.print(_plain(text), style="yellow", soft_wrap=True)
    for name, reason in summary.skipped.items():
        console.print(_plain(f"skipped: {name}, as {reason}"), style="yellow", soft_wrap=True)
    if summary.recommendation is not None:
        console.print(_plain(summary.recommendation))
    for title, rows in (
        ("Samplers on the same seeds", summary.samplers),
        ("Classifiers on test images; costs in multiply-adds", summary.arms),
    ):
        if rows:
            console.print(_table(f"{summary.dataset}: {title}", rows))
    console.print(_plain(summary.verdict))
    # Paths are printed whole on one line each, so that they can be copied.
    console.print(_plain(f"manifest: {summary.manifest}"), soft_wrap=True)
    console.print(_plain(f"report:   {summary.report}"), soft_wrap=True)
    if summary.gallery is not None:
        console.print(_plain(f"gallery:  {summary.gallery}"), soft_wrap=True)


def show_calibration(summary: CalibrationSummary) -> bool:
    """Print what a search found, as the command was asked to. Returns whether it found settings."""
    named = ("winner", "winners", "confirmed", "preset", "spent", "samples", "folder", "figures")
    result(lambda: {name: getattr(summary, name) for name in named}, show=lambda: print_calibration(summary))
    return summary.confirmed


def print_calibration(summary: CalibrationSummary) -> None:
    """Print the figures of winner and baselines on fresh seeds, the preset, and where everything lies."""
    console = _console()
    if summary.winner is None:
        text = "shortfall: no settings are sure to reach the floors of validity and diversity; search with a larger "
        console.print(f"{text}budget or space", style="yellow", soft_wrap=True)
    # Wider than a terminal may be: a row that wraps at the edge reads better than cells that are folded.
    wide = _console(width=max(150, console.width))
    wide.print(_table("Winners and baselines on fresh seeds (95 % intervals)", summary.rows))
    if summary.winner is not None:
        confirmed = "" if summary.confirmed else "; on fresh seeds it misses a floor, so search with a larger budget"
        console.print(_plain(f"winner: {summary.winner}{confirmed}"), soft_wrap=True)
        console.print(_plain(summary.preset), soft_wrap=True)
    console.print(_plain(f"spent: {summary.spent:.0f} denoiser evaluations, {summary.samples} samples"))
    console.print(_plain(f"result, picture and preset: {summary.folder}"), soft_wrap=True)


def show_discovery(summary: DiscoverySummary) -> None:
    """Print what a search for hidden groups found, as the command was asked to."""
    named = ("classes", "agreement", "notes", "table", "sheets")
    result(lambda: {name: getattr(summary, name) for name in named}, show=lambda: print_discovery(summary))


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
