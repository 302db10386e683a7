import errno
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from datasets.storage.local_files import _host
from datasets.storage.store import Store, StoreError

ROOT = Path(__file__).parents[3]


def test_a_file_is_read_as_it_was_written(store):
    store.write("a/b.bin", b"first")
    store.write("a/b.bin", b"second")

    assert store.read("a/b.bin") == b"second"
    with store.open_read("a/b.bin") as file:
        assert file.read() == b"second"
    assert store.exists("a/b.bin")
    assert not store.exists("a")
    assert not store.exists("a/c.bin")


def test_a_listing_is_sorted_recursive_and_relative(store):
    for path in ("units/b.tar", "units/a.tar", "run.json", "unit-notes"):
        store.write(path, b"x")

    assert store.list() == ["run.json", "unit-notes", "units/a.tar", "units/b.tar"]
    assert store.list("units") == ["units/a.tar", "units/b.tar"]
    assert store.list("nowhere") == []


def test_only_the_first_creation_counts(store):
    assert store.create("run.json", b"one")
    assert not store.create("run.json", b"two")

    assert store.read("run.json") == b"one"


def test_of_many_threads_exactly_one_creates(tmp_path):
    store = Store(tmp_path)
    together = Barrier(8)

    def create(number):
        together.wait()
        return store.create("claim", b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))

    assert sum(won) == 1
    assert store.read("claim") == b"%d" % won.index(True)
    assert store.list() == ["claim"]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path):
    store = Store(tmp_path)
    contents = [bytes([value]) * 300_000 for value in range(4)]
    store.write("file", contents[0])

    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(store.write, "file", content) for content in contents * 10]
        seen = {store.read("file") for _ in range(100)}
        for write in writes:
            write.result()

    assert seen <= set(contents)


def test_files_and_trees_are_removed_and_removing_twice_is_harmless(store):
    store.write("a/b", b"x")
    store.write("a/c", b"x")

    for _ in range(2):
        store.remove("a/b")
    assert store.list() == ["a/c"]

    for _ in range(2):
        store.remove_tree("a")
    assert store.list() == []


def test_a_child_is_the_folder_below(store):
    store.child("digits/runs").write("x", b"1")

    assert store.read("digits/runs/x") == b"1"
    assert store.child("digits/runs").url("x") == store.url("digits/runs/x")


def test_a_store_can_be_sent_to_another_process(store):
    store.write("x", b"1")

    assert pickle.loads(pickle.dumps(store)).read("x") == b"1"


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "a//b", "./a", "a\\b", "a/"])
def test_a_path_never_leaves_the_store(store, path):
    with pytest.raises(ValueError, match="must be relative"):
        store.write(path, b"x")


def test_a_missing_file_is_named(store):
    with pytest.raises(FileNotFoundError, match=r"a/b\.bin does not exist"):
        store.read("a/b.bin")


@pytest.mark.parametrize("url", ["", "nosuchprotocol://bucket"])
def test_a_url_that_names_no_store_is_refused(url):
    with pytest.raises(ValueError, match="store"):
        Store(url)


def test_a_writable_store_is_left_as_it_was(store):
    store.check_writable()

    assert store.list() == []


def test_a_store_below_a_file_is_not_writable(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreError, match=r"file/store/.* cannot be written: not a directory; a file stands where"):
        Store(tmp_path / "file" / "store").check_writable()


def test_a_read_only_store_is_named_with_reason_and_remedy(mounted_tmpfs):
    subprocess.run(["mount", "-o", "remount,ro", str(mounted_tmpfs)], check=True)

    with pytest.raises(StoreError, match=r"small/.* cannot be written: read-only file system; remount it") as caught:
        Store(mounted_tmpfs).check_writable()
    assert caught.value.errno == errno.EROFS
    assert isinstance(caught.value.__cause__, OSError)


def test_a_full_disk_is_named_and_leaves_the_old_file_and_no_part_of_the_new(mounted_tmpfs):
    store = Store(mounted_tmpfs)
    store.write("units/a.tar", b"old")

    for write in (store.write, store.create):
        with pytest.raises(StoreError, match=r"small/units/.\.tar cannot be written: no space left on device; free"):
            write("units/a.tar" if write == store.write else "units/b.tar", bytes(1 << 20))

    assert store.read("units/a.tar") == b"old"
    assert sorted(path.name for path in mounted_tmpfs.rglob("*")) == ["a.tar", "units"]


def test_a_killed_writer_leaves_nothing_but_a_removable_copy(tmp_path):
    program = (
        "import os, signal; from datasets.storage.store import Store\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Store({str(tmp_path)!r}).write('units/a.tar', b'x' * 1000)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    store = Store(tmp_path)
    leftovers = list((tmp_path / "units").iterdir())

    assert killed.returncode < 0
    assert len(leftovers) == 1
    assert store.list() == []
    assert store.clean_temporary() == (f"units/{leftovers[0].name}",)
    assert list((tmp_path / "units").iterdir()) == []


def test_copies_of_living_writers_and_young_foreign_ones_are_left_alone(tmp_path):
    living = tmp_path / f".tmp-{_host()}-{os.getpid()}-00ff"
    foreign = tmp_path / ".tmp-elsewhere.example-1-00ff"
    for path in (living, foreign):
        path.write_bytes(b"x")

    assert Store(tmp_path).clean_temporary() == ()

    os.utime(foreign, (0, 0))
    assert Store(tmp_path).clean_temporary() == (foreign.name,)


def test_the_size_is_told_without_reading(store):
    store.write("a/b.bin", b"12345")

    assert store.size("a/b.bin") == 5
    with pytest.raises(FileNotFoundError, match=r"a/none does not exist"):
        store.size("a/none")


@pytest.mark.parametrize("look", ["read", "open_read", "size", "exists"])
def test_a_pipe_is_named_and_never_opened(tmp_path, look):
    os.mkfifo(tmp_path / "odd.bin")

    with pytest.raises(
        StoreError, match=r"odd\.bin cannot be read: it is a pipe, no plain file; put a plain file in its"
    ):
        getattr(Store(tmp_path), look)("odd.bin")


def test_a_lock_keeps_other_threads_out_and_is_not_listed(tmp_path):
    store = Store(tmp_path)
    inside, most = [], []

    def enter(number):
        with store.locked("units"):
            inside.append(number)
            time.sleep(0.001)
            most.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(20)))

    assert most == [1] * 20
    assert store.list() == []


def test_an_unreachable_object_store_is_one_clear_error(monkeypatch):
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(StoreError, match=r"s3://bucket/runs/.* cannot be written: could not connect.*; check that"):
        Store("s3://bucket/runs").check_writable()
