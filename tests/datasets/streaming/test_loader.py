import json
import os
import pickle
import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from datasets import EpochProgress, load_balanced
from datasets.storage.store import Store, StoreError
from datasets.streaming.stream import PublishedStream, StreamSettings
from datasets.streaming.stream_plan import segments

# Seven workers are more than a small machine has cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SIZES = {("cat", "class=cat,fur=1"): 60, ("cat", "class=cat,fur=0"): 9, ("dog", "class=dog,fur=1"): 30}
SYNTHETIC = {"class=cat,fur=0": 12, "class=dog,fur=1": 6}


@pytest.fixture
def published(tmp_path, make_image_set, make_published):
    """117 images in 12 shards: 99 real ones in three groups, 18 synthetic ones."""
    return make_published(tmp_path / "run", make_image_set(SIZES), num_synthetic=SYNTHETIC)


def keys_of(stream, *, num_consumers=1, epoch=0):
    return [
        [sample.key for sample in stream.samples(epoch=epoch, consumer=consumer, num_consumers=num_consumers)]
        for consumer in range(num_consumers)
    ]


def all_keys(manifest):
    return [key for part in keys_of(PublishedStream(manifest, StreamSettings(shuffle_buffer=0))) for key in part]


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    num_consumers=st.integers(1, 25),
    seed=st.integers(0, 9),
)
def test_every_sample_has_exactly_one_consumer_and_shares_differ_by_one_at_most(sizes, num_consumers, seed):
    order = np.random.default_rng(seed).permutation(len(sizes)).tolist()

    shares = [segments(sizes, order, consumer=c, num_consumers=num_consumers) for c in range(num_consumers)]

    taken = [(part.shard, i) for share in shares for part in share for i in range(part.first, part.last)]
    assert sorted(taken) == [(shard, i) for shard, size in enumerate(sizes) for i in range(size)]
    counts = [sum(part.last - part.first for part in share) for share in shares]
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [1, 2, 7])
def test_every_sample_comes_exactly_once_an_epoch(published, num_workers, world_size):
    expected = sorted(all_keys(published))
    assert len(expected) == 117

    for epoch in (0, 1):
        seen = []
        for rank in range(world_size):
            stream = load_balanced(published, order="natural", rank=rank, world_size=world_size, epoch=epoch)
            for batch in DataLoader(stream, batch_size=5, num_workers=num_workers):
                seen += batch["key"]
        assert sorted(seen) == expected


def test_epochs_differ_and_an_epoch_repeats_itself(published):
    stream = PublishedStream(published, StreamSettings(shuffle_buffer=20))

    first, again, second = (keys_of(stream, epoch=epoch)[0] for epoch in (0, 0, 1))

    assert first == again
    assert first != second
    assert sorted(first) == sorted(second)
    assert first != all_keys(published)


def test_images_labels_groups_and_sources_are_those_that_were_published(published, make_image_set):
    images = make_image_set(SIZES)

    for sample in load_balanced(published, order="natural"):
        assert sample["image"].dtype == torch.uint8
        assert sample["image"].shape == (1, 8, 8)
        if sample["source"] == "real":
            index = int(sample["key"].removeprefix("real-"))
            np.testing.assert_array_equal(sample["image"].numpy().transpose(1, 2, 0), images.image(index))
            assert sample["label"] == images.labels[index]
            assert sample["group"] == images.groups[index]


def test_balanced_order_shows_every_group_equally_often(published):
    stream = load_balanced(published, order="balanced", seed=3)

    counts = Counter(sample["group"] for epoch in range(20) for sample in at_epoch(stream, epoch))

    assert stream.expected_samples == pytest.approx(180)
    # Each group is drawn 60 times an epoch on average; the last repeat of a sample is decided by a coin, at most 36 of
    # them an epoch and group: 4 standard deviations over 20 epochs.
    for count in counts.values():
        assert abs(count - 1200) < 4 * (20 * 36 * 0.25) ** 0.5
    assert counts["class=cat,fur=1"] == 1200


