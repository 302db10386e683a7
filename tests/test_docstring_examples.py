"""The examples in docstrings are run."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Modules with an example, by the prompt in their text.
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for library in ("minority", "datasets")
    for path in sorted((ROOT / library).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_there_are_at_least_ten_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]

    assert len(found) >= 10


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_say_what_it_does(name):
    results = doctest.testmod(importlib.import_module(name))

    assert results.attempted > 0
    assert results.failed == 0
