"""The flow that looks for hidden groups, from the command line."""

import re
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.system

TINY = {
    "discovery.models": 1,
    "discovery.budget": {
        "network": {"width": 4},
        "steps": 2,
        "learning_rates": [0.003],
        "weight_decays": [0.03],
        "trials": 1,
    },
}


def test_a_search_ends_with_a_table_and_sheets_and_goes_on_from_what_is_there(minority, as_options, tmp_path):
    command = ["discover", "digits", "--store", tmp_path / "store", *as_options(TINY)]

    first, again = minority(*command), minority(*command)

    assert (first.code, again.code) == (0, 0), first.stderr
    table = Path(re.search(r"table: +(\S+)", first.stdout)[1])
    rows = pd.read_parquet(table)
    assert set(rows["part"]) == {"train", "validation", "test"}
    assert rows["source_id"].is_unique
    assert len(list((table.parent / "sheets").glob("class-*.png"))) == 10
    assert "nothing here says that synthetic images help" in " ".join(first.stdout.split())
    # The second time nothing is trained: no answer is written anew.
    answers = sorted((table.parent / "answers").iterdir())
    assert len(answers) == 2
    assert max(path.stat().st_mtime_ns for path in answers) < (table.parent / "summary.json").stat().st_mtime_ns
    pd.testing.assert_frame_equal(pd.read_parquet(table), rows)


def test_a_wrong_setting_of_a_search_is_told_in_one_line(minority):
    done = minority("discover", "digits", "--set", "discovery.folds=1")

    assert done.code == 2
    assert "DiscoverySettings.folds must be at least 2, got 1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