def at_epoch(stream, epoch):
    stream.set_epoch(epoch)
    return list(stream)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_synthetic_images_is_as_asked_and_no_image_comes_twice(published, share):
    stream = load_balanced(published, order="natural", synthetic_share=share)

    samples = [sample for epoch in range(10) for sample in at_epoch(stream, epoch)]

    sources = Counter(sample["source"] for sample in samples)
    assert sources["synthetic"] / len(samples) == pytest.approx(share, abs=0.05)
    one_epoch = [sample["key"] for sample in at_epoch(stream, 0)]
    assert len(set(one_epoch)) == len(one_epoch)


def test_the_share_holds_within_every_group_that_has_both_sources(published):
    stream = load_balanced(published, synthetic_share=0.5)

    counts = Counter((s["group"], s["source"]) for epoch in range(20) for s in at_epoch(stream, epoch))

    for group in SYNTHETIC:
        total = counts[group, "real"] + counts[group, "synthetic"]
        assert counts[group, "synthetic"] / total == pytest.approx(0.5, abs=0.05)
    assert counts["class=cat,fur=1", "synthetic"] == 0


@pytest.mark.parametrize("order", ["natural", "balanced"])
@pytest.mark.parametrize(("num_workers", "batches"), [(0, 3), (2, 5), (2, 1), (3, 9)])
def test_an_interrupted_epoch_goes_on_without_loss_or_repetition(published, order, num_workers, batches):
    def open_stream(resume=None):
        return load_balanced(published, order=order, epoch=4, shuffle_buffer=16, resume=resume)

    whole = Counter(sample["key"] for sample in interleaved(open_stream(), num_workers))
    progress = EpochProgress()
    before = Counter()
    for batch in islice(DataLoader(open_stream(), batch_size=7, num_workers=num_workers), batches):
        progress.add(batch)
        before.update(batch["key"])
    state = json.loads(json.dumps(progress.state()))

    after = Counter(sample["key"] for sample in interleaved(open_stream(resume=state), num_workers))

    assert sum(before.values()) == 7 * batches
    assert before + after == whole


def interleaved(stream, num_workers):
    return (
        {"key": key}
        for batch in DataLoader(stream, batch_size=7, num_workers=num_workers)
        for key in batch["key"]
    )  # fmt: skip


def test_with_one_worker_the_order_after_an_interruption_is_that_of_the_whole_epoch(published):
    whole = [sample["key"] for sample in load_balanced(published, seed=1)]
    progress = EpochProgress()
    for sample in islice(load_balanced(published, seed=1), 50):
        progress.add(sample)

    rest = [sample["key"] for sample in load_balanced(published, seed=1, resume=progress.state())]

    assert whole[50:] == rest


def test_the_epoch_after_a_resumed_one_is_whole(published):
    progress = EpochProgress()
    for sample in islice(load_balanced(published, order="natural"), 50):
        progress.add(sample)
    stream = load_balanced(published, order="natural", resume=progress.state())

    assert len(list(stream)) == 67
    assert len(at_epoch(stream, 1)) == 117


def test_resuming_with_another_number_of_workers_is_refused(published):
    progress = EpochProgress()
    for batch in DataLoader(load_balanced(published), batch_size=4, num_workers=2):
        progress.add(batch)

    with pytest.raises(ValueError, match=r"begun with 2 workers in all, now there are 1; resume with as many"):
        list(load_balanced(published, resume=progress.state()))


def test_a_transform_is_applied_to_each_image(published):
    stream = load_balanced(published, transform=lambda image: image.float().mean())

    batch = next(iter(DataLoader(stream, batch_size=4)))

    assert batch["image"].shape == (4,)


def test_a_stream_can_be_sent_to_another_process(published):
    stream = load_balanced(published, order="natural")

    assert [s["key"] for s in pickle.loads(pickle.dumps(stream))] == [s["key"] for s in stream]


