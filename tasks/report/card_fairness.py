"""What training on a run does to classifiers, group by group, as a file of the published folder: report/fairness.md."""

from collections.abc import Mapping
from typing import Any

from datasets.storage.escaping import for_markdown, markdown_table
from tasks.report.verdict import BASE_ARM, name_of_arm

FAIRNESS_FILE = "fairness.md"


def fairness_card(figures: Mapping[str, Any], *, command: str, figures_file: str) -> str | None:
    """Write the card as Markdown.

    Args:
        figures: All figures of the report, as its metrics.json has them.
        command: What makes them again.
        figures_file: Where they lie in the run's folder.

    Returns:
        None where no classifier was trained.
    """
    found = figures.get("downstream")
    if not found or not found["arms"]:
        return None
    arms, metrics = found["arms"], found["metrics"]
    shown = [name for name in dict.fromkeys([BASE_ARM, found["rival"], found["main"]]) if name in arms]
    groups = list(arms[shown[0]]["groups"]) if shown else []
    parts = [
        "# What it does to classifiers",
        for_markdown(str(figures["verdict"])),
        f"Measured on {found['test_images']} real test images, which are not in this folder and chose nothing; "
        f"settings were chosen on {found['validation_images']} validation images. Accuracies are means over "
        f"{found['num_seeds']} trainings, in brackets their 95 % interval.",
        markdown_table(
            ["trained on", *(metric.replace("_", " ") for metric in metrics)],
            [[name_of_arm(name), *(_cell(arm["means"][metric]) for metric in metrics)] for name, arm in arms.items()],
        ),
    ]
    if groups:
        parts += [
            "## Accuracy by group",
            markdown_table(
                ["group", *(name_of_arm(name) for name in shown)],
                [[group, *(_cell(arms[name]["groups"][group]) for name in shown)] for group in groups],
            ),
        ]
    return "\n\n".join([*parts, f"Made by `{command}`; all figures are in `{figures_file}`."]) + "\n"


def _cell(figure: Mapping[str, float | None]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None:
        return "n/a"
    between = "" if low is None or high is None else f" ({low:.1%} ... {min(high, 1):.1%})"
    return f"{value:.1%}{between}"
