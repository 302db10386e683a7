"""Tables of benchmarks: printed as Markdown, kept as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, object]


def markdown(rows: Sequence[Row]) -> str:
    """Rows with the same keys as a Markdown table; floats with three significant digits."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


def keep(folder: Path | None, name: str, *, text: str, content: object) -> None:
    """Write `<name>.md` and `<name>.json` into a folder; None keeps nothing."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(text + "\n")
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
