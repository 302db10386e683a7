"""Tars of samples in the plain WebDataset form: `<key>.cls`, `<key>.json`, `<key>.png`, reproducible byte for byte."""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.canonical import canonical_json, parse_json
from datasets.imageset import DECODING_ERRORS
from datasets.tables import require_key

FIELDS = ("cls", "json", "png")  # a sample's members, in the order they are written
_MEMBER = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9_-]*)\.(?P<field>[a-z0-9]+)")


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its label.

    Attributes:
        key: Unique in the run; letters, digits, _ and -.
        image: Encoded PNG bytes, or uint8 pixels (H, W, C) with C = 1 or 3.
        label: Class index, at least 0.
        record: What the `.json` member says; plain JSON values, no NaN.
    """

    key: str
    image: bytes | NDArray[np.uint8]
    label: int
    record: Mapping[str, Any]

    def png(self) -> bytes:
        """The image as PNG bytes."""
        return self.image if isinstance(self.image, bytes) else encode_png(self.image)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image without loss; equal pixels are equal bytes under one version of Pillow and zlib.

    Args:
        pixels: uint8 (H, W, C) in [0, 255], C = 1 (grey) or 3 (RGB).

    Raises:
        ValueError: Another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in {1, 3} or 0 in pixels.shape:
        raise ValueError(f"pixels must be uint8 (H, W, 1) or (H, W, 3), got {pixels.dtype} {pixels.shape}.")
    grey_or_rgb = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey_or_rgb)).save(sink, format="PNG", compress_level=6)
    return sink.getvalue()


def decode_png(data: bytes, *, name: str) -> NDArray[np.uint8]:
    """Decode PNG bytes to uint8 (H, W, C), C = 1 for grey and 3 for all else.

    Raises:
        ValueError: The bytes are no readable PNG; the message gives `name`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("L" if image.mode in {"1", "L"} else "RGB"), dtype=np.uint8)
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} is not a readable PNG ({error}); it is damaged.") from error
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def tar_bytes(samples: Iterable[Sample]) -> bytes:
    """Pack samples, sorted by key, into one tar without times, owners or other traces of the machine.

    Raises:
        ValueError: A key is doubled or not allowed, a label is negative, a record is no plain JSON.
    """
    sink = io.BytesIO()
    previous = ""
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in sorted(samples, key=lambda sample: sample.key):
            require_key(sample.key, name="the tar")
            if sample.key == previous:
                raise ValueError(f"the tar gets the key {sample.key!r} twice; keys are unique in a run.")
            if sample.label < 0:
                raise ValueError(f"sample {sample.key} has the label {sample.label}; labels are 0 and above.")
            previous = sample.key
            contents = (str(int(sample.label)).encode("ascii"), canonical_json(dict(sample.record)), sample.png())
            for field, content in zip(FIELDS, contents, strict=True):
                _add(tar, f"{sample.key}.{field}", content=content)
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, *, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0, the owner's names empty
    member.mode = 0o644
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def read_members(data: bytes, *, name: str) -> dict[str, dict[str, bytes]]:
    """The contents of a tar as key -> field -> bytes, in the tar's order. Nothing is ever written to disk.

    Args:
        data: The tar.
        name: Its name, for errors.

    Raises:
        ValueError: The tar is damaged, or a member is a link, a folder, a device, doubled, or named otherwise than
            `<key>.<field>` (absolute paths and paths with .. are).
    """
    samples: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                match = _MEMBER.fullmatch(member.name)
                if match is None or not member.isreg():
                    raise ValueError(f"member {member.name!r} is no plain file named <key>.<field>")
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
        ValueError: As `read_members`; or a sample lacks its cls, json or png, or one of them cannot be read.
    """
    for key, fields in read_members(data, name=name).items():
        yield parse_sample(key, fields, name=name)


def parse_sample(key: str, fields: Mapping[str, bytes], *, name: str) -> Sample:
    """Make a sample of its members.

    Raises:
        ValueError: One of cls, json and png is missing or unreadable; the message names it.
    """
    missing = [field for field in FIELDS if field not in fields]
    if missing:
        raise ValueError(f"{name}: sample {key} lacks its {', '.join(missing)}; it is damaged.")
    digits = fields["cls"].strip()
    if not digits.isdigit() or len(digits) > 9:
        raise ValueError(f"{name}: {key}.cls is {digits[:20]!r}, expected a class index; it is damaged.")
    record = parse_json(fields["json"], name=f"{name}: {key}.json")
    decode_png(fields["png"], name=f"{name}: {key}.png")
    return Sample(key=key, image=fields["png"], label=int(digits), record=record)
