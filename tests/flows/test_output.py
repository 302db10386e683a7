"""What a command prints where: results on standard output, as JSON if asked for; all else on standard error."""

import json
import os

import pytest
from typer.testing import CliRunner

from flows.command_line import app
from flows.output import WANTED, note, result
from flows.result_table import show_calibration, show_summary
from flows.shell import errors_in_one_line, fail_if_strict
from tasks.calibration.result import CalibrationSummary
from tasks.errors import InputError, RunIncompleteError
from tasks.report.publish import RunSummary


@pytest.fixture
def wanted():
    """How the command was asked to print; as before afterwards."""
    before = dict(vars(WANTED))
    yield WANTED
    vars(WANTED).update(before)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def summary(**changes):
    given = {
        "dataset": "scans",
        "run_id": "r",
        "manifest": "/data/manifest.json",
        "report": "/data/report.html",
        "recommendation": "Publish balanced shards.",
        "verdict": "not measured.",
        "samplers": [{"sampler": "minority", "yield": "4 %"}],
        "arms": [],
        "shortfall": {},
        "kept": 20,
        "wanted": 20,
    }
    return RunSummary(**given | changes)


def test_numbers_that_are_none_are_null_and_named(wanted, capsys):
    wanted.json = True

    result(lambda: {"a": [1.5, float("nan")], "b": {"c": float("inf"), "d": "x"}}, show=lambda: None)

    printed = json.loads(capsys.readouterr().out)
    assert printed["a"] == [1.5, None]
    assert printed["b"] == {"c": None, "d": "x"}
    assert set(printed["no_figure"]) == {"a.1", "b.c"}


def test_notes_go_to_standard_error_and_nowhere_if_quiet(wanted, capsys):
    note("read 3 images")
    wanted.quiet = True
    note("read 4 images")

    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "note: read 3 images\n")


def test_presets_are_a_document():
    done = run("presets", "--json")

    listed = json.loads(done.stdout)["presets"]
    assert done.stderr == ""
    assert {"flow": "augment", "name": "digits"}.items() <= listed[0].items()


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "behind it"])
def test_options_that_all_commands_share_stand_on_either_side(before):
    done = run("--json", "presets") if before else run("presets", "--json")

    assert json.loads(done.stdout)["presets"]


def test_what_one_command_was_asked_for_is_forgotten_by_the_next(tmp_path, monkeypatch):
    monkeypatch.delenv("MINORITY_CONFIG", raising=False)
    monkeypatch.delenv("MINORITY_DEBUG", raising=False)

    run("presets", "--json", "--quiet", "--debug", "--config", tmp_path / "none.yaml")

    assert vars(WANTED) == {"json": False, "quiet": False, "verbose": False, "strict": False}
    assert "MINORITY_CONFIG" not in os.environ
    assert "MINORITY_DEBUG" not in os.environ


def test_a_shortfall_is_the_first_line_of_the_summary(capsys):
    assert not show_summary(summary(kept=3, shortfall={"tumour": 12, "mole": 5}))

    first = capsys.readouterr().out.splitlines()[0]
    assert first == "shortfall: kept 3 of 20 synthetic images; tumour lacks 12, mole lacks 5"


def test_a_skipped_recipe_is_told_and_nothing_is_when_all_came_out(capsys):
    assert not show_summary(summary(skipped={"real+minority": "the run has no synthetic image of minority"}))
    told = capsys.readouterr().out
    assert show_summary(summary())
    whole = capsys.readouterr().out

    assert told.startswith("skipped: real+minority, as the run has no synthetic image of minority\n")
    assert "shortfall" not in whole + told
    assert "skipped" not in whole


def test_a_summary_is_a_document_with_the_figures_of_the_report(wanted, capsys):
    wanted.json = True

    show_summary(summary(kept=0, shortfall={"a": 20}, figures={"samplers": {"minority": {"yield": {"value": 0.04}}}}))

    printed = json.loads(capsys.readouterr().out)
    assert printed["kept"] == 0
    assert printed["shortfall"] == {"a": 20}
    assert printed["figures"]["samplers"]["minority"]["yield"]["value"] == 0.04


def test_a_search_without_a_winner_says_so_first_and_prints_no_nan(capsys):
    found = CalibrationSummary(
        winner=None,
        winners={"yield": None, "per_evaluation": None},
        confirmed=False,
        preset="",
        rows=[{"sampler": "plain"}],
        spent=10.0,
        samples=3,
        folder="/data",
    )

    assert not show_calibration(found)

    assert capsys.readouterr().out.startswith("shortfall: no settings are sure to reach the floors")


