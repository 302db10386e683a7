"""The README's tour is checked: what it names is there."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.command_line import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")), ROOT / "benchmarks" / "README.md"]
PAGES = [page for page in PAGES if page.exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_linked_file_exists(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))

    made_by_the_build = "reference/"  # docs/reference_pages.py; mkdocs looks at these links
    missing = [link for link in links if not link.startswith(made_by_the_build) and not (page.parent / link).exists()]
    assert missing == []


def test_every_folder_of_the_table_exists():
    folders = re.findall(r"^\| `([a-z]+/)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert len(folders) >= 6
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_every_command_of_readme_and_docs_exists():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    commands = set(re.findall(r"\.venv/bin/minority ([a-z-]+)", text))

    assert "augment" in commands
    for command in commands:
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0, command
        assert "Example" in result.output, f"{command} --help shows no example"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))

    assert {"demo", "test"} <= named
    assert named <= targets
