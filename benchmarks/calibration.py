"""What calibration finds, over several seeds of the search.

    .venv/bin/python -m benchmarks.calibration --preset digits --seeds 2 --budget 1000000

Every seed draws its own candidates and noise. Printed are, for each seed, the winners and the baselines on fresh
indices that no search has seen, with 95 % intervals, and what unseen real images (the validation split) reach under the
same filters. What is measured is kept in the store: an interrupted benchmark goes on where it was.
"""

import argparse
import json

import pandas as pd

from datasets.storage.store import Store
from flows import command_line  # noqa: F401 - sets Prefect's environment before Prefect is imported
from tasks.config.presets import load_preset, parse_overrides
from tasks.config.runs import CalibrateConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--budget", type=int, default=None, help="denoiser evaluations; the preset's where absent")
    parser.add_argument("--store", default="runs/benchmark")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments")
    arguments = parser.parse_args()
    from flows.calibrate import calibrate

    for seed in range(arguments.seeds):
        overrides = parse_overrides(arguments.assignments) | {"seed": seed, "store": arguments.store}
        if arguments.budget is not None:
            overrides["calibration.budget"] = arguments.budget
        summary = calibrate(load_preset(CalibrateConfig, arguments.preset, overrides=overrides))
        confirmed = "confirmed" if summary.confirmed else "not confirmed"
        print(f"\n## Seed {seed}: {summary.winner} ({confirmed} on fresh seeds)\n")
        print(f"By objective: {summary.winners}\n")
        print(f"{summary.samples} samples, {summary.spent:.0f} denoiser evaluations; {summary.folder}\n")
        print(pd.DataFrame(summary.rows).to_markdown(index=False))
        print("\nThe search's last rungs:\n")
        print(finalists(Store(summary.folder)).to_markdown(index=False))


def finalists(store: Store, *, count: int = 8) -> pd.DataFrame:
    """The candidates that were measured most."""
    candidates = json.loads(store.read("result.json"))["candidates"]
    candidates.sort(key=lambda c: (c["measured"]["samples"], c["measured"]["passed"]), reverse=True)
    return pd.DataFrame(
        [
            {
                "candidate": c["name"],
                "samples": c["measured"]["samples"],
                "kept, %": round(100 * c["measured"]["passed"] / max(1, c["measured"]["samples"]), 1),
                "valid, %": round(100 * c["measured"]["valid"] / max(1, c["measured"]["samples"]), 1),
                "evaluations a sample": round(c["measured"]["evaluations"] / max(1, c["measured"]["samples"]), 1),
                "reaches the floors with probability": round(c["floors_probability"], 3),
            }
            for c in candidates[:count]
        ]
    )


if __name__ == "__main__":
    main()
