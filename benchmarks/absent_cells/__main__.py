"""Combinations without real images: do composed samples of them help a classifier, and does the gate know where?

    nice .venv/bin/python -m benchmarks.absent_cells fashion-mark --data data --draws 10
    nice .venv/bin/python -m benchmarks.absent_cells congress --data data --draws 5 --k 0

Each draw has training images, a backbone, samples and classifiers of its own. What is done lies in --out, so that the
same command goes on where it was cut short; k by k, all draws of the first k before the next. `--report` prints the
tables of what is there and stops. `--gate` makes what the rule of the gate needs, and prints its table alone. The rules
stand in benchmarks/absent_cells/__init__.py.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.absent_cells.congress import Congress
from benchmarks.absent_cells.construction import Source
from benchmarks.absent_cells.fashion_mark import FashionMark
from benchmarks.absent_cells.recipes import fit_oracle, run
from benchmarks.absent_cells.tables import gate_report, report

SETS: dict[str, Callable[[Path], Source]] = {"fashion-mark": FashionMark, "congress": Congress}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds fashion_mnist/, congress/")
    parser.add_argument("--out", type=Path, help="runs/absent-SET unless given")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--only", type=int, nargs="+", help="run these draws, for processes side by side")
    parser.add_argument("--k", type=int, nargs="+", default=[0, 1, 2, 5, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gate", action="store_true", help="hold the rule of the gate against what the cells gain")
    parser.add_argument("--report", action="store_true", help="print what is there, train nothing")
    arguments = parser.parse_args()
    if arguments.only is not None and max(arguments.only) >= arguments.draws:
        parser.error(f"--only {max(arguments.only)} is none of the --draws {arguments.draws}, which count from 0")
    out = arguments.out or Path("runs", f"absent-{arguments.set}")
    torch.set_num_threads(1)
    source = SETS[arguments.set](arguments.data)
    draws = [source.draw(seed, out / f"draw-{seed}") for seed in range(arguments.draws)]
    chosen = draws if arguments.only is None else [draws[seed] for seed in arguments.only]
    if arguments.gate:
        print(gate_report(chosen, arguments.k, seeds=arguments.seeds))
        return
    if not arguments.report:
        oracle = fit_oracle(source)
        for k in arguments.k:
            for draw in chosen:
                run(draw, k, oracle, seeds=arguments.seeds)
    print(report(draws, arguments.k, seeds=arguments.seeds))


if __name__ == "__main__":
    main()
