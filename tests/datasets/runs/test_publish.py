import gc
import json
from dataclasses import replace
from itertools import count, cycle

import pandas as pd
import pyarrow as pa
import pytest
import webdataset as wds

from datasets.runs.latest import move_latest, read_latest
from datasets.runs.manifest import Manifest
from datasets.runs.publish import CLAIM_FILE, PublishConflictError, PublishedRunError, publish
from datasets.runs.publish_rows import PublishRows
from datasets.runs.records import WEIGHTS_SCHEMA
from datasets.runs.runs import open_run
from datasets.runs.shards import Sample
from datasets.runs.tables import ROW_GROUP, conform_rows, parse_table, replace_column, table_bytes
from datasets.runs.units import read_unit, write_unit
from datasets.runs.verify import verify
from datasets.storage.canonical import sha256_hex
from datasets.storage.store import Store


def even_weights(rows):
    """A table of weights that gives every published row the weight 1."""
    kept = rows.filter(rows["kept"])
    sources = pa.nulls(kept.num_rows, pa.string())
    columns = [kept["key"], sources, kept["group"], pa.array([1.0] * kept.num_rows, pa.float64())]
    return pa.Table.from_arrays(columns, schema=WEIGHTS_SCHEMA)


def candidates(run):
    """Ten kept rows with their images, and three refused rows."""
    kept = run["rows"](10)
    return pa.concat_tables([kept, run["rows"](3, prefix="x", kept=False)]), run["samples"](kept, run["images"](10))


def publish_small(store, run, *, samples_per_shard=4):
    table, samples = candidates(run)
    return publish(
        store, facts=run["facts"], samples=samples, metadata=table, samples_per_shard=samples_per_shard
    )  # fmt: skip


def test_a_published_run_is_sound(store, small_run):
    manifest = publish_small(store, small_run)

    assert verify(store.url("manifest.json")) == []
    assert store.list() == [
        "README.md",
        "manifest.json",
        "metadata.parquet",
        "shards/pets-000000.tar",
        "shards/pets-000001.tar",
        "shards/pets-000002.tar",
    ]
    assert [shard.num_samples for shard in manifest.shards] == [4, 4, 2]
    assert Manifest.from_json(store.read("manifest.json")) == manifest


def test_the_manifest_counts_classes_and_quotas(store, small_run):
    manifest = publish_small(store, small_run)

    assert manifest.counts == {"cat": {"real": 0, "synthetic": 5}, "dog": {"real": 0, "synthetic": 5}}
    assert manifest.quotas == {
        "class=cat": {"asked": 3, "kept": 5, "shortfall": 0},
        "class=dog": {"asked": 9, "kept": 5, "shortfall": 4},
    }


def test_two_runs_of_one_recipe_are_equal_bytes(tmp_path, small_run):
    for folder in ("here", "somewhere/else"):
        publish_small(Store(tmp_path / folder), small_run)

    first, second = (small_run["bytes_below"](tmp_path / folder) for folder in ("here", "somewhere/else"))
    assert first == second
    assert str(tmp_path) not in first["manifest.json"].decode()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_bare_webdataset_and_bare_pandas_agree(tmp_path, small_run):
    publish_small(Store(tmp_path), small_run)

    shards = sorted(str(path) for path in (tmp_path / "shards").glob("*.tar"))
    samples = list(wds.WebDataset(shards, shardshuffle=False).decode("pil"))
    table = pd.read_parquet(tmp_path / "metadata.parquet").set_index("key")
    gc.collect()

    assert len(samples) == 10
    assert len(table) == 13
    for sample in samples:
        row = table.loc[sample["__key__"]]
        assert sample["cls"] == row["label"]
        assert sample["png"].size == (8, 8)
        assert sample["__url__"].endswith(row["shard"])
    assert table[~table["kept"]]["shard"].isna().all()


def test_rows_give_shard_and_checksum_of_their_image(tmp_path, small_run):
    _, samples = candidates(small_run)
    publish_small(Store(tmp_path), small_run)

    table = pd.read_parquet(tmp_path / "metadata.parquet").set_index("key")

    for position, sample in enumerate(samples):
        assert table.loc[sample.key, "shard"] == f"shards/pets-{position // 4:06d}.tar"
        assert table.loc[sample.key, "image_sha256"] == sha256_hex(sample.png())


