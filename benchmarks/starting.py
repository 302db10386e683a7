"""What a command that needs no model costs before it has done anything. Prints a Markdown table.

    python -m benchmarks.starting [RUN] [--repeat 5]

Seconds of processor time and the peak of memory, medians over repeats that alternate, and the ratio to a Python that
does nothing. With the folder of a published run its `verify` is measured, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.tables import markdown

_COMMANDS = (["--help"], ["--version"], ["presets"], ["augment", "--help"], ["clean", "--store", "nowhere"])
_MAIN = """
import json, sys
sys.argv = ["minority", *json.loads(sys.argv[1])]
from flows.command_line import main
main()
"""


def cost(code: str, arguments: Sequence[str]) -> tuple[float, float]:
    """Processor seconds, and the peak of memory in MB, of a process that ends well.

    Raises:
        SystemExit: It did not.
    """
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"minority {' '.join(arguments)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="folder of a published run")
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    commands = [*_COMMANDS, *([["verify", f"{chosen.run}/manifest.json"]] if chosen.run else [])]
    programs = {"python -c pass": ("pass", [])} | {f"minority {' '.join(words)}": (_MAIN, words) for words in commands}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(chosen.repeat):
        for name, (code, arguments) in programs.items():
            measured[name].append(cost(code, arguments))
    least = statistics.median(seconds for seconds, _ in measured["python -c pass"])
    rows = []
    for name, costs in measured.items():
        seconds, megabytes = (statistics.median(values) for values in zip(*costs, strict=True))
        rows.append({"command": name, "CPU s": seconds, "times bare Python": seconds / least, "peak MB": megabytes})
    print(markdown(rows))


if __name__ == "__main__":
    main()
