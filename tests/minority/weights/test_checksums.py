import hashlib
import os
import time

import pytest

from minority.weights import checksums, file_sha256


@pytest.fixture
def hashed(monkeypatch):
    """The files that were really read, in order."""
    files, digest = [], hashlib.file_digest

    def counting(file, name):
        files.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(checksums.hashlib, "file_digest", counting)
    return files


def settle(path, *, seconds_ago):
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path, hashed):
    path = tmp_path / "w"
    path.write_bytes(b"first")
    settle(path, seconds_ago=60)

    assert [file_sha256(path) for _ in range(3)] == [sha(b"first")] * 3
    assert len(hashed) == 1


def test_a_file_of_the_same_size_that_was_written_again_is_read_again(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"first")
    settle(path, seconds_ago=60)
    before = file_sha256(path)

    path.write_bytes(b"other")
    settle(path, seconds_ago=30)

    assert (before, file_sha256(path)) == (sha(b"first"), sha(b"other"))


def test_another_file_that_took_the_place_with_the_same_time_is_read_again(tmp_path):
    path, other = tmp_path / "w", tmp_path / "other"
    for file, content in ((path, b"first"), (other, b"other")):
        file.write_bytes(content)
        os.utime(file, (1_000_000_000, 1_000_000_000))
    assert file_sha256(path) == sha(b"first")

    other.rename(path)

    assert file_sha256(path) == sha(b"other")


def test_a_file_that_may_still_be_written_is_read_every_time(tmp_path, hashed):
    path = tmp_path / "w"
    path.write_bytes(b"first")
    assert file_sha256(path) == sha(b"first")
    state = path.stat()

    path.write_bytes(b"other")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as a coarse clock leaves it

    assert file_sha256(path) == sha(b"other")
    assert len(hashed) == 2
