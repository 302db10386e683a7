"""Where synthetic images pay, with training draws as the unit.

    .venv/bin/python -m benchmarks.draws digits-pool --draws 5 --out runs/draws

Every draw has a split, a backbone and a generation seed of its own. Recipes are tuned and chosen on validation images;
test images are looked at once. What is done already is read from `--out`: the same command goes on where it was cut
short. Prints a table in Markdown and writes it beside the results. The rule of the verdicts is in docs/draws.md.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.draws.construction import Construction
from benchmarks.draws.hidden import hidden
from benchmarks.draws.results import DrawResult
from benchmarks.draws.run import run_draw
from benchmarks.draws.sets import celeba_blond_male, digits_pool, fashion_pool
from benchmarks.draws.table import markdown

#: By name: a function that makes the construction, so that no set is read that is not asked for.
CONSTRUCTIONS: Mapping[str, Callable[[Path], Construction]] = {
    "digits-pool": lambda data: digits_pool(),
    "digits-pool-10": lambda data: digits_pool(largest=10),
    "fashion-pool": lambda data: fashion_pool(data, largest=300),
    "fashion-pool-30": lambda data: fashion_pool(data, largest=30),
    "hidden-colour": lambda data: hidden(data, "colour", samples=100),
    "hidden-colour-real": lambda data: hidden(data, "colour", samples=0),
    "hidden-mark": lambda data: hidden(data, "mark", samples=100),
    "hidden-mark-real": lambda data: hidden(data, "mark", samples=0),
    "celeba-blond-male": celeba_blond_male,
}


def main() -> None:
    """Run the draws that are asked for and print what all finished ones say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("construction", choices=sorted(CONSTRUCTIONS))
    parser.add_argument("--draws", type=int, default=5, help="training draws in all")
    parser.add_argument("--only", type=int, nargs="+", help="run these draws, for machines or processes side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/draws"), help="folder of everything that is made")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder that holds fashion_mnist/, celeba/, ..."
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--report", action="store_true", help="run nothing; only print what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    construction = CONSTRUCTIONS[arguments.construction](arguments.data)
    folder = arguments.out / construction.name
    lacking = construction.missing()
    results = []
    for draw in range(arguments.draws):
        found = DrawResult.read(folder / f"draw-{draw}" / "result.npz")
        wanted = not arguments.report and (arguments.only is None or draw in arguments.only)
        if found is None and wanted and lacking is None:
            found = run_draw(construction, draw, folder / f"draw-{draw}", device=arguments.device, say=_say)
        if found is not None:
            results.append(found)
    text = markdown(construction, results, lacking=lacking)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(text)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
