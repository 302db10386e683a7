"""Tars without times, owners or other traces of the machine: plain ustar headers, written directly.

The bytes are those of Python's tarfile for the same members (a test holds the two together), at a fraction of the time.
"""

import tarfile
from collections.abc import Iterable

_BLOCK = 512
_MOST_BYTES = 8**11 - 1  # eleven octal digits


def tar_of_members(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Pack (name, content) pairs in the order given.

    Raises:
        ValueError: A name is empty, not ASCII or longer than 100, or a content is larger than 8 GiB.
    """
    blocks = []
    length = 0
    for name, content in members:
        blocks += [_header(name, len(content)), content, bytes(-len(content) % _BLOCK)]
        length += _BLOCK + len(content) + len(blocks[-1])
    # Two empty blocks end a tar; the whole is filled up to full records, as tar does.
    blocks.append(bytes(2 * _BLOCK + -(length + 2 * _BLOCK) % tarfile.RECORDSIZE))
    return b"".join(blocks)


def _header(name: str, size: int) -> bytes:
    if not name or not name.isascii() or len(name) > 100 or size > _MOST_BYTES:
        raise ValueError(f"tar member {name!r:.120} of {size} bytes needs an ASCII name of 1 to 100 and at most 8 GiB.")
    begin = name.encode("ascii").ljust(100, b"\0") + _MODE_AND_OWNER + b"%011o" % size + _NUL + b"0" * 11 + _NUL
    checksum = sum(begin) + _END_SUM + 8 * ord(" ")  # the field itself counts as blanks
    return begin + b"%06o" % checksum + _NUL + b" " + _END


_NUL = b"\0"
_NUMBER = b"0" * 7 + _NUL
_MODE_AND_OWNER = b"0000644" + _NUL + _NUMBER + _NUMBER
# A plain file without link, the magic word, and neither owners' names nor device numbers nor prefix.
_END = b"0" + bytes(100) + b"ustar" + _NUL + b"00" + bytes(_BLOCK - 265)
_END_SUM = sum(_END)
