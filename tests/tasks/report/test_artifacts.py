"""What a finished run shows in Prefect: a page that is read without the store."""

from tasks.report.artifacts import verdict_page
from tasks.report.publish import RunSummary

SUMMARY = RunSummary(
    dataset="my_set",
    run_id="aee4acf8d67d",
    manifest="s3://bucket/my_set/runs/aee4acf8d67d/manifest.json",
    report="s3://bucket/my_set/runs/aee4acf8d67d/report/report.html",
    recommendation="Take real + minority.",
    verdict="It gains 2 points.",
    samplers=[{"sampler": "minority", "yield": "46.0%"}],
    arms=[{"recipe": "real | odd", "worst group": "71.0%"}],
    shortfall={f"group={i}": i + 1 for i in range(60)},
    kept=3,
    wanted=40,
    skipped={"real+plain": "the run has no plain image"},
)


def test_the_page_begins_with_what_is_lacking_and_holds_every_table():
    page = verdict_page(SUMMARY)

    lines = [line for line in page.splitlines() if line]
    assert lines[0] == "# my_set aee4acf8d67d"
    assert lines[1] == "**Shortfall: kept 3 of 40 synthetic images.**"
    assert lines[2] == "- group=0 lacks 1"
    assert "and 10 groups more." in lines
    assert "- skipped: real+plain, as the run has no plain image" in lines
    assert page.index("Take real + minority.") < page.index("It gains 2 points.") < page.index("| minority | 46.0% |")
    assert "| real \\| odd | 71.0% |" in lines
    assert "- manifest: s3://bucket/my_set/runs/aee4acf8d67d/manifest.json" in lines
    assert "gallery" not in page


def test_a_run_that_lacks_nothing_says_so_by_saying_nothing():
    whole = RunSummary(**{**vars(SUMMARY), "shortfall": {}, "skipped": {}, "gallery": "/runs/gallery.html"})

    page = verdict_page(whole)

    assert "hortfall" not in page
    assert page.endswith("- gallery: /runs/gallery.html")
