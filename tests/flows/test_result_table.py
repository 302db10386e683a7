"""What a finished run prints: names with brackets are names."""

import pytest

from flows.result_table import print_metrics, print_summary
from flows.shell import require_plain_arguments
from tasks.report.publish import RunSummary


def test_names_are_printed_as_they_are(capsys):
    summary = RunSummary(
        dataset="scans",
        run_id="r",
        manifest="/data/[bold]/manifest.json",
        report="/data/report.html",
        recommendation="Recommendation: collect images: 3 of [i]cell.",
        verdict="label=[/x] is [red]best",
        samplers=[{"sampler": "[/benign]", "yield": "4 %"}],
        arms=[],
        shortfall={"tumour [stage 2]": 3, "a\x1b[2Jb": 1},
    )

    print_summary(summary)

    out = capsys.readouterr().out
    assert out.splitlines()[1] == "Recommendation: collect images: 3 of [i]cell."
    for name in ("[/benign]", "label=[/x] is [red]best", "tumour [stage 2]", "/data/[bold]/manifest.json"):
        assert name in out
    assert r"a\x1b[2Jb" in out
    assert "\x1b[2J" not in out


def test_warnings_of_metrics_are_text(capsys):
    print_metrics({"fid": (1.0, float("nan"), float("nan"))}, ["[/x] holds one image"])

    assert "warning: [/x] holds one image" in capsys.readouterr().out


def test_an_argument_with_control_characters_ends_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["minority", "augment", "\x1b]0;owned\x07X"])

    with pytest.raises(SystemExit) as ended:
        require_plain_arguments()

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the argument")
    assert "\x1b" not in said