def test_the_card_tells_counts_quotas_columns_and_origin(tmp_path, small_run):
    publish_small(Store(tmp_path), small_run)

    card = (tmp_path / "README.md").read_text()

    assert "10 labelled images in 3 WebDataset shards, and one row for each of 13 candidates" in card
    assert "| cat | 0 | 5 | 5 |" in card
    assert "| class=dog | 9 | 5 | 4 |" in card
    assert "`minority_score`: larger is rarer" in card
    assert "pd.read_parquet('metadata.parquet')" in card
    assert "Drawn by a random number generator; CC0." in card


def test_tars_of_an_earlier_attempt_are_removed(store, small_run):
    store.write("shards/pets-000007.tar", b"torn")
    store.write("shards/notes.txt", b"stray")

    publish_small(store, small_run)

    assert verify(store.url("manifest.json")) == []
    assert len(store.list("shards")) == 3


def test_publishing_again_mends_damage_and_gives_the_same_bytes(tmp_path, small_run):
    store = Store(tmp_path)
    publish_small(store, small_run)
    before = small_run["bytes_below"](tmp_path)
    store.write("shards/pets-000001.tar", b"damaged")
    store.remove("metadata.parquet")

    publish_small(store, small_run)

    assert small_run["bytes_below"](tmp_path) == before


def test_a_sound_run_is_not_written_again_and_strays_are_removed_from_it(tmp_path, small_run):
    publish_small(Store(tmp_path), small_run)
    before = small_run["bytes_below"](tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    publish_small(Store(tmp_path), small_run)

    assert {path: path.stat().st_mtime_ns for path in written} == written
    (tmp_path / "shards" / "pets-000009.tar").write_bytes(b"stray")
    publish_small(Store(tmp_path), small_run)
    assert small_run["bytes_below"](tmp_path) == before


def test_a_damaged_card_is_mended_whatever_its_checksum(tmp_path, small_run):
    publish_small(Store(tmp_path), small_run)
    before = small_run["bytes_below"](tmp_path)
    sound = sha256_hex((tmp_path / "README.md").read_bytes())
    damages = [b"damage %d" % number for number in range(64)]

    for is_above in (True, False):
        damage = next(data for data in damages if (sha256_hex(data) > sound) == is_above)
        (tmp_path / "README.md").write_bytes(damage)
        publish_small(Store(tmp_path), small_run)
        assert small_run["bytes_below"](tmp_path) == before


@pytest.mark.parametrize("claim", [b"", b"\xff"])
def test_what_another_publisher_has_claimed_is_left_to_it(tmp_path, small_run, claim):
    store = Store(tmp_path)
    store.create(CLAIM_FILE, claim)
    before = small_run["bytes_below"](tmp_path)

    with pytest.raises(PublishConflictError, match="is being published with other contents by another publisher"):
        publish_small(store, small_run)

    assert small_run["bytes_below"](tmp_path) == before


@pytest.mark.parametrize("budget", range(8))
def test_a_manifest_never_names_what_is_not_there(tmp_path, small_run, budget):
    dying = small_run["dying_store"](tmp_path, [budget])

    with pytest.raises(small_run["killed"]):
        publish_small(dying, small_run)

    store = Store(tmp_path)
    assert not store.exists("manifest.json") or verify(store.url("manifest.json")) == []


def other_rows(run):
    table, samples = candidates(run)
    column = table.schema.get_field_index("minority_score")
    scores = pa.array([1.5, *table["minority_score"].to_pylist()[1:]])
    return {"metadata": table.set_column(column, "minority_score", scores), "samples": samples}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            lambda run: {"facts": replace(run["facts"], recipe="fedcba987654")},
            "recipe 0123456789ab, this is recipe fedc",
        ),
        (lambda run: {"samples_per_shard": 5}, "the same recipe but other rows, other sizes of shards"),
        (other_rows, "the same recipe but other rows"),
        (lambda run: {"weights": even_weights(candidates(run)[0])}, "the same recipe but other rows.*other weights"),
    ],
    ids=["recipe", "shards", "rows", "weights"],
)
def test_a_published_run_is_never_rewritten(tmp_path, small_run, change, difference):
    publish_small(Store(tmp_path), small_run)
    before = small_run["bytes_below"](tmp_path)
    table, samples = candidates(small_run)
    order = {"facts": small_run["facts"], "samples": samples, "metadata": table, "samples_per_shard": 4}

    with pytest.raises(PublishedRunError, match=f"is published with {difference}.*choose another run id"):
        publish(Store(tmp_path), **(order | change(small_run)))

    assert small_run["bytes_below"](tmp_path) == before


