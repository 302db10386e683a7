"""Does `minority discover` find hidden groups? On coloured and marked Fashion-MNIST, where the answer is known.

    .venv/bin/python -m benchmarks.discover --draws 5 --out runs/discover

Every draw colours or marks other images. The attribute is looked at for the figures alone. What is done already is read
from `--out`. Prints Markdown.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.hidden_groups import Construction, HiddenGroups, Part, draw_hidden_groups
from benchmarks.tables import markdown
from minority.discovery.agreement import agreement_with
from minority.discovery.biased_models import fit_and_ask, planned_fits
from minority.discovery.conflicts import of_training
from minority.discovery.settings import DiscoverySettings
from minority.downstream.data import LabelledImages
from tasks.config.paths import data_path

METHODS = ("cross_fitted", "early")
CONSTRUCTIONS: tuple[Construction, ...] = ("colour", "mark")
_CLASSES = 10


def labelled(part: Part) -> LabelledImages:
    """Images and classes, without a trace of the attribute."""
    return LabelledImages(part.images, part.labels, part.labels)


def measure(drawn: HiddenGroups, settings: DiscoverySettings) -> dict[str, float]:
    """Figures of one search."""
    start = time.process_time()
    images, nothing = labelled(drawn.train), labelled(drawn.validation).subset(np.zeros(0, dtype=np.int64))
    answers = [
        fit_and_ask(fit, images, nothing, num_classes=_CLASSES, settings=settings) for fit in planned_fits(settings)
    ]
    found = of_training(answers, images.labels)
    seconds = time.process_time() - start
    values = [str(value) for value in drawn.train.attributes]
    agreed = agreement_with("attribute", values, conflicting=found.conflicting, labels=images.labels)
    assert agreed is not None, "the attribute has several values"
    return {
        "flagged": float(found.conflicting.sum()),
        "conflicts": float(drawn.train.conflicts.sum()),
        "precision": agreed.precision,
        "recall": agreed.recall,
        "seconds": seconds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="data/fashion_mnist", help="Where Fashion-MNIST lies.")
    parser.add_argument("--constructions", nargs="+", choices=CONSTRUCTIONS, default=CONSTRUCTIONS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.01], help="Shares of conflicting images.")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/discover"))
    arguments = parser.parse_args()
    folder = data_path(arguments.folder)
    rows = []
    for construction in arguments.constructions:
        for share in arguments.shares:
            for method in arguments.methods:
                settings = DiscoverySettings(method=method)
                figures = [
                    _kept(arguments.out, folder, construction, share, settings, draw=i) for i in range(arguments.draws)
                ]
                rows.append(_row(construction, share, method, figures))
    print(markdown(rows))


def _kept(
    out: Path, folder: Path, construction: Construction, share: float, settings: DiscoverySettings, *, draw: int
) -> dict[str, float]:
    """The figures of one draw: measured once, then read."""
    path = out / f"{construction}-{share:g}-{settings.method}-{draw}.json"
    if path.is_file():
        figures: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return figures
    figures = measure(draw_hidden_groups(folder, construction, draw=draw, conflict_share=share), settings)
    out.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(figures), encoding="utf-8")
    part.replace(path)
    return figures


def _row(construction: str, share: float, method: str, figures: list[dict[str, float]]) -> dict[str, str]:
    def spread(name: str, scale: float = 1.0, digits: int = 0) -> str:
        values = [scale * found[name] for found in figures]
        return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} ... {max(values):.{digits}f})"

    return {
        "construction": f"{construction}, {share:.1%} conflicting",
        "method": method,
        "draws": str(len(figures)),
        "conflicting of 10,000": f"{figures[0]['conflicts']:.0f}",
        "flagged": spread("flagged"),
        "precision, %": spread("precision", 100),
        "recall, %": spread("recall", 100),
        "CPU seconds": spread("seconds"),
    }


if __name__ == "__main__":
    main()
