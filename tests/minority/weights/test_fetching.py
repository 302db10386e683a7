"""What servers do to a download: each case is one line that says so, and nothing is left under the final name."""

import contextlib
import hashlib
import logging
import os
import socket
import struct
import threading
import time

import pytest

from minority.weights import WeightsError, fetching, find_weights

WEIGHTS = b"weights " * 4000
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def serve():
    """Starts a server that treats every connection by a function of the socket; gives its address."""
    servers = []

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def loop():
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client, contextlib.suppress(OSError):  # the other side hangs up, as it should
                    client.recv(65536)
                    answer(client)

        threading.Thread(target=loop, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def says(*parts):
    return lambda client: client.sendall(b"".join(parts))


def declares(size, body=WEIGHTS, more=b""):
    return says(OK, b"Content-Length: %d\r\n" % size, more, b"\r\n", body)


def hangs_up(client):
    client.sendall(OK + b"Content-Length: 1000000\r\n\r\nx")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def never_ends(client):
    client.sendall(OK + b"\r\n")
    while True:
        client.sendall(bytes(65536))


def never_ends_in_chunks(client):
    client.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")


def refused(url, cache, **options):
    with pytest.raises(WeightsError) as error:
        find_weights(url, sha256=options.pop("sha256", DIGEST), cache=cache, **options)
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == []  # neither a whole file nor a part of one
    return str(error.value)


def test_what_is_sent_whole_is_kept_by_its_checksum(serve, tmp_path):
    path = find_weights(serve(declares(len(WEIGHTS))) + "/a/w.pt", sha256=DIGEST, cache=tmp_path)

    assert path.read_bytes() == WEIGHTS
    assert path.name == f"{DIGEST[:16]}-w.pt"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(b"garbage garbage\r\n\r\n"), "cannot be read (garbage garbage)"),
        (says(b""), "cannot be read (Remote end closed connection without response)"),
        (says(OK, b"Content-Length: 5\r\n", b"x" * 70000), "cannot be read (got more than 65536 bytes"),
        (hangs_up, "cannot be read ("),
        (declares(len(WEIGHTS) + 7), f"ended after {len(WEIGHTS)} of {len(WEIGHTS) + 7} bytes; nothing was kept"),
        (declares(100), "has SHA-256 "),
        (declares(0, b""), "has SHA-256 e3b0c44298fc"),
        (says(OK, b"\r\n<!DOCTYPE html><html>log in</html>"), "answers with a web page, not with weights"),
        (says(OK, b"\r\n \n<HTML>"), "answers with a web page, not with weights"),
        (
            says(OK, b"\r\nversion https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"),
            "is a Git LFS pointer, not the weights",
        ),
        (says(b"HTTP/1.1 404 Not Found\r\n\r\n"), "cannot be read (HTTP Error 404: Not Found)"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "cannot be read ("),
    ],
    ids=[
        "garbage",
        "silence",
        "endless header",
        "hangs up",
        "too short",
        "too long",
        "empty",
        "web page",
        "capital web page",
        "pointer",
        "404",
        "broken chunks",
    ],
)
def test_a_broken_answer_is_told_in_one_line_and_leaves_nothing(serve, tmp_path, answer, words):
    assert words in refused(serve(answer) + "/w.pt", tmp_path)


def test_redirects_in_a_circle_end(serve, tmp_path):
    def again(client):
        client.sendall(b"HTTP/1.1 302 Found\r\nLocation: /w.pt\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    assert "cannot be read (HTTP Error 302: " in refused(serve(again) + "/w.pt", tmp_path)


def test_a_declared_size_beyond_the_limit_is_refused_before_a_byte_of_it_is_read(serve, tmp_path):
    sent = []

    def answer(client):
        client.sendall(OK + b"Content-Length: 3000000000000\r\n\r\n")
        time.sleep(0.2)
        sent.append(client.send(b"x"))

    words = refused(serve(answer) + "/w.pt", tmp_path)

    assert "is 3e+03 GB, more than the 50 GB that may be fetched; set MINORITY_LARGEST_DOWNLOAD_GB" in words


def test_more_than_there_is_room_for_is_refused_before_it_is_written(serve, tmp_path):
    words = refused(serve(declares(10**17, b"")) + "/w.pt", tmp_path, largest=10**18)

    assert "is 1e+08 GB and there is room for" in words


@pytest.mark.parametrize("answer", [never_ends, never_ends_in_chunks])
def test_an_answer_without_end_is_cut_off_at_the_limit(serve, tmp_path, answer):
    words = refused(serve(answer) + "/w.pt", tmp_path, largest=3_000_000)

    assert "does not end, more than the 0.003 GB that may be fetched" in words


def test_the_limit_can_be_set_and_must_be_a_number(serve, tmp_path, monkeypatch):
    url = serve(never_ends) + "/w.pt"
    monkeypatch.setenv("MINORITY_LARGEST_DOWNLOAD_GB", "0.002")

    assert "more than the 0.002 GB" in refused(url, tmp_path)
    for wrong in ("much", "0", "-1", "nan"):
        monkeypatch.setenv("MINORITY_LARGEST_DOWNLOAD_GB", wrong)
        assert f"must be a positive number of GB, got '{wrong}'" in refused(url, tmp_path)


def test_a_server_that_falls_silent_is_given_up(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_SILENCE", 0.3)

    def falls_silent(client):
        client.sendall(OK + b"Content-Length: 900\r\n\r\nabc")
        time.sleep(2)

    assert "timed out" in refused(serve(falls_silent) + "/w.pt", tmp_path)


def test_a_server_that_trickles_is_given_up(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_SILENCE", 0.4)

    def trickles(client):
        client.sendall(OK + b"Content-Length: 900\r\n\r\n")
        while True:
            client.sendall(b"x")
            time.sleep(0.05)

    assert "sends less than 1000 bytes a second" in refused(serve(trickles) + "/w.pt", tmp_path)


@pytest.mark.parametrize("url", ["http://[::1/w.pt", "http://127.0.0.1:port/w.pt", "http://a..b/w.pt", "http:///w.pt"])
def test_an_address_that_is_none_is_told_in_one_line(tmp_path, url):
    with pytest.raises(WeightsError, match=r"^[^\n]+; (correct it|fetch it yourself and give its path)\.$"):
        find_weights(url, sha256=DIGEST, cache=tmp_path)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "cache").mkdir()

    assert "is not a regular file" in refused((tmp_path / "pipe").as_uri(), tmp_path / "cache")


def test_what_stands_behind_a_question_mark_is_told_nowhere(serve, tmp_path, caplog):
    url = serve(declares(len(WEIGHTS))).replace("//", "//me:word@") + "/w.pt?token=secret"

    with caplog.at_level(logging.WARNING), pytest.raises(WeightsError) as error:
        find_weights(url.replace("me:word@", ""), sha256="0" * 64, cache=tmp_path)

    assert "secret" not in str(error.value) + caplog.text
    assert "/w.pt to " in caplog.text


def test_a_folder_that_cannot_be_written_is_told(serve, tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(WeightsError, match=r"cannot be written \(.*\); make room and rights there"):
        find_weights(serve(declares(len(WEIGHTS))) + "/w.pt", sha256=DIGEST, cache=tmp_path / "file" / "cache")
