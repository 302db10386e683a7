"""Commands that need no model start without one, and say who they are (`benchmarks.starting` measures the time)."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "diffusers", "prefect", "pandas", "sklearn", "matplotlib", "transformers"}
RUN = """
import json, sys
sys.argv = ["minority", *json.loads(sys.argv[1])]
from flows.command_line import main
try:
    main()
except SystemExit as ended:
    code = ended.code
with open("/proc/self/status") as status:  # the peak since this program began, not that of who forked it
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps([code, modules, peak / 1024]), file=sys.stderr)
"""


def run(*arguments):
    """Runs the command in a process of its own: exit code, what it printed, modules, megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([str(argument) for argument in arguments])],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    code, modules, megabytes = json.loads(done.stderr.strip().splitlines()[-1])
    return code or 0, done.stdout, set(modules), megabytes


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["presets"], 0),
        (["augment", "--help"], 0),
        (["presets", "--json"], 0),
        (["verify", "nowhere/manifest.json"], 2),
        (["clean", "--store", "nowhere"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_command_without_a_model_imports_none(arguments, code):
    ended, _, modules, megabytes = run(*arguments)

    assert ended == code
    assert HEAVY & modules == set()
    assert megabytes <= 200


def test_a_sound_set_is_verified_and_its_store_cleaned_without_a_model_and_in_little_memory(undisturbed):
    verified = run("verify", undisturbed.folder / "manifest.json")
    cleaned = run("clean", "--store", undisturbed.store, "--older-than", "0s")

    assert verified[:2] == (0, f"sound: {undisturbed.folder / 'manifest.json'}\n")
    assert cleaned[0] == 0
    assert "nothing was touched" in cleaned[1]
    for _, _, modules, megabytes in (verified, cleaned):
        assert HEAVY & modules == set()
        assert megabytes <= 200


def test_the_version_is_that_of_the_package():
    result = CliRunner().invoke(app, ["--version"])

    assert result.exit_code == 0
    assert result.output.strip() == f"minority-augment {importlib.metadata.version('minority-augment')}"


def test_debug_shows_where_an_error_came_from(monkeypatch):
    monkeypatch.setenv("MINORITY_DEBUG", "")  # so that what the option sets is taken back

    plain, debug = (CliRunner().invoke(app, [*more, "augment", "nope"]) for more in ([], ["--debug"]))

    assert plain.exit_code == debug.exit_code == 2
    assert "Traceback" not in plain.output
    assert "Traceback" in debug.output
    assert "there is no preset augment/nope" in plain.output
