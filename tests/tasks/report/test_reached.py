"""The report repeats what headroom found, beside what was reached."""

import json
from dataclasses import replace

import pytest

from minority.downstream.learning_curve import GroupHeadroom
from tasks.inputs.stored_headroom import StoredHeadroom
from tasks.report import render_report


def found_of(group, *, gain=0.05, verdict="more images can help"):
    nothing = float("nan")
    measured = verdict != "too few to measure"
    return GroupHeadroom(
        group=group,
        images=20,
        accuracy=(0.5, 0.6, 0.7),
        gain=gain if measured else nothing,
        interval=(gain - 0.1, gain + 0.1) if measured else (nothing, nothing),
        verdict=verdict,
        reason="",
    )


@pytest.fixture
def headroom():
    groups = [found_of("0"), found_of("9", gain=0.2), found_of("8", verdict="too few to measure")]
    return StoredHeadroom(recipe="oversampling", seeds=5, groups=groups)


def test_a_group_has_its_headroom_and_what_was_reached_over_the_same_recipe(digits_inputs, headroom):
    inputs = replace(digits_inputs(), headroom=headroom)

    files = render_report(inputs)

    told = json.loads(files["metrics.json"])["headroom"]
    arms = json.loads(files["metrics.json"])["downstream"]["arms"]
    rows = {row["group"]: row for row in told["groups"]}
    assert (told["recipe"], told["baseline"]) == ("oversampling", "oversampling")
    for group, row in rows.items():
        without, with_images = (arms[arm]["groups"][group]["value"] for arm in ("oversampling", told["arm"]))
        assert row["reached"] == pytest.approx(with_images - without)
    assert (rows["9"]["gain"], rows["9"]["high"]) == pytest.approx((0.2, 0.3))
    assert rows["8"]["gain"] is None
    page = files["report.html"].decode()
    assert page.count("What more real images could bring, and what these brought") == 1
    assert "minority headroom digits --recipe oversampling --seeds 5" in page
    assert "nan" not in page[page.index("What more real images") : page.index("Metrics by recipe")].lower()


def test_without_headroom_the_report_says_nothing_of_it(digits_inputs):
    files = render_report(digits_inputs())

    assert "headroom" not in json.loads(files["metrics.json"])
    assert "Headroom" not in files["report.html"].decode()


def test_headroom_without_classifiers_is_told_alone(digits_inputs, headroom):
    files = render_report(replace(digits_inputs(), headroom=headroom, results=None))

    assert "headroom" in json.loads(files["metrics.json"])
    assert "What more real images could bring" in files["report.html"].decode()
