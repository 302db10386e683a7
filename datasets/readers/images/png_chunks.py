"""PNG by its chunks (ISO/IEC 15948): what lies behind the pixels, texts that Pillow refuses, texts that are put in."""

import struct
import zlib
from collections.abc import Iterator, Mapping
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


def with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """A PNG with international texts (iTXt) before its pixels, in the order given; its pixels stay.

    Args:
        png: A whole PNG.
        texts: Keyword of 1 to 79 Latin letters -> text.

    Raises:
        ValueError: It is no PNG.
    """
    head = len(PNG) + 25  # the signature and IHDR, which comes first
    if not png.startswith(PNG) or png[len(PNG) + 4 : len(PNG) + 8] != b"IHDR":
        raise ValueError("texts are put into PNGs alone; these bytes are none.")
    chunks = [_chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text.encode()) for key, text in texts.items()]
    return png[:head] + b"".join(chunks) + png[head:]


def texts_of(png: bytes) -> dict[str, str]:
    """The uncompressed international texts of a PNG by keyword; of doubled ones the first.

    Raises:
        ValueError: It is no PNG, or a text in it is damaged.
    """
    if not png.startswith(PNG):
        raise ValueError("it is no PNG")
    found: dict[str, str] = {}
    for kind, begin, length in _chunks(BytesIO(png)):
        content, checksum = png[begin : begin + length], png[begin + length : begin + length + 4]
        keyword, _, rest = content.partition(b"\0")
        if kind != b"iTXt" or rest[:1] != b"\0":
            continue
        if struct.pack(">I", zlib.crc32(kind + content)) != checksum:
            raise ValueError(f"its text {keyword.decode('latin-1')!r:.60} is damaged")
        text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind the language and the translated keyword
        found.setdefault(keyword.decode("latin-1"), text.decode("utf-8", errors="replace"))
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


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
