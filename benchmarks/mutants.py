"""Would the tests notice? Small faults are put into a module, one at a time, and the tests beside it are run.

    python3 -m venv ENV && ENV/bin/pip install cosmic-ray
    .venv/bin/python -m benchmarks.mutants ENV/bin/python minority/diffusion/schedule.py:tests/minority/diffusion

The faults are those of cosmic-ray, which lives in an environment of its own; a seeded sample of them is tried. Those in
type annotations are left out, since nothing obeys them. Every fault runs in a fork of a process that has imported the
libraries already, in a copy of the project, so that one costs no more than its tests. Prints the faults that no test
noticed, and the share that was.
"""

import argparse
import ast
import difflib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Run by cosmic-ray's python: faults of a file in a seeded order, a line of JSON each: operator, source with the fault.
_FAULTS = """
import json, random, sys
from pathlib import Path
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

source = Path(sys.argv[1]).read_text(encoding="utf-8")
nodes, places = list(ast_nodes(get_ast(source))), []
for name in sorted(operator_names()):
    if not name.startswith("core/Variable"):  # they need to be told names
        operator = get_operator(name)()
        places += [(name, i) for i in range(sum(len(list(operator.mutation_positions(node))) for node in nodes))]
random.Random(int(sys.argv[2])).shuffle(places)
for name, i in places:
    print(json.dumps([name, mutate_code(source, get_operator(name)(), i)]), flush=True)
"""
#: What the tests of the latest fault printed.
_LOG = "mutants.log"
_OPTIONS = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow and not gpu")
_QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # plugins that libraries have imported already


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    operator: str
    source: str

    def change(self, original: str) -> str:
        """The lines that differ, with their number."""
        lines = difflib.unified_diff(original.splitlines(), self.source.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


def faults(python: str, module: Path, *, count: int, seed: int) -> list[Mutant]:
    """At most so many faults of a module that change what it does, by chance."""
    known, found = {_meaning(module.read_text(encoding="utf-8"))}, []
    command = [python, "-c", _FAULTS, str(module), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None, "a pipe"
        for line in process.stdout:
            operator, source = json.loads(line)
            meaning = None if source is None else _meaning(source)
            if meaning is not None and meaning not in known:
                known.add(meaning)
                found.append(Mutant(operator, source))
            if len(found) == count:
                process.kill()
                break
    return found


def _meaning(source: str) -> str | None:
    """The syntax tree without annotations; None where it is no Python, as where a `*` among parameters is changed."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def copy_of_project(folder: Path) -> None:
    """Copy all files that git knows or would add."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and Path(name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, folder / name)


def import_libraries() -> None:
    """Import once what tests import again and again; no plugin of pytest, which wants to import its plugins itself."""
    import diffusers  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pytest  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch
    from diffusers import UNet2DModel  # noqa: F401

    torch.set_num_threads(1)


def passes(folder: Path, tests: Sequence[str], *, seconds: int) -> bool:
    """Whether the tests pass in a fork, in so many seconds of processor time."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        elsewhere = [path for path in sys.path if path not in ("", str(Path.cwd()))]
        os.chdir(folder)
        sys.path[:] = [str(folder), *elsewhere]
        sys.dont_write_bytecode = True
        with (folder / _LOG).open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = 1
        try:
            import pytest

            code = int(pytest.main([*_OPTIONS, *_QUIET, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def survivors(mutants: Sequence[Mutant], module: Path, tests: Sequence[str], *, seconds: int) -> Iterator[Mutant]:
    """The faults that no test notices.

    Raises:
        SystemExit: The tests fail without any fault.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_of_project(folder)
        if not passes(folder, tests, seconds=seconds):
            raise SystemExit(f"{', '.join(tests)} fail without any fault:\n{(folder / _LOG).read_text()[-2000:]}")
        for mutant in mutants:
            (folder / module).write_text(mutant.source, encoding="utf-8")
            if passes(folder, tests, seconds=seconds):
                yield mutant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="of the environment with cosmic-ray")
    parser.add_argument("pairs", nargs="+", metavar="MODULE:TESTS", help="a file, and files or folders, by commas")
    parser.add_argument("--sample", type=int, default=50, help="faults to try in a module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=60, help="of processor time for the tests of a fault")
    arguments = parser.parse_args()
    import_libraries()
    for pair in arguments.pairs:
        name, _, tests = pair.partition(":")
        original = Path(name).read_text(encoding="utf-8")
        chosen = faults(arguments.python, Path(name), count=arguments.sample, seed=arguments.seed)
        missed = 0
        for mutant in survivors(chosen, Path(name), tests.split(","), seconds=arguments.seconds):
            missed += 1
            print(f"{mutant.operator}\n{mutant.change(original)}", flush=True)
        noticed = len(chosen) - missed
        print(f"{name}: {noticed} of {len(chosen)} noticed ({100 * noticed / len(chosen):.0f} %)", flush=True)


if __name__ == "__main__":
    main()