def test_a_published_run_keeps_telling_what_made_it(tmp_path, small_run):
    first = publish_small(Store(tmp_path), small_run)
    before = small_run["bytes_below"](tmp_path)
    upgraded = small_run | {"facts": replace(small_run["facts"], versions={"numpy": "3"}, config={"folder": "moved"})}

    assert publish_small(Store(tmp_path), upgraded) == first
    (tmp_path / "shards" / "pets-000000.tar").unlink()
    assert publish_small(Store(tmp_path), upgraded) == first

    assert small_run["bytes_below"](tmp_path) == before


def test_what_cannot_be_made_again_as_it_was_is_named_and_nothing_is_written(tmp_path, small_run):
    publish_small(Store(tmp_path), small_run)
    (tmp_path / "README.md").write_bytes(b"damaged")
    before = small_run["bytes_below"](tmp_path)
    other_words = small_run | {"facts": replace(small_run["facts"], provenance="Drawn by chance.")}

    with pytest.raises(PublishedRunError, match=r"damaged, and README\.md cannot be made again as it was"):
        publish_small(Store(tmp_path), other_words)

    assert small_run["bytes_below"](tmp_path) == before


def test_no_rows_pass_for_others(small_run):
    def digest(rows):
        return PublishRows(lambda: [rows], class_names=["cat", "dog"], name="rows").digest

    rows = small_run["rows"](3)
    names = {"reason": [["kept"] * 3, ["kep", "tkept", "kept"]], "guidance": [["", None, "a"], ["", "", "a"]]}
    names |= {"lof": [[0.0, None, 1.0], [0.0, 0.0, 1.0], [float("nan"), None, 1.0]]}
    names |= {"random_projection": [[[1.0], [2.0], None], [[1.0, 2.0], [], None], [[1.0], [2.0], []]]}
    names |= {"valid": [[True, None, False], [True, False, False]]}
    digests = [
        digest(replace_column(rows, name, values=values)) for name, variants in names.items() for values in variants
    ]

    # "reason" as it was is the same as untouched rows; everything else differs from everything.
    assert len({digest(rows), *digests}) == len(digests)


def test_a_damaged_manifest_is_replaced(store, small_run):
    store.write("manifest.json", b"{")

    publish_small(store, small_run)

    assert verify(store.url("manifest.json")) == []


def whole_run(store, run):
    """From nothing to the pointer: two units, shards of their kept images, manifest, pointer."""
    facts = run["facts"]
    run_store = open_run(store, facts.dataset, facts.run_id, recipe=facts.recipe, config={})
    images, tables = [], []
    for unit in ("u0", "u1"):
        rows = run["rows"](4, prefix=unit, unit=unit)
        write_unit(run_store, unit, run["images"](4, seed=int(unit[1])), rows, recipe=facts.recipe)
        stored_images, stored_rows = read_unit(run_store, unit)
        images += list(stored_images)
        tables.append(stored_rows)
    table = pa.concat_tables(tables)
    samples = run["samples"](table, images)
    publish(run_store, facts=facts, samples=samples, metadata=table, samples_per_shard=5)
    move_latest(store, facts.dataset, facts.run_id)


def test_a_run_killed_between_any_two_writes_ends_the_same_when_run_again(tmp_path, small_run):
    whole_run(Store(tmp_path / "undisturbed"), small_run)
    expected = small_run["bytes_below"](tmp_path / "undisturbed")

    kills = 0
    for budget in count():
        folder = tmp_path / f"killed-{budget}"
        try:
            whole_run(small_run["dying_store"](folder, [budget]), small_run)
        except small_run["killed"]:
            kills += 1
            latest = read_latest(Store(folder), "pets")
            assert latest is None
            whole_run(Store(folder), small_run)
        else:
            break
        assert small_run["bytes_below"](folder) == expected

    # run.json, two units of three files, claim, two shards, table, card, manifest, claim's end, number, pointer
    assert kills == 16


