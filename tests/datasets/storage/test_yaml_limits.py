import time

import pytest
import yaml

from datasets.readers.table_settings import read_table_settings
from datasets.storage.yaml_limits import require_bounded_yaml


def laughs(*, levels=9, each=9):
    """Each level is a list of aliases of the one below."""
    lines = [f"a0: &a0 [{', '.join(['lol'] * each)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * each)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merged(levels=30):
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(), "its aliases stand for more than 200000 values; write out what is meant"),
        (merged(), "its aliases stand for more than 200000 values"),
        (laughs(levels=40, each=2), "its aliases stand for more than"),
        ("a: &a [*a]", "an alias in it holds itself"),
        ("a: &a {b: {c: *a}}", "an alias in it holds itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 3000, "nested too deeply"),
        ("x" * 4_000_001, "it has 4000001 characters"),
        ("a: [1", "expected ',' or ']'"),
    ],
    ids=["billion laughs", "merges", "doublings", "itself", "itself below", "lists", "mappings", "long", "no YAML"],
)
def test_a_bomb_is_refused_in_one_line_and_at_once(text, words):
    began = time.monotonic()

    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        require_bounded_yaml(text)

    assert words in str(error.value)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "a: &a {k: 1}\nb: {<<: *a, c: *a}",
        "definitions: &d [1, 2]\nuses: [" + ", ".join(["*d"] * 500) + "]",
        "\n".join(f"- {i}" for i in range(5000)),
    ],
)
def test_what_people_write_passes(text):
    require_bounded_yaml(text)

    yaml.safe_load(text)


def test_the_projects_own_presets_pass(pytestconfig):
    require_bounded_yaml((pytestconfig.rootpath / "prefect.yaml").read_text(encoding="utf-8"))


def test_a_table_file_with_a_bomb_is_named(tmp_path):
    (tmp_path / "set.yaml").write_text(laughs())

    with pytest.raises(ValueError, match=r"set\.yaml is not readable YAML: its aliases stand for more than 200000"):
        read_table_settings(tmp_path / "set.yaml")
