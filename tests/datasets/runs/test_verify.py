import io
import json
import os
import shutil
import socket
import tarfile
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.runs.publish import publish
from datasets.runs.shards import Sample, tar_bytes
from datasets.runs.verify import verify
from datasets.storage.canonical import canonical_json, sha256_hex
from datasets.storage.checked import checked_json
from datasets.storage.store import Store
from datasets.streaming.published import read_published
from datasets.streaming.stream import PublishedStream, StreamSettings

SHARD = "shards/pets-000001.tar"


@pytest.fixture
def published(tmp_path, small_run):
    """The folder of a sound run: ten kept images in three shards, three refused rows."""
    kept = small_run["rows"](10)
    table = pa.concat_tables([kept, small_run["rows"](3, prefix="x", kept=False)])
    samples = small_run["samples"](kept, small_run["images"](10))
    publish(Store(tmp_path), facts=small_run["facts"], samples=samples, metadata=table, samples_per_shard=4)
    assert check(tmp_path) == []
    return tmp_path


def check(folder):
    return verify(str(folder / "manifest.json"))


def promise(folder, path, data):
    """Replace a file and let the manifest promise it, so that only its contents can be wrong."""
    (folder / path).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for entry in (*manifest["shards"], manifest["metadata"], manifest["card"]):
        if entry["path"] == path:
            entry["sha256"] = sha256_hex(data)
            if "bytes" in entry:
                entry["bytes"] = len(data)
    seal(folder, manifest)


