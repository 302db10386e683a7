import io
import json

import numpy as np
import pytest

from datasets.storage.checked import (
    DamagedError,
    checked_json,
    parse_checked_json,
    read_checked,
    write_checked,
)
from datasets.storage.store import Store


def flipped(data, bit):
    broken = bytearray(data)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00" * 100, "zwölf".encode()])
def test_what_is_written_is_read_again(store, content):
    write_checked(store, "kept/some.bin", content)

    assert read_checked(store, "kept/some.bin") == content


def test_every_single_flipped_bit_is_noticed_and_the_file_named(store):
    write_checked(store, "kept/some.bin", b"sixteen bytes ..")
    sound = store.read("kept/some.bin")

    for bit in range(8 * len(sound)):
        store.write("kept/some.bin", flipped(sound, bit))
        with pytest.raises(DamagedError, match=r"kept/some\.bin is not what its checksum says"):
            read_checked(store, "kept/some.bin")


def test_files_that_are_cut_grown_or_have_no_checksum_are_damaged(store):
    write_checked(store, "one", b"content")
    sound = store.read("one")

    for broken in (b"", sound[:-1], sound[1:], sound + b"\n", b"content", sound + sound):
        store.write("one", broken)
        with pytest.raises(DamagedError, match="one is not what its checksum says, or has none"):
            read_checked(store, "one")
    with pytest.raises(FileNotFoundError, match="two does not exist"):
        read_checked(store, "two")


def test_numpy_reads_a_checked_file_as_it_is(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    for name, save in (("a.npy", np.save), ("a.npz", np.savez_compressed)):
        content = io.BytesIO()
        save(content, values)
        write_checked(Store(tmp_path), name, content.getvalue())

    assert np.array_equal(np.load(tmp_path / "a.npy"), values)
    with np.load(tmp_path / "a.npz") as archive:
        assert np.array_equal(archive["arr_0"], values)


def test_json_with_a_checksum_is_plain_json_and_no_bit_of_it_can_flip():
    content = {"counts": {"cat": 3, "dog": 1.5}, "name": "pets \u00e9", "none": None, "rows": [1, [2]]}
    sound = checked_json(content)

    assert parse_checked_json(sound, name="a.json") == content
    assert {key: value for key, value in json.loads(sound).items() if key != "checksum"} == content
    for bit in range(8 * len(sound)):
        with pytest.raises(DamagedError, match=r"a\.json "):
            parse_checked_json(flipped(sound, bit), name="a.json")


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"a": 1}', b'{"a": 1, "checksum": null}', b'{"checksum": 1}'])
def test_json_without_a_right_checksum_is_damaged(data):
    with pytest.raises(DamagedError, match=r"a\.json .*it is damaged"):
        parse_checked_json(data, name="a.json")


def test_the_key_of_the_checksum_is_taken():
    with pytest.raises(ValueError, match="the key checksum is taken"):
        checked_json({"checksum": "mine"})
