import gc
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset

from flows.augment import augment
from tasks.config.presets import load_preset
from tasks.config.runs import AugmentConfig

pytestmark = pytest.mark.system

SCORES = ["minority_score", "negative_elbo", "knn_distance", "nearest_distance", "realism"]


@pytest.fixture(scope="module")
def manifest(undisturbed):
    return json.loads((undisturbed.folder / "manifest.json").read_text())


@pytest.fixture(scope="module")
def metadata(undisturbed):
    return pd.read_parquet(undisturbed.folder / "metadata.parquet")


@pytest.fixture
def copied(undisturbed, tmp_path):
    """A copy of the finished run: its store and its folder, to do as one likes with."""
    store = Path(shutil.copytree(undisturbed.store, tmp_path / "copy"))
    return store, store / undisturbed.folder.relative_to(undisturbed.store)


def identity(folder):
    """Path -> inode and time of change of every file: a file that was written again has others."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_run_ends_with_a_table_and_the_places_of_manifest_and_report(undisturbed):
    printed, on_the_way = undisturbed.command.stdout, undisturbed.command.on_the_way

    account = "1,797 images: 91 train, 1 validation, 1,618 test, 87 in no part. 87 images: thinned"
    assert on_the_way.startswith(f"note: {account}")
    assert "progress: round 0: " in on_the_way
    assert (
        "| left out: thinned by the long tail (split.imbalance) | 87 |"
        in (undisturbed.folder / "README.md").read_text()
    )
    assert "87 in no part" in (undisturbed.folder / "report" / "report.html").read_text()
    assert f"manifest: {undisturbed.folder / 'manifest.json'}" in printed
    assert f"report:   {undisturbed.folder / 'report' / 'report.html'}" in printed
    assert "real + minority" in printed
    assert undisturbed.command.stderr == ""


def test_the_latest_pointer_leads_to_the_manifest(undisturbed):
    latest = json.loads((undisturbed.store / "digits" / "latest.json").read_text())

    assert latest["run_id"] == undisturbed.folder.name


def test_verify_finds_a_published_run_sound(undisturbed, minority):
    checked = minority("verify", undisturbed.folder / "manifest.json")

    assert (checked.code, checked.stderr) == (0, "")
    assert checked.stdout.startswith("sound: ")


@pytest.mark.parametrize("damage", ["flip a byte", "delete a shard", "delete a row"])
def test_verify_names_the_damaged_file_and_fails(copied, minority, damage):
    _, folder = copied
    shard = sorted((folder / "shards").iterdir())[1]
    named = shard
    if damage == "flip a byte":
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "delete a shard":
        shard.unlink()
    else:
        named = folder / "metadata.parquet"
        pd.read_parquet(named).iloc[1:].to_parquet(named)

    checked = minority("verify", folder / "manifest.json")

    assert checked.code == 1
    assert f"{named.relative_to(folder)}: " in checked.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_shards_open_with_bare_webdataset(undisturbed, manifest, metadata):
    urls = [str(undisturbed.folder / shard["path"]) for shard in manifest["shards"]]

    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    gc.collect()  # its open files, while that is forgiven

    labels = metadata.set_index("key")["label"]
    assert len(urls) > 1
    assert len(samples) == sum(shard["num_samples"] for shard in manifest["shards"])
    assert all(sample["png"].shape == (8, 8, 3) for sample in samples)
    assert [sample["cls"] for sample in samples] == [labels[sample["__key__"]] for sample in samples]
    assert {sample["json"]["source"] for sample in samples} == {"real", "synthetic"}


def test_bare_pandas_tells_what_became_of_every_candidate(metadata, manifest):
    candidates = metadata[(metadata["source"] == "synthetic") & (metadata["sampler"] == "minority")]

    assert metadata["key"].is_unique
    assert metadata["reason"].notna().all()
    assert (candidates["kept"] == (candidates["reason"] == "kept")).all()
    assert set(candidates["reason"]) >= {"kept", "label lost"}
    assert candidates[[*SCORES, "rare", "valid", "new", "label_kept", "seed", "guidance"]].notna().all().all()
    assert sorted(candidates["sample_index"]) == list(range(len(candidates)))
    assert metadata.loc[metadata["kept"], "shard"].isin([shard["path"] for shard in manifest["shards"]]).all()
    assert metadata.loc[~metadata["kept"], "shard"].isna().all()


def test_no_group_gets_more_than_its_quota_and_the_shortfall_is_told(metadata, manifest):
    kept = metadata[metadata["kept"] & (metadata["source"] == "synthetic")]["group"].value_counts()

    for group, quota in manifest["quotas"].items():
        assert quota["kept"] == kept.get(group, 0) == quota["asked"] - quota["shortfall"]
    assert sum(quota["kept"] for quota in manifest["quotas"].values()) > 0


def test_a_run_needed_more_than_one_round(metadata):
    assert set(metadata.loc[metadata["sampler"] == "minority", "round"]) == {0, 1}


def test_the_manifest_holds_the_resolved_settings_the_backbone_and_the_versions(manifest, tiny_overrides):
    assert manifest["config"]["sampler"]["steps"] == tiny_overrides["sampler.steps"]
    preset = load_preset(AugmentConfig, "digits")
    assert manifest["config"]["sampler"]["self_guidance"]["scale"] == preset.sampler.self_guidance.scale
    assert len(manifest["backbone"]["sha256"]) == 64
    assert {"torch", "numpy", "diffusers"} <= set(manifest["versions"])


def test_the_same_command_again_makes_nothing_anew(copied, augment_tiny, contents):
    store, folder = copied
    before, units, trials = contents(store), identity(folder / "units"), identity(folder / "downstream")

    again = augment_tiny(store)

    assert (again.code, again.stderr) == (0, "")
    assert identity(folder / "units") == units
    # The table of results is summed up again from the trials, to the same bytes.
    assert {path: seen for path, seen in identity(folder / "downstream").items() if path.name != "results.parquet"} == {
        path: seen for path, seen in trials.items() if path.name != "results.parquet"
    }
    assert contents(store) == before


def test_other_classifiers_reuse_the_images_and_leave_the_dataset_alone(copied, augment_tiny, contents):
    store, folder = copied
    before, units = contents(store), identity(folder / "units")

    again = augment_tiny(store, {"downstream.seeds": 2, "downstream.budget.steps": 3})

    after = contents(store)
    assert (again.code, again.stderr) == (0, "")
    assert identity(folder / "units") == units
    # Four arms, each tuned once and tested with every seed; and a table of results.
    assert len([path for path in after if "/downstream/" in path]) == 4 * (1 + 1) + 1 + 4 * (1 + 2) + 1
    assert {path: data for path, data in after.items() if path in before and "/report/" not in path} == {
        path: data for path, data in before.items() if "/report/" not in path
    }


def test_several_units_a_task_run_give_the_same_bytes(augment_tiny, undisturbed, contents, tmp_path):
    grouped = augment_tiny(tmp_path / "store", {"units_a_task": 3})

    assert (grouped.code, grouped.stderr) == (0, "")
    assert contents(tmp_path / "store") == contents(undisturbed.store)


def test_a_store_made_by_another_recipe_is_refused_and_left_alone(copied, augment_tiny, contents):
    store, folder = copied
    before = contents(store)

    refused = augment_tiny(store, {"run_id": folder.name, "seed": 1})

    assert refused.code == 2
    assert refused.stderr.count("\n") == 1
    assert f"holds samples of recipe {folder.name}, this run is recipe " in refused.stderr
    assert contents(store) == before


def test_a_unit_that_the_store_refuses_ends_the_run_by_name_and_the_rerun_completes(
    prefect_api, tiny_config, undisturbed, contents
):
    config = tiny_config()
    folder = Path(config.store) / undisturbed.folder.relative_to(undisturbed.store)
    blocked = folder / "units" / "minority-00-00001.tar"
    blocked.mkdir(parents=True)  # the store cannot write the unit's tar over a folder

    failed = augment(config, return_state=True)

    assert failed.is_failed()
    assert "minority-00-00001 of 4 units failed for a reason that the others share" in failed.message
    assert str(blocked) in failed.message
    assert not (folder / "manifest.json").exists()
    assert not (Path(config.store) / "digits" / "latest.json").exists()
    done = identity(folder / "units")
    assert not [path for path in done if path.name == "minority-00-00001.json"]

    blocked.rmdir()
    completed = augment(config, return_state=True)

    assert completed.is_completed()
    assert {path: was for path, was in identity(folder / "units").items() if path in done} == done
    assert contents(config.store) == contents(undisturbed.store)


def test_overrides_change_a_deployed_config_and_wrong_ones_end_failed(prefect_api, tiny_config, tmp_path):
    config = tiny_config()

    failed = augment(config, overrides={"sampler.stepz": 3}, return_state=True)

    assert failed.is_failed()
    assert "sampler.stepz is not a setting; did you mean steps" in failed.message
    assert not Path(config.store).exists()


#: Every score of an image, and the least and the greatest that it can be.
RANGES = {
    "minority_score": (0, np.inf),
    "negative_elbo": (-np.inf, np.inf),  # bits/dim, of a density
    "knn_distance": (0, np.inf),
    "nearest_distance": (0, np.inf),
    "lof": (0, np.inf),
    "rarity_score": (0, np.inf),  # infinite outside of every neighbourhood
    "realism": (0, np.inf),
    "copy_ratio": (0, 1),
    "label_agreement": (0, 1),
    "p_real": (0, 1),
    "label_probability": (0, 1),
    "label_margin": (-1, 1),
    "knn_distance_quantile": (0, 1),
    "realism_quantile": (0, 1),
    "lof_quantile": (0, 1),
    "p_real_quantile": (0, 1),
    "label_probability_quantile": (0, 1),
    "label_margin_quantile": (0, 1),
    "rarity_score_quantile": (0, 1),
    "copy_ratio_quantile": (0, 1),
    "minority_score_quantile": (0, 1),
    "negative_elbo_quantile": (0, 1),
}


def test_where_a_discriminator_evaluates_every_candidate_has_every_score_in_its_range(augment_tiny, tmp_path):
    finished = augment_tiny(
        tmp_path / "store",
        {
            "selection.held_out": {"discriminator": {"folds": 2, "classifier": {"steps": 3}}},
            "plan.max_rounds": 1,
            "downstream.arms": ["real"],
        },
    )

    assert finished.code == 0, finished.stderr
    (file,) = tmp_path.rglob("metadata.parquet")
    rows = pd.read_parquet(file)
    synthetic, real = rows[rows["source"] == "synthetic"], rows[rows["source"] == "real"]
    candidates = synthetic[synthetic["sampler"] == "minority"]
    assert len(candidates) > 0
    for name, (least, greatest) in RANGES.items():
        assert synthetic[name].notna().all(), name
        assert synthetic[name].between(least, greatest).all(), name
    assert np.isfinite(synthetic[[*RANGES]].drop(columns="rarity_score").to_numpy()).all()
    assert (synthetic["nearest_distance"] <= synthetic["knn_distance"]).all()
    assert (synthetic["label_margin"] <= synthetic["label_probability"]).all()
    assert (np.isinf(synthetic["rarity_score"]) == (synthetic["realism"] < 1)).all()
    assert set(candidates["near_duplicate_group"]) <= set(candidates["key"])
    assert synthetic["nearest_source_id"].isin(real["source_id"]).all()
    # The real images' own scores are in the table too: quantiles are shares of those, ties counting half.
    for name in ("knn_distance", "realism", "lof", "rarity_score"):
        own, theirs = real[name].to_numpy(), synthetic[name].to_numpy()[:, None]
        shares = ((own < theirs).mean(axis=1) + (own <= theirs).mean(axis=1)) / 2
        np.testing.assert_allclose(synthetic[f"{name}_quantile"], shares, atol=1e-6, err_msg=name)
    assert real[[name for name in RANGES if name.endswith("_quantile")]].isna().all().all()