def edit_manifest(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    seal(folder, manifest | changes)


def seal(folder, manifest):
    """Write a manifest with the checksum that it needs."""
    manifest = {key: value for key, value in manifest.items() if key != "checksum"}
    (folder / "manifest.json").write_bytes(checked_json(manifest))


@pytest.mark.parametrize("path", [SHARD, "metadata.parquet", "README.md"])
def test_one_flipped_byte_anywhere_is_found_and_the_file_named(published, path):
    content = (published / path).read_bytes()
    for position in np.random.default_rng(0).integers(0, len(content), 25):
        broken = bytearray(content)
        broken[position] ^= 0x10
        (published / path).write_bytes(broken)

        problems = check(published)

        assert any(problem.startswith(f"{path}: has SHA-256") for problem in problems)


@pytest.mark.parametrize("path", [SHARD, "metadata.parquet", "README.md", "manifest.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "folder"])
def test_a_damaged_file_is_named(published, path, damage):
    content = (published / path).read_bytes()
    (published / path).unlink()
    if damage == "folder":
        (published / path).mkdir()
    elif damage != "gone":
        (published / path).write_bytes(content[: len(content) // 2] if damage == "cut" else b"")

    problems = check(published)

    assert problems
    assert any(path in problem for problem in problems)
    assert not any("\n" in problem for problem in problems)


def test_a_row_deleted_with_pandas_is_found(published):
    frame = pd.read_parquet(published / "metadata.parquet")
    frame[frame["key"] != "s0005"].to_parquet(published / "metadata.parquet", index=False)

    problems = check(published)

    assert "metadata.parquet: has 12 rows, the manifest says 13" in problems
    assert f"{SHARD}: sample s0005 has no row in the table" in problems


def test_a_row_deleted_with_a_forged_checksum_is_found(published):
    table = pq.read_table(published / "metadata.parquet")
    sink = io.BytesIO()
    pq.write_table(table.slice(1), sink)
    promise(published, "metadata.parquet", sink.getvalue())

    problems = check(published)

    assert "metadata.parquet: has 12 rows, the manifest says 13" in problems
    assert (
        "metadata.parquet: has {'real': 0, 'synthetic': 4} kept rows of class cat, "
        "the manifest says {'real': 0, 'synthetic': 5}"
    ) in problems


def test_a_missing_shard_is_found(published):
    (published / SHARD).unlink()

    assert check(published) == [f"{SHARD}: is missing"]


def test_shards_that_were_swapped_are_found(published):
    first, second = (published / f"shards/pets-00000{n}.tar" for n in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    promise(published, "shards/pets-000000.tar", contents[1])
    promise(published, SHARD, contents[0])

    problems = check(published)

    assert f"{SHARD}: sample s0000 has a row with kept True and shard shards/pets-000000.tar" in problems


def test_a_tar_that_the_manifest_does_not_name_is_found(published):
    shutil.copy(published / SHARD, published / "shards/pets-000009.tar")

    assert check(published) == ["shards/pets-000009.tar: is not named by the manifest"]


def sample(key, *, label=0, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    return Sample(key=key, image=pixels, label=label, record={})


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([sample("s0008"), sample("x0000")], "sample x0000 has a row with kept False and shard None"),
        ([sample("s0008", label=1), sample("s0009", label=1)], "sample s0008 has label 1, its row says 0"),
        ([sample("s0008"), sample("s0009", label=1)], "sample s0008 is not the image whose SHA-256 its row gives"),
        ([sample("s0008")], "lacks the sample s0009, which has a row"),
        ([sample("s0008")], "has 1 samples, the manifest says 2"),
        ([sample("s0008"), sample("new")], "sample new has no row in the table"),
    ],
)
def test_a_shard_with_forged_checksum_must_still_agree_with_the_table(published, samples, problem):
    path = "shards/pets-000002.tar"
    promise(published, path, tar_bytes(samples))

    assert f"{path}: {problem}" in check(published)


def test_a_sample_without_its_label_file_is_found(published):
    sink = io.BytesIO()
    with tarfile.open(published / SHARD) as whole, tarfile.open(fileobj=sink, mode="w") as part:
        for member in whole:
            if member.name != "s0005.cls":
                part.addfile(member, whole.extractfile(member))
    promise(published, SHARD, sink.getvalue())

    problems = check(published)

    assert f"{SHARD}: the tar: sample s0005 lacks its cls; it is damaged." in problems


def forge_row(folder, key, **changes):
    table = pq.read_table(folder / "metadata.parquet")
    rows = table.to_pylist()
    for row in rows:
        if row["key"] == key:
            row.update(changes)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
    promise(folder, "metadata.parquet", sink.getvalue())


@pytest.mark.parametrize(
    ("key", "changes", "problem"),
    [
        ("x0000", {"shard": SHARD}, "row x0000 is not kept but names the shard shards/pets-000001.tar"),
        ("s0000", {"shard": None}, "row s0000 is kept, but its shard None is not in the manifest"),
        ("s0000", {"label": 7}, "row s0000 has label 7, which has no name"),
    ],
)
def test_a_row_that_contradicts_itself_is_found(published, key, changes, problem):
    forge_row(published, key, **changes)

    assert f"metadata.parquet: {problem}" in check(published)


@pytest.mark.parametrize(
    ("quota", "problem"),
    [
        ({"asked": 999, "kept": 999, "shortfall": 0}, "its rows make it {'asked': 999, 'kept': 5, 'shortfall': 994}"),
        ({"asked": 3, "kept": 5, "shortfall": 1}, "its rows make it {'asked': 3, 'kept': 5, 'shortfall': 0}"),
        ({"asked": 3}, "not asked, kept and shortfall"),
    ],
)
def test_a_forged_quota_is_found(published, quota, problem):
    manifest = json.loads((published / "manifest.json").read_bytes())
    edit_manifest(published, quotas=manifest["quotas"] | {"class=cat": quota})

    (found,) = check(published)

    assert found.startswith("manifest.json: gives group class=cat the quota {'asked'")
    assert found.endswith(problem)


def test_renamed_classes_are_found(published):
    edit_manifest(published, class_names=["cat", "wolf"])

    problems = check(published)

    assert "metadata.parquet: row s0001 calls label 1 'dog', the manifest 'wolf'" in problems


def test_no_flipped_bit_of_a_manifest_passes(published):
    sound = (published / "manifest.json").read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(sound), 300).tolist():
        broken = bytearray(sound)
        broken[bit // 8] ^= 1 << bit % 8
        (published / "manifest.json").write_bytes(broken)

        (problem,) = check(published)

        assert "manifest.json" in problem


def test_a_manifest_of_the_first_format_is_read_and_its_lack_told(published, caplog):
    manifest = json.loads((published / "manifest.json").read_bytes())
    old = {key: manifest[key] for key in manifest if key not in {"checksum", "contents", "real_digest"}}
    (published / "manifest.json").write_bytes(canonical_json(old | {"format_version": 1}))

    assert check(published) == []
    assert "manifest.json is of format version 1, which has no checksum" in caplog.text


def sparse_tar(name, *, declared):
    """A tar of 10 kB with a sparse member of GNU's old form, which says that it has so many bytes."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 10
        tar.addfile(info, io.BytesIO(b"x" * 10))
    content = bytearray(sink.getvalue())
    content[156:157] = b"S"
    fields = {386: 0, 398: 10, 410: declared, 422: 0, 483: declared}
    for place, number in fields.items():
        content[place : place + 12] = b"%011o\0" % number
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


def pax_sparse_tar(name, *, declared):
    """The same in the form of pax headers."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        body = b"1\n0\n10\n".ljust(512, b"\0") + b"x" * 10
        info.size = len(body)
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(declared),
        }
        tar.addfile(info, io.BytesIO(body))
    return sink.getvalue()


def oversized_tar(name, *, declared):
    """A tar whose member says that it has more bytes than the whole tar."""
    info = tarfile.TarInfo(name)
    info.size = declared
    return info.tobuf(format=tarfile.USTAR_FORMAT) + bytes(10240)


@pytest.mark.parametrize("bomb", [sparse_tar, pax_sparse_tar, oversized_tar])
def test_a_tar_that_says_it_is_a_gibibyte_is_refused_in_little_memory(published, bomb):
    promise(published, "shards/pets-000002.tar", bomb("s0008.png", declared=2**30))
    tracemalloc.start()

    problems = check(published)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert any(problem.startswith("shards/pets-000002.tar: the tar is refused: ") for problem in problems)
    assert peak < 20 * 2**20


@pytest.mark.parametrize("bomb", [sparse_tar, oversized_tar])
def test_the_other_readers_of_tars_refuse_bombs_too(published, bomb):
    promise(published, "shards/pets-000002.tar", bomb("s0008.png", declared=2**30))

    with pytest.raises(ValueError, match=r"pets-000002\.tar (holds 's0008.png', which is no plain|breaks off inside)"):
        list(PublishedStream(str(published / "manifest.json"), StreamSettings(shuffle_buffer=0)).samples())
    with pytest.raises(ValueError, match=r"pets-000002\.tar (holds 's0008.png', which is no plain|breaks off inside)"):
        read_published(str(published / "manifest.json")).image(9)


def test_a_table_with_more_rows_than_its_bytes_can_hold_is_refused(published):
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": pa.array(["a"]).take(pa.array(np.zeros(10**7, dtype=np.int32)))}), sink)
    promise(published, "metadata.parquet", sink.getvalue())

    problems = check(published)

    assert any(
        "metadata.parquet: the file is not a readable Parquet file (10000000 rows in" in line for line in problems
    )


def test_a_file_far_larger_than_the_manifest_says_is_not_read(published):
    size = (published / SHARD).stat().st_size
    with (published / SHARD).open("r+b") as file:
        file.truncate(2**33)  # no byte of it lies on the disk

    assert check(published) == [f"{SHARD}: has 8589934592 bytes, the manifest says {size}"]


@pytest.mark.parametrize("path", [SHARD, "metadata.parquet", "README.md", "manifest.json"])
@pytest.mark.parametrize(("kind", "word"), [("pipe", "a pipe"), ("device", "a device"), ("socket", "a socket")])
def test_what_is_no_plain_file_never_blocks(published, monkeypatch, path, kind, word):
    (published / path).unlink()
    if kind == "pipe":
        os.mkfifo(published / path)
    elif kind == "device":
        (published / path).symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(published)  # the names of sockets are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)

    problems = check(published)

    assert any(f"{path} cannot be read: it is {word}, no plain file; put a plain file" in line for line in problems)


def test_many_problems_of_a_file_are_cut_short(published):
    manifest = json.loads((published / "manifest.json").read_bytes())
    edit_manifest(published, shards=manifest["shards"][:0])

    problems = [problem for problem in check(published) if problem.startswith("metadata.parquet")]

    assert len(problems) == 6
    assert problems[-1] == "metadata.parquet: and 5 more problems"


def test_a_shard_named_twice_is_found(published):
    manifest = json.loads((published / "manifest.json").read_bytes())
    edit_manifest(published, shards=[*manifest["shards"], manifest["shards"][1]])

    assert f"{SHARD}: is named twice by the manifest" in check(published)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format_version": 3}, "has format version 3, this program reads 2"),
        ({"contents": "ff"}, "field contents must be 64 hex digits or null"),
        ({"counts": 3}, "field counts must be a dict, got 3"),
        ({"counts": {"cat": {"real": "five"}}}, "field counts.cat must hold counts"),
        ({"surprise": 1}, "lacks or does not know the field surprise"),
        ({"shards": [1]}, "describes a file as 1"),
        ({"shards": [{"path": SHARD}]}, "describes a file as"),
        (
            {"card": {"path": "../../etc/passwd", "sha256": "0" * 64}},
            "the path '../../etc/passwd', which is not allowed",
        ),
        ({"card": {"path": "README.md", "sha256": "00"}}, "the sha256 '00', which is not allowed"),
        ({"metadata": {"path": "m", "num_rows": -1, "bytes": 1, "sha256": "0" * 64}}, "the num_rows -1, which is not"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_one_problem(published, changes, problem):
    edit_manifest(published, **changes)

    problems = check(published)

    assert len(problems) == 1
    assert problem in problems[0]
    assert "manifest.json" in problems[0]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b"[" * 100_000, b"{}"])
def test_a_manifest_that_is_no_manifest_is_one_problem(published, content):
    (published / "manifest.json").write_bytes(content)

    (problem,) = check(published)

    assert "manifest.json" in problem


def test_a_manifest_can_be_named_from_its_own_folder(published, monkeypatch):
    monkeypatch.chdir(published)

    assert verify("manifest.json") == []
    assert verify(str(published / "nowhere.json")) == [f"{published}/nowhere.json does not exist; check the path."]
