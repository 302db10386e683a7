"""Walking a tar file by its headers: where each member lies, without reading what it holds.

Only plain members are known (ustar, GNU and pax headers of plain files); everything is checked, since tars come from
anywhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

BLOCK = 512
#: Extensions of the members that are images, where nobody names others.
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_REGULAR = {b"0", b"\0"}
_EXTENDED = {b"x", b"g", b"L", b"K"}
_MOST_EXTENDED_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in a tar: its name, where its content begins, and how many bytes it has."""

    name: str
    offset: int
    size: int


def walk_members(file: IO[bytes], *, name: str, on_other: Callable[[str], None] | None = None) -> Iterator[Member]:
    """The plain files of a tar, in order. Between two members the file may be read and moved at will.

    Args:
        file: The tar, seekable.
        name: Its name, for errors.
        on_other: Called with the name of every member that is neither a plain file nor a folder (a link, a device),
            which is then passed over; None refuses such a tar.

    Raises:
        ValueError: A header is damaged, the tar breaks off, or, without `on_other`, a member is no plain file.
    """
    at = 0
    long_name: str | None = None
    size_of_file = file.seek(0, 2)
    while True:
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise ValueError(f"{name} breaks off at byte {at}; it is damaged: fetch or make it again.")
        if not any(header):
            return
        kind, size, member = _parse(header, name=name, at=at)
        begin = at + BLOCK
        at = begin + (size + BLOCK - 1) // BLOCK * BLOCK
        if begin + size > size_of_file:
            raise ValueError(f"{name} breaks off inside {member!r:.80}; it is damaged: fetch or make it again.")
        if kind in _EXTENDED:
            long_name = _long_name(file, kind=kind, size=size, name=name) or long_name
        elif kind in _REGULAR:
            yield Member(name=long_name or member, offset=begin, size=size)
            long_name = None
        elif kind != b"5":  # folders are passed over
            if on_other is None:
                raise ValueError(f"{name} holds {member!r:.80}, which is no plain file; it is not an image tar.")
            on_other(long_name or member)
            long_name = None


def _parse(header: bytes, *, name: str, at: int) -> tuple[bytes, int, str]:
    """Kind, size and name of a member."""
    try:
        promised = int(header[148:156].strip(b" \0") or b"0", 8)
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        member = header[:100].split(b"\0", 1)[0].decode("utf-8")
        prefix = header[345:500].split(b"\0", 1)[0].decode("utf-8") if header[257:262] == b"ustar" else ""
    except ValueError as error:
        raise ValueError(f"{name} has a damaged header at byte {at}; fetch or make it again.") from error
    # The checksum counts its own field as blanks.
    if size < 0 or promised != sum(header) - sum(header[148:156]) + 8 * 32:
        raise ValueError(f"{name} has a damaged header at byte {at}; fetch or make it again.")
    plain_prefix = prefix and header[257:263] == b"ustar\0"
    return header[156:157], size, f"{prefix}/{member}" if plain_prefix else member


def _long_name(file: IO[bytes], *, kind: bytes, size: int, name: str) -> str | None:
    """The name that an extended header gives to the next member; None where it gives none."""
    if size > _MOST_EXTENDED_BYTES:
        raise ValueError(f"{name} has an extended header of {size} bytes; it is damaged.")
    content = file.read(size)
    if kind == b"K":  # where a link leads
        return None
    if kind == b"L":
        return content.rstrip(b"\0").decode("utf-8", errors="replace")
    while content:
        digits, _, rest = content.partition(b" ")
        if not digits.isdigit() or not 0 < int(digits) - len(digits) - 1 <= len(rest):
            raise ValueError(f"{name} has a damaged extended header; fetch or make it again.")
        record, content = rest[: int(digits) - len(digits) - 1], rest[int(digits) - len(digits) - 1 :]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        if key == b"path" and kind == b"x":
            return value.decode("utf-8", errors="replace")
    return None
