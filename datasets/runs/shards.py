"""Tars of samples in the plain WebDataset form: `<key>.cls`, `<key>.json` and the image, reproducible byte for byte.

The image's member is named by its format: `png` or `webp` without loss, `jpg` where the loss is chosen.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.readers.images.encoding import EXTENSIONS, decode_image, decode_png, encode_image, encode_png
from datasets.runs.tables import require_key
from datasets.runs.tar_writing import tar_of_members
from datasets.storage.canonical import canonical_json, parse_json

__all__ = ["Sample", "decode_png", "encode_png", "parse_sample", "read_members", "read_tar", "tar_bytes"]

FIELDS = ("cls", "json")  # a sample's members beside its image
_MEMBER = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9_-]*)\.(?P<field>[a-z0-9]+)")


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its label.

    Attributes:
        key: Unique in the run; letters, digits, _ and -.
        image: Encoded bytes, or uint8 pixels (H, W, C) with C = 1 or 3.
        label: Class index, at least 0.
        record: What the `.json` member says; plain JSON values, no NaN.
        extension: Format of the encoded bytes, or to encode pixels in: "png", "webp" (both without loss) or "jpg".
    """

    key: str
    image: bytes | NDArray[np.uint8]
    label: int
    record: Mapping[str, Any]
    extension: str = "png"

    def encoded(self) -> bytes:
        """The image's bytes in the format that `extension` names."""
        return self.image if isinstance(self.image, bytes) else encode_image(self.image, self.extension)

    def png(self) -> bytes:
        """The image as PNG bytes.

        Raises:
            ValueError: The sample's format is another.
        """
        if self.extension != "png":
            raise ValueError(f"sample {self.key} is a {self.extension} file; use encoded().")
        return self.encoded()


def tar_bytes(samples: Iterable[Sample]) -> bytes:
    """Pack samples, sorted by key, into one tar without times, owners or other traces of the machine.

    Raises:
        ValueError: A key is doubled or not allowed, a label is negative, a record is no plain JSON.
    """
    return tar_of_members(_members(samples))


def _members(samples: Iterable[Sample]) -> Iterator[tuple[str, bytes]]:
    previous = ""
    for sample in sorted(samples, key=lambda sample: sample.key):
        require_key(sample.key, name="the tar")
        if sample.key == previous:
            raise ValueError(f"the tar gets the key {sample.key!r} twice; keys are unique in a run.")
        if sample.label < 0:
            raise ValueError(f"sample {sample.key} has the label {sample.label}; labels are 0 and above.")
        if sample.extension not in EXTENSIONS:
            raise ValueError(
                f"sample {sample.key} has the extension {sample.extension!r}; use {', '.join(EXTENSIONS)}."
            )
        previous = sample.key
        contents = {
            "cls": str(int(sample.label)).encode("ascii"),
            "json": canonical_json(dict(sample.record)),
            sample.extension: sample.encoded(),
        }
        for field in sorted(contents):
            yield f"{sample.key}.{field}", contents[field]


def read_members(data: bytes, *, name: str) -> dict[str, dict[str, bytes]]:
    """The contents of a tar as key -> field -> bytes, in the tar's order. Nothing is ever written to disk.

    Args:
        data: The tar.
        name: Its name, for errors.

    Raises:
        ValueError: The tar is damaged, or a member is a link, a folder, a device, doubled, or named otherwise than
            `<key>.<field>` (absolute paths and paths with .. are), or says that it is larger than the tar (sparse
            members are: a few bytes that stand for many).
    """
    samples: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                match = _MEMBER.fullmatch(member.name)
                if match is None or not member.isreg() or member.issparse():
                    raise ValueError(f"member {member.name!r} is no plain file named <key>.<field>")
                if member.offset_data + member.size > len(data):
                    raise ValueError(f"member {member.name!r} says {member.size} bytes, more than the tar holds")
                fields = samples.setdefault(match["key"], {})
                if match["field"] in fields:
                    raise ValueError(f"member {member.name!r} comes twice")
                file = tar.extractfile(member)
                fields[match["field"]] = file.read() if file is not None else b""
            # tarfile takes a header it cannot read for the end of the archive.
            if len(data) < tar.offset + 1024 or any(data[tar.offset :]):
                raise ValueError(f"it breaks off at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{name} is refused: {error}; it is damaged or not ours.") from error
    return samples


def read_tar(data: bytes, *, name: str = "the tar") -> Iterator[Sample]:
    """The samples of a tar, in its order, images still encoded.

    Args:
        data: The tar.
        name: Its name, for errors.

    Raises:
        ValueError: As `read_members`; or a sample lacks its cls, json or image, or one of them cannot be read.
    """
    for key, fields in read_members(data, name=name).items():
        yield parse_sample(key, fields, name=name)


def parse_sample(key: str, fields: Mapping[str, bytes], *, name: str) -> Sample:
    """Make a sample of its members.

    Raises:
        ValueError: One of cls, json and the image is missing or unreadable; the message names it.
    """
    images = [extension for extension in EXTENSIONS if extension in fields]
    missing = [field for field in FIELDS if field not in fields] + ([] if images else ["png"])
    if len(images) > 1:
        raise ValueError(f"{name}: sample {key} has the images {' and '.join(images)}; it is damaged.")
    if missing:
        raise ValueError(f"{name}: sample {key} lacks its {', '.join(missing)}; it is damaged.")
    digits = fields["cls"].strip()
    if not digits.isdigit() or len(digits) > 9:
        raise ValueError(f"{name}: {key}.cls is {digits[:20]!r}, expected a class index; it is damaged.")
    record = parse_json(fields["json"], name=f"{name}: {key}.json")
    (extension,) = images
    decode_image(fields[extension], extension, name=f"{name}: {key}.{extension}")
    return Sample(key=key, image=fields[extension], label=int(digits), record=record, extension=extension)
