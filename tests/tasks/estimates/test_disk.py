"""What `minority plan` says of disk, held against runs."""

import pandas as pd
import pytest

from flows.augment import augment
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig
from tasks.estimates.augmentation import forecast
from tasks.estimates.disk import Amounts, bytes_on_disk
from tasks.inputs.real_data import load_real_data


def bytes_in(store):
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def test_what_a_tiny_run_leaves_is_reckoned_from_its_amounts(tiny_config, tmp_path):
    config = tiny_config(downstream=None)
    augment(config)
    rows = pd.read_parquet(next((tmp_path / "store").rglob("metadata.parquet")))
    stages = rows.groupby(["sampler", rows["round"].fillna(0)]).size()

    reckoned = bytes_on_disk(
        config,
        load_real_data(config.dataset),
        Amounts(
            stages=[int(stages["real"].sum()), int(stages["plain"].sum()), *stages["minority"].tolist()],
            candidates=int(stages["minority"].sum()),
            published=int(rows["kept"].sum()),
            trainings=0,
            labelled=False,
        ),
    )

    assert reckoned == pytest.approx(bytes_in(tmp_path / "store"), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "changes"), [("digits", {"downstream": None}), ("digits-pretrained", {})])
def test_the_forecast_of_a_preset_is_what_its_run_leaves(preset, changes, tmp_path):
    config = load_preset(AugmentConfig, preset, overrides={"store": str(tmp_path / "store")} | changes)

    expected = forecast(config).disk
    augment(config)

    assert expected == pytest.approx(bytes_in(tmp_path / "store"), rel=0.1)
