"""Commands that need no model start without one, and say who they are."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app

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
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["presets"], 0),
        (["augment", "--help"], 0),
        (["verify", "nowhere/manifest.json"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_command_without_a_model_imports_none(arguments, code):
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(arguments)], capture_output=True, text=True, check=True, cwd=ROOT
    )

    ended, modules = json.loads(done.stderr.strip().splitlines()[-1])
    assert (ended or 0) == code, done.stderr
    assert HEAVY & set(modules) == set()


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
