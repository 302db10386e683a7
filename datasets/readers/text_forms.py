"""Names that mean the same: one Unicode form for all of them, and hints where two differ in case or spaces alone."""

import unicodedata
from collections.abc import Iterable


def one_form(text: str) -> str:
    """A text in Unicode's composed form (NFC), so that an umlaut of one and of two characters are one name."""
    return unicodedata.normalize("NFC", text)


def loose_form(text: str) -> str:
    """What is left of a text when case and spaces do not count."""
    return "".join(one_form(text).split()).casefold()


def look_alikes(texts: Iterable[str]) -> list[list[str]]:
    """The sets of different texts that differ in case or spaces alone, each sorted, in sorted order."""
    by_form: dict[str, set[str]] = {}
    for text in texts:
        by_form.setdefault(loose_form(text), set()).add(text)
    return sorted(sorted(alike) for alike in by_form.values() if len(alike) > 1)