def test_streams_come_from_object_stores_too(make_image_set, make_published):
    manifest = make_published("memory://loader-test/run", make_image_set(SIZES))

    assert len(list(load_balanced(manifest, order="natural"))) == 99
    Store("memory://loader-test").remove_tree("run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "sorted"}, "order must be natural or balanced, got 'sorted'"),
        ({"synthetic_share": 1.5}, r"synthetic_share must be in \[0, 1\] or None, got 1.5"),
        ({"shuffle_buffer": -1}, "shuffle_buffer must be at least 0, got -1"),
        ({"open_shards": 0}, "open_shards must be at least 1, got 0"),
        ({"rank": 0}, "rank and world_size belong together"),
        ({"rank": 2, "world_size": 2}, "rank must be in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(published, settings, message):
    with pytest.raises(ValueError, match=message):
        load_balanced(published, **settings)


def test_a_share_of_what_is_not_there_is_refused(tmp_path, make_image_set, make_published):
    manifest = make_published(tmp_path, make_image_set(SIZES))

    with pytest.raises(ValueError, match="the set has no synthetic image"):
        load_balanced(manifest, order="natural", synthetic_share=0.5)


def test_a_shard_that_lost_or_gained_samples_is_named(published):
    folder = Path(published).parent / "shards"
    shards = sorted(folder.iterdir())
    shards[-1].write_bytes(shards[0].read_bytes())

    with pytest.raises(ValueError, match=r"toy-000011\.tar has 40960 bytes, the manifest says 30720; verify"):
        list(load_balanced(published, order="natural"))

    shards[-1].write_bytes(shards[-1].read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"toy-000011\.tar has 4000 bytes, the manifest says 30720"):
        list(load_balanced(published, order="natural"))


def flip_label(shard):
    """Flip the lowest bit of a label in a tar: a digit becomes its neighbour. Returns the sample's key."""
    with tarfile.open(shard) as tar:
        labels = [member for member in tar if member.name.endswith(".cls")]
    member = labels[-1]
    content = bytearray(shard.read_bytes())
    content[member.offset_data] ^= 1
    shard.write_bytes(content)
    return member.name.split(".")[0]


@pytest.mark.parametrize("order", ["natural", "balanced"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_of_a_shard_with_a_flipped_label_no_sample_is_given(published, order, num_workers):
    shard = Path(published).parent / "shards" / "toy-000003.tar"
    with tarfile.open(shard) as tar:
        inside = {member.name.split(".")[0] for member in tar}
    flip_label(shard)
    stream = load_balanced(published, order=order, shuffle_buffer=0)
    seen = set()

    def train():
        seen.update(sample["key"] for sample in DataLoader(stream, batch_size=None, num_workers=num_workers))

    with pytest.raises(ValueError, match=r"toy-000003\.tar is not the file whose SHA-256 the manifest gives; verify"):
        train()

    assert not seen & inside


def test_a_shard_is_checked_once_a_process(published):
    shard = Path(published).parent / "shards" / "toy-000003.tar"
    stream = load_balanced(published, order="natural")
    first = sorted(sample["key"] for sample in stream)
    flip_label(shard)  # after it was found sound

    assert sorted(sample["key"] for sample in stream) == first
    with pytest.raises(ValueError, match=r"toy-000003\.tar is not the file"):
        list(load_balanced(published, order="natural"))


@pytest.mark.parametrize("path", ["shards/toy-000003.tar", "metadata.parquet", "manifest.json"])
def test_a_pipe_in_a_files_place_is_named_and_blocks_nobody(published, path):
    place = Path(published).parent / path
    place.unlink()
    os.mkfifo(place)

    with pytest.raises(
        StoreError, match=rf"{path} cannot be read: it is a pipe, no plain file; put a plain file in its"
    ):
        list(load_balanced(published, order="balanced"))


def test_a_damaged_table_decides_no_balance(published):
    table = Path(published).parent / "metadata.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 4
    table.write_bytes(content)

    with pytest.raises(ValueError, match=r"metadata\.parquet is not the file whose SHA-256 the manifest gives; verify"):
        load_balanced(published, order="balanced")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), order=st.sampled_from(["natural", "balanced"]))
def test_a_corrupted_shard_is_one_clear_line_or_every_sample_is_there(published, data, order):
    path = Path(published).parent / "shards" / "toy-000003.tar"
    original = path.read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))])

    refusal, seen = "", set()
    try:
        for sample in PublishedStream(published, StreamSettings(order=order)).samples():
            seen.add((sample.key, sample.label, sample.pixels().tobytes()))
    except ValueError as error:
        refusal = str(error)
    path.write_bytes(original)

    right = PublishedStream(published, StreamSettings(shuffle_buffer=0)).samples()
    assert seen <= {(sample.key, sample.label, sample.pixels().tobytes()) for sample in right}
    assert "\n" not in refusal
    assert refusal or len(seen) == 117
