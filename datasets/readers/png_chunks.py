"""PNG by its chunks (ISO/IEC 15948): what lies behind the pixels, and how to leave out texts that Pillow refuses."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from PIL import PngImagePlugin

PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_EXIF_AS_TEXT = b"Raw profile type exif\0"
_MAX_PROFILE = 2**24


def has_late_exif(file: IO[bytes]) -> bool:
    """Whether tags may lie behind the pixels; the file stays where it is."""
    at = file.tell()
    kinds = [kind for kind, _, _ in _chunks(file)]
    file.seek(at)
    late = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return any(kind == b"eXIf" or kind in _TEXT for kind in late)


def without_long_text(file: IO[bytes]) -> tuple[BytesIO, bytes | None]:
    """A PNG without its texts, which no pixel needs, and the colour profile where it is longer than Pillow reads."""
    kept, profile = [PNG], None
    for kind, begin, length in list(_chunks(file)):
        file.seek(begin)
        content = file.read(length + 4)
        if kind in _TEXT and not content.startswith(_EXIF_AS_TEXT):
            continue
        if kind == b"iCCP":
            unpacked = zlib.decompressobj().decompress(content.partition(b"\0")[2][1:-4], _MAX_PROFILE)
            if len(unpacked) >= PngImagePlugin.MAX_TEXT_CHUNK:
                profile = unpacked
                continue
        kept += [struct.pack(">I4s", length, kind), content]
    return BytesIO(b"".join(kept)), profile


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin, length) of every chunk of a PNG that is there in full."""
    at = len(PNG)
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, at + 8, length
        at += 12 + length
