"""The charts of the report as inline SVG, and the README's picture as PNG.

Drawn with matplotlib's object interface: flows call this from threads, where pyplot's global figures must not be
touched. matplotlib's settings are global too, so drawing is serialised by a lock and always starts from matplotlib's
own defaults; equal inputs give equal bytes. In the SVG, colours are CSS variables of the page, which knows whether it
is light or dark, and one unit is one pixel.
"""

import io
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from tasks.report.findings import ClassFill, Estimate

# Okabe and Ito's palette, which colour-blind readers can tell apart; each is a variable of the page's style sheet.
COLOURS = {
    "ink": "#1c2024",
    "muted": "#60676f",
    "line": "#d3d7db",
    "real": "#8b939c",
    "recipe": "#009e74",
    "plain": "#0072b2",
    "minority": "#d55e00",
    "other": "#cc79a7",
}
_LOCK = threading.Lock()
_STYLE = {
    "font.size": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "svg.fonttype": "none",
    "svg.hashsalt": "minority",
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLOURS["line"],
    "axes.axisbelow": True,
}
_LONGEST_LABEL = 16  # characters of a group's name beside a bar
_LONGEST_ARM = 34


def colour_of(arm: str) -> str:
    """Name of the colour of an arm or sampler: that of its sampler, or of recipes without synthetic images."""
    if arm in COLOURS:
        return arm
    sources = {"minority": "minority", "unselected": "other", "plain": "plain"}
    return next((colour for source, colour in sources.items() if source in arm), "recipe")


def quota_chart(fills: Sequence[ClassFill]) -> str:
    """Stacked bars a class: real and kept images, and a tick where the quota is."""
    with _drawing():
        figure, axes = _rows_panel(400, 22, names=[fill.name for fill in fills])
        rows = np.arange(len(fills))
        real = np.array([fill.real for fill in fills], dtype=float)
        kept = np.array([fill.kept for fill in fills], dtype=float)
        quotas = np.array([fill.quota for fill in fills], dtype=float)
        axes.barh(rows, real, height=0.62, color=COLOURS["real"])
        axes.barh(rows, kept, height=0.62, left=real, color=COLOURS["minority"])
        axes.vlines(quotas, rows - 0.42, rows + 0.42, color=COLOURS["ink"], linewidth=2)
        axes.set_xlim(0, 1.04 * max(1.0, *(real + kept), *quotas) if fills else 1)
        axes.set_xlabel("images")
        return _svg(figure, "quota")


def share_chart(shares: Mapping[str, Sequence[Estimate]], names: Sequence[str], *, name: str, axis: str) -> str:
    """Grouped bars with intervals: one group a name, one bar in it a sampler or arm.

    Args:
        shares: For each sampler or arm one share for each of the names; NaN where it is unknown.
        names: The groups.
        name: Distinguishes this chart's ids from those of others on the page.
        axis: What the shares are, shown below the axis.
    """
    with _drawing():
        thickness = 0.8 / max(1, len(shares))
        figure, axes = _rows_panel(400, 12 * len(shares) + 10, names=names)
        for position, (arm, estimates) in enumerate(shares.items()):
            values = 100 * np.array([[estimate.value, estimate.low, estimate.high] for estimate in estimates]).reshape(
                -1, 3
            )
            rows = np.arange(len(names)) - 0.4 + (position + 0.5) * thickness
            axes.barh(rows, values[:, 0], height=0.86 * thickness, color=COLOURS[colour_of(arm)])
            axes.hlines(rows, *np.clip(values[:, 1:], 0, 100).T, color=COLOURS["ink"], linewidth=1.2)
        axes.set_xlim(0, 100.5)
        axes.set_xlabel(axis)
        return _svg(figure, name)


def difference_chart(differences: Sequence[tuple[str, Estimate]], name: str, *, names: Callable[[str], str]) -> str:
    """Differences of arms to real only in points, with intervals and a line at 0.

    Args:
        differences: (arm, difference as a share) for each row.
        name: Distinguishes this chart's ids from those of others on the page.
        names: What arms are called.
    """
    with _drawing():
        labels = [names(arm) for arm, _ in differences]
        figure, axes = _rows_panel(390, 24, names=labels, longest=_LONGEST_ARM)
        for row, (arm, difference) in enumerate(differences):
            colour = COLOURS[colour_of(arm)]
            axes.hlines(row, 100 * difference.low, 100 * difference.high, color=colour, linewidth=2.5)
            axes.plot(100 * difference.value, row, marker="o", markersize=7, color=colour)
        axes.axvline(0, color=COLOURS["ink"], linewidth=1)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel("points")
        return _svg(figure, f"difference-{name}")


