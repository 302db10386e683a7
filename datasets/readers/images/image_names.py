"""Image files under the names that a table calls them by: one Unicode form, and a hint where a name nearly fits."""

from collections.abc import Container
from pathlib import PurePosixPath

from datasets.readers.images.image_files import ImageFiles
from datasets.readers.imageset import Problem
from datasets.readers.names.text_forms import loose_form, one_form

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


class UnusableRowError(ValueError):
    """Why a row cannot be used, and what such rows are counted under."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class ImageNames:
    """The files of a place, each under its name in Unicode's composed form.

    A zip that does not say it holds UTF-8 (macOS writes such ones) has its names read as code page 437 by Python; they
    are put right where the result is UTF-8.
    """

    def __init__(self, files: ImageFiles) -> None:
        self._files = files
        self._stored: dict[str, str] = {}
        self._doubled: list[tuple[str, str]] = []
        for name in sorted(files.names()):
            called = one_form(_mended(name))
            if called in self._stored:
                self._doubled.append((name, self._stored[called]))
            else:
                self._stored[called] = name
        self._loose: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._stored)

    def read(self, name: str) -> bytes:
        """The content of a file; ValueError where it is missing or damaged."""
        return self._files.read(self._stored.get(name, name))

    def require(self, name: str, *, source: str) -> None:
        """Refuse a name that no file has, with the name that may be meant.

        Raises:
            UnusableRowError: There is no such file.
        """
        if name in self._stored:
            return
        if not self._loose:
            for stored in self._stored:
                path = PurePosixPath(stored)
                for form in (path.stem, path.name, stored):
                    self._loose[loose_form(form)] = stored
        base = PurePosixPath(name.replace("\\", "/"))
        near = next(
            (self._loose[form] for form in map(loose_form, (name, base.name, base.stem)) if form in self._loose), None
        )
        hint = "" if near is None else f"; did you mean {near!r:.80}?"
        raise UnusableRowError(
            "row whose image is missing", f"names the image {name!r:.80}, which is not in {source}{hint}"
        )

    def unnamed(self, named: Container[str], *, table: str, source: str) -> list[Problem]:
        """A problem for every image that no readable row names, sorted; files that are no images by name are none."""
        kind = "image that no readable row names"
        problems = [
            Problem(f"{source}/{name}", f"is named by no readable row of {table}.", kind=kind)
            for name in self._stored
            if name not in named and _is_image(name)
        ]
        twin = "image whose name another has in another Unicode form"
        return problems + [
            Problem(
                f"{source}/{one_form(name)}", f"has the same name as {kept!r:.80} in another Unicode form.", kind=twin
            )
            for name, kept in self._doubled
        ]


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in parts.parts) or "__MACOSX" in parts.parts
    return not hidden and parts.suffix.lower() in IMAGE_SUFFIXES


def _mended(name: str) -> str:
    if name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name
