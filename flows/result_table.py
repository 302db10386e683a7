"""What a finished run prints."""

from rich.console import Console
from rich.table import Table

from tasks.reporting import RunSummary


def print_summary(summary: RunSummary) -> None:
    """Print the result table, unfilled quotas, and where manifest and report lie."""
    console = Console(width=None, soft_wrap=True)
    table = Table(title=f"{summary.dataset}, run {summary.run_id}")
    columns = list(summary.table[0]) if summary.table else []
    for column in columns:
        table.add_column(column)
    for row in summary.table:
        table.add_row(*(row[column] for column in columns))
    console.print(table)
    for group, count in summary.shortfall.items():
        console.print(f"[yellow]quota not filled:[/yellow] {group} lacks {count} images")
    console.print(f"manifest: {summary.manifest}", highlight=False)
    console.print(f"report:   {summary.report}", highlight=False)
