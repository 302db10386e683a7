"""Names that mean the same: one Unicode form for all of them, and hints where two differ in case or spaces alone."""

import os
import unicodedata
from collections.abc import Iterable


def one_form(text: str) -> str:
    """A text in Unicode's composed form (NFC), so that an umlaut of one and of two characters are one name."""
    return unicodedata.normalize("NFC", text)


def name_on_disk(path: str) -> str:
    """The name of a file as its bytes say in UTF-8, in one form, whatever encoding the machine's locale has.

    Raises:
        ValueError: The bytes are not UTF-8; no table or manifest could hold them.
    """
    written = os.fsencode(path)
    try:
        return one_form(written.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"the file name {written!r} is not UTF-8; rename it, e.g. by convmv.") from error


def tellable_name(path: str) -> str:
    """The same for a name that is only told: bytes that are not UTF-8 are written out."""
    return one_form(os.fsencode(path).decode("utf-8", errors="backslashreplace"))


def loose_form(text: str) -> str:
    """What is left of a text when case and spaces do not count."""
    return "".join(one_form(text).split()).casefold()


def look_alikes(texts: Iterable[str]) -> list[list[str]]:
    """The sets of different texts that differ in case or spaces alone, each sorted, in sorted order."""
    by_form: dict[str, set[str]] = {}
    for text in texts:
        by_form.setdefault(loose_form(text), set()).add(text)
    return sorted(sorted(alike) for alike in by_form.values() if len(alike) > 1)
