"""What the folder of a run says of classifiers."""

from tasks.report.card_fairness import fairness_card


def figure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def arm(mean, group):
    return {"means": {"worst_group_accuracy": mean}, "groups": {"sex=f|m": group}}


FIGURES = {
    "verdict": "real + minority: worth it",
    "downstream": {
        "arms": {
            "real": arm(figure(0.5, 0.4, 0.6), figure(0.25)),
            "dfr": arm(figure(None), figure(0.3)),
            "real+minority": arm(figure(0.75, 0.7, 1.0000001), figure(0.375)),
        },
        "main": "real+minority",
        "rival": None,
        "metrics": ["worst_group_accuracy"],
        "num_seeds": 5,
        "test_images": 719,
        "validation_images": 31,
    },
}


def test_every_recipe_and_every_group_has_its_accuracy():
    text = fairness_card(FIGURES, command="minority augment pets", figures_file="report/metrics.json")

    assert "| real only | 50.0% (40.0% ... 60.0%) |" in text
    assert "| DFR | n/a |" in text
    assert "(70.0% ... 100.0%)" in text
    assert "| sex=f\\|m | 25.0% | 37.5% |" in text
    assert "719 real test images" in text
    assert "`minority augment pets`; all figures are in `report/metrics.json`" in text


def test_a_run_without_classifiers_has_none():
    assert fairness_card({"verdict": "", "downstream": None}, command="", figures_file="") is None
    assert fairness_card({"verdict": "", "downstream": {"arms": {}}}, command="", figures_file="") is None