def test_a_full_disk_publishes_nothing(mounted_tmpfs, small_run):
    store = Store(mounted_tmpfs)
    rows = small_run["rows"](40)
    images = small_run["images"](40).repeat(16, axis=1).repeat(16, axis=2)
    store.write("ballast", bytes(180_000))

    with pytest.raises(OSError, match=r"cannot be written: no space left on device; free space there"):
        publish(store, facts=small_run["facts"], samples=small_run["samples"](rows, images), metadata=rows)

    assert not store.exists("manifest.json")


def test_samples_that_die_publish_nothing(store, small_run):
    table, samples = candidates(small_run)

    def dies():
        yield from samples[:6]
        raise small_run["killed"]

    with pytest.raises(small_run["killed"]):
        publish(store, facts=small_run["facts"], samples=dies(), metadata=table, samples_per_shard=4)

    assert not store.exists("manifest.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda samples: samples[:-2], "2 kept rows have no image, first s0008"),
        (lambda samples: [*samples, samples[0]], "sample s0000 comes twice"),
        (
            lambda samples: [*samples, Sample(key="x0000", image=samples[0].image, label=0, record={})],
            "sample x0000 has no row with kept = True",
        ),
        (
            lambda samples: [Sample(key="s0000", image=samples[0].image, label=1, record={}), *samples[1:]],
            "sample s0000 has label 1, its row says 0",
        ),
    ],
)
def test_images_and_kept_rows_must_match_one_to_one(store, small_run, change, message):
    table, samples = candidates(small_run)

    with pytest.raises(ValueError, match=message):
        publish(store, facts=small_run["facts"], samples=change(samples), metadata=table)
    assert not store.exists("manifest.json")


def test_settings_that_make_no_sense_are_refused(store, small_run):
    table, samples = candidates(small_run)
    facts = small_run["facts"]

    with pytest.raises(ValueError, match="samples_per_shard must be at least 1, got 0"):
        publish(store, facts=facts, samples=samples, metadata=table, samples_per_shard=0)
    one_class = type(facts)(**{**facts.__dict__, "class_names": ["cat"]})
    with pytest.raises(ValueError, match="row s0001 has label 1, but 1 classes have names"):
        publish(store, facts=one_class, samples=samples, metadata=table)


def in_parts(table, *, sizes):
    """The table cut into parts of these sizes, again and again, as what publishing calls for rows."""

    def parts():
        start = 0
        for size in cycle(sizes):
            if start >= table.num_rows:
                return
            yield table.slice(start, size)
            start += size

    return parts


@pytest.mark.parametrize("sizes", [[1], [3, 0, 7], [100]])
def test_rows_that_come_in_parts_are_published_as_a_table_is(tmp_path, small_run, sizes):
    publish_small(Store(tmp_path / "whole"), small_run)
    table, samples = candidates(small_run)

    publish(
        Store(tmp_path / "parts"),
        facts=small_run["facts"],
        samples=samples,
        metadata=in_parts(table, sizes=sizes),
        samples_per_shard=4,
    )

    assert small_run["bytes_below"](tmp_path / "parts") == small_run["bytes_below"](tmp_path / "whole")


def test_a_table_that_was_written_in_parts_is_that_written_at_once(tmp_path, small_run):
    count = 2 * ROW_GROUP + 123  # more than one row group, and no round number of them
    refused = small_run["rows"](count, prefix="y", kept=False)
    table, samples = candidates(small_run)
    metadata = in_parts(pa.concat_tables([refused, table]), sizes=[1000, 77])

    publish(Store(tmp_path), facts=small_run["facts"], samples=samples, metadata=metadata)

    assert verify(f"{tmp_path}/manifest.json") == []
    written = (tmp_path / "metadata.parquet").read_bytes()
    assert table_bytes(conform_rows(parse_table(written, name="metadata"), name="metadata")) == written


def test_a_key_that_comes_twice_is_found_across_parts(store, small_run):
    table, samples = candidates(small_run)
    doubled = in_parts(pa.concat_tables([table, table.slice(5, 1)]), sizes=[4])

    with pytest.raises(ValueError, match=r"metadata\.parquet has the key 's0005' twice"):
        publish(store, facts=small_run["facts"], samples=samples, metadata=doubled)

    assert not store.exists("manifest.json")


def test_the_manifest_is_canonical_json(store, small_run):
    publish_small(store, small_run)

    text = store.read("manifest.json").decode()

    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