def histogram(values: Mapping[str, np.ndarray], score: str, *, threshold: float | None = None) -> str:
    """Outlines of the distributions of a score, real filled; a dashed line at the threshold.

    Bins span the middle 99 % of all finite values and the threshold; heights are shares of a population's finite
    values.

    Args:
        values: (N,) values by population; NaN and infinities are left out.
        score: Name of the score.
        threshold: Where the filter cuts, in the score's unit; an infinite one, of a set of equal images, has no line.
    """
    if threshold is not None and not np.isfinite(threshold):
        threshold = None
    finite = {population: scores[np.isfinite(scores)] for population, scores in values.items()}
    pooled = np.concatenate(list(finite.values()))
    ends = [*np.quantile(pooled, [0.005, 0.995]), *([threshold] if threshold is not None else [])]
    low, high = float(min(ends)), float(max(ends))
    pad = 0.02 * (high - low) or 0.5
    fewest = min(len(scores) for scores in finite.values())
    edges = np.linspace(low - pad, high + pad, int(np.clip(2.5 * fewest**0.5, 12, 40)) + 1)
    with _drawing():
        figure, axes = _panel(350, 174, left=50, bottom=24)
        for population, scores in finite.items():
            shares = 100 * np.histogram(scores, edges)[0] / max(1, len(scores))
            colour = COLOURS[colour_of(population)]
            if population == "real":
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.45)
            axes.stairs(shares, edges, color=colour, linewidth=2 if population == "minority" else 1.5)
        if threshold is not None:
            axes.axvline(threshold, color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylabel("% of images")
        axes.locator_params(nbins=6)
        return _svg(figure, f"score-{score}")


def readme_picture(rows: Mapping[str, np.ndarray], labels: Sequence[str]) -> bytes:
    """PNG: one labelled row of images a sampler, the same label and seed in each column.

    Args:
        rows: For each sampler (N, H, W, C) uint8 images, C = 1 or 3.
        labels: N names, one a column.

    Returns:
        PNG bytes, images enlarged without smoothing. With N = 0 the picture says that there are no samples.
    """
    columns = len(labels)
    side = max((max(images.shape[1:3]) for images in rows.values() if len(images)), default=8)
    tile, gap, margin, header = side * max(1, round(72 / side)), 6, 92, 30
    width = margin + max(columns, 4) * (tile + gap) + 10
    height = header + max(1, len(rows)) * (tile + gap) + 8
    with _drawing():
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
        FigureCanvasAgg(figure)
        if columns == 0:
            figure.text(0.5, 0.5, "no samples to show", ha="center", va="center")
        for row, (sampler, images) in enumerate(rows.items() if columns else ()):
            top = header + row * (tile + gap)
            figure.text((margin - 12) / width, 1 - (top + tile / 2) / height, sampler, ha="right", va="center", size=10)
            for column, image in enumerate(images):
                enlarged = np.kron(_rgb(image), np.ones((tile // side, tile // side, 1), dtype=np.uint8))
                bottom = height - top - enlarged.shape[0]
                figure.figimage(enlarged, margin + column * (tile + gap), bottom, origin="upper")
        for column, label in enumerate(labels):
            centre = margin + column * (tile + gap) + tile / 2
            text = _drawable(label, longest=max(4, tile // 8))
            figure.text(
                centre / width, 1 - header / 2 / height, text, ha="center", va="center", size=9, parse_math=False
            )
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    return picture.getvalue()


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


@contextmanager
def _drawing() -> Iterator[None]:
    with _LOCK, matplotlib.style.context(["default", _STYLE]):
        yield


def _panel(width: float, height: float, *, left: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure of one chart; width, height and margins are pixels on the page."""
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)
    right, top = 14, 6
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    axes.tick_params(length=3)
    return figure, axes


def _rows_panel(
    width: float, row_height: float, *, names: Sequence[str], longest: int = _LONGEST_LABEL
) -> tuple[Figure, Axes]:
    """A chart with a named row for each of `names`, first on top, ruled vertically."""
    labels = [_drawable(name, longest=longest) for name in names]
    widest = max((len(label) for label in labels), default=0)
    figure, axes = _panel(width, 56 + row_height * max(1, len(labels)), left=14 + 6.4 * widest, bottom=42)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(max(1, len(labels)) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    return figure, axes


def _drawable(name: str, *, longest: int = _LONGEST_LABEL) -> str:
    """The name, shortened, with "?" for what matplotlib's font has no glyph for; the tables have it in full."""
    glyphs = get_font(findfont(FontProperties())).get_charmap()
    shown = "".join(letter if letter.isprintable() and ord(letter) in glyphs else "?" for letter in name)
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element for the page: scalable, ids its own, colours as CSS variables."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    viewbox = re.search(r'viewBox="[^"]*"', svg)
    assert viewbox, "matplotlib writes a viewBox"
    # Hidden from screen readers: the figure's caption and its table say the same in words.
    svg = re.sub(r"<svg[^>]*>", f'<svg class="chart" aria-hidden="true" {viewbox[0]}>', svg, count=1)
    svg = re.sub(r'(<[^<>]*\bid=")', rf"\1{name}-", svg)
    svg = re.sub(r'(<[^<>]*(?:xlink:href="|url\()#)', rf"\1{name}-", svg)
    for variable, colour in COLOURS.items():
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: var(--{variable})", svg)
    return svg