def test_strict_fails_where_less_came_out(wanted):
    import typer

    fail_if_strict(False)
    wanted.strict = True
    fail_if_strict(True)
    with pytest.raises(typer.Exit) as ended:
        fail_if_strict(False)

    assert ended.value.exit_code == 1


def ended(error):
    """Exit code of a command that ends with an error."""
    import typer

    with pytest.raises(typer.Exit) as caught, errors_in_one_line():
        raise error
    return caught.value.exit_code


def library_error():
    """A ValueError that a library raises, with its traceback."""
    try:
        int("three")
    except ValueError as error:
        return error


def failed_by(cause):
    try:
        raise RunIncompleteError("1 of 3 units failed") from cause
    except RunIncompleteError as error:
        return error


def test_bad_input_ends_with_two_and_one_line(capsys):
    assert ended(InputError("no such preset.")) == 2
    assert capsys.readouterr().err == "error: no such preset.\n"


def test_a_run_that_bad_input_ended_is_bad_input(capsys):
    assert ended(failed_by(InputError("a torn file"))) == 2
    assert capsys.readouterr().err == "failed: 1 of 3 units failed\n"


@pytest.mark.parametrize("inside", [False, True], ids=["in the command", "in a unit of a run"])
def test_a_value_error_of_a_library_is_a_bug_with_its_traceback(capsys, inside):
    error = library_error()

    assert ended(failed_by(error) if inside else error) == 1

    told = capsys.readouterr().err
    assert "Traceback" in told
    assert 'int("three")' in told
    assert told.endswith("please report it with the lines above.\n")
    assert "bug: invalid literal for int()" in told


def sampled(backbone, out, *options):
    """The bytes of two samples that `minority sample` draws, and what it printed."""
    done = run("sample", "--backbone", backbone, "--num", 2, "--out", out, "--json", *options)
    assert done.exit_code == 0, done.output
    return [path.read_bytes() for path in sorted(out.glob("0*.png"))], json.loads(done.stdout)


def test_sampler_settings_have_the_names_that_they_have_in_presets(tiny_backbone, tmp_path):
    short = ["--guidance", "name=boost-and-skip", "--guidance", "steps=4", "--guidance", "boost_and_skip.boost=3"]
    whole = [
        "--set",
        "sampler.name=boost-and-skip",
        "--set",
        "sampler.steps=4",
        "--set",
        "sampler.boost_and_skip.boost=3",
    ]

    first, printed = sampled(tiny_backbone, tmp_path / "first", *whole)
    second, _ = sampled(tiny_backbone, tmp_path / "second", *short)
    plain, _ = sampled(tiny_backbone, tmp_path / "plain", "--set", "sampler.steps=4")

    assert first == second != plain
    assert printed["samples"] == 2
    assert printed["evaluations_a_sample"] <= 4
    assert printed["picture"] == str(tmp_path / "first" / "grid.png")


def test_without_a_preset_there_are_settings_of_the_sampler_alone(tiny_backbone, tmp_path):
    done = run("sample", "--backbone", tiny_backbone, "--out", tmp_path / "out", "--set", "plan.quota=3")

    assert done.exit_code == 2
    assert done.stderr.startswith("error: --set plan.quota: without a preset there are settings of sampler alone")


def test_scores_are_summed_up_in_a_document(tiny_backbone, tmp_path):
    sampled(tiny_backbone, tmp_path / "drawn", "--set", "sampler.steps=2")
    (tmp_path / "drawn" / "grid.png").unlink()

    done = run("score", tmp_path / "drawn", "--backbone", tiny_backbone, "--out", tmp_path / "s.parquet", "--json")

    printed = json.loads(done.stdout)
    assert printed["images"] == 2
    assert printed["minority_score"]["smallest"] <= printed["minority_score"]["mean"]


@pytest.mark.parametrize("command", ["plan digits", "describe digits", "clean --store runs", "sample --list"])
def test_figures_are_a_document(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    done = run(*command.split(), "--json")

    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no figure"))
    expected = {"plan": "evaluations", "describe": "counts", "clean": "leftovers", "sample": "samplers"}
    assert expected[command.split()[0]] in printed
