"""What somebody's WebDataset tars hold: their images by name, and which member of a sample tells its class."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from datasets.readers.names.class_names import in_class_order
from datasets.readers.names.text_forms import one_form
from datasets.readers.tars.tar_index import IMAGE_EXTENSIONS, Member, walk_members
from datasets.readers.tars.tar_pattern import divided, files_of

_LABELS = ("cls", "label", "class", "txt")  # the likeliest first
_MOST_LABEL_BYTES = 1024
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class TarSet:
    """Tars of a folder.

    Attributes:
        folder: The folder.
        pattern: Which of its files are the tars.
        label_extension: Extension of the members that tell the class.
        counts: Images of every class, by name; for numbered classes, by number.
    """

    folder: Path
    pattern: str
    label_extension: str
    counts: dict[str, int]

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of their labels; where they are numbered, all up to the largest number."""
        if self.label_extension == "cls":
            return [str(number) for number in range(max(map(int, self.counts)) + 1)]
        return in_class_order(self.counts)


class TarFiles:
    """The members of several tars, each called "<tar>/<member>"."""

    def __init__(self, tars: list[Path]) -> None:
        """Walk the headers.

        Raises:
            ValueError: A tar is damaged; the message names it.
        """
        self._places: dict[str, tuple[Path, Member]] = {}
        for tar in tars:
            with tar.open("rb") as file:
                for member in walk_members(file, name=str(tar), on_other=lambda _: None):
                    self._places[f"{tar.name}/{one_form(member.name)}"] = (tar, member)

    def names(self) -> set[str]:
        """All names."""
        return set(self._places)

    def read(self, name: str) -> bytes:
        """The content of one member."""
        return self._content(name, self._places[name][1].size)

    def start(self, name: str) -> bytes:
        """The first kilobyte of one member."""
        return self._content(name, min(self._places[name][1].size, _MOST_LABEL_BYTES))

    def _content(self, name: str, length: int) -> bytes:
        tar, member = self._places[name]
        with tar.open("rb") as file:
            file.seek(member.offset)
            return file.read(length)


def tars_at(place: Path) -> tuple[Path, str] | None:
    """Folder and pattern where the place is a tar, a pattern of tars, or a folder that holds tars and no image."""
    folder, pattern = divided(str(place))
    if pattern:
        return folder, pattern
    if place.is_file() and place.suffix == ".tar":
        return place.parent, place.name
    if place.is_dir():
        endings = {path.suffix.lower() for path in place.iterdir() if path.is_file()}
        folders = any(path.is_dir() and not path.name.startswith(".") for path in place.iterdir())
        if ".tar" in endings and not folders and endings.isdisjoint(f".{kind}" for kind in IMAGE_EXTENSIONS):
            return place, "*.tar"
    return None


def look_at_tars(folder: Path, pattern: str) -> tuple[TarFiles, TarSet]:
    """Find images and classes.

    Raises:
        FileNotFoundError: No tar fits.
        ValueError: A tar is damaged, or no member of the samples looks like their class.
    """
    files = TarFiles(files_of(folder, pattern))
    extensions: dict[str, dict[str, str]] = {}
    images = set()
    for name in sorted(files.names()):
        place, _, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if base.startswith("._"):
            continue
        extensions.setdefault(extension.lower(), {})[f"{place}/{stem}"] = name
        if extension.lower() in IMAGE_EXTENSIONS:
            images.add(f"{place}/{stem}")
    for extension in _LABELS:
        labels = {key: name for key, name in extensions.get(extension, {}).items() if key in images}
        words = [one_form(files.start(name).decode("utf-8", errors="replace")).strip() for name in labels.values()]
        counts = Counter(word for word in words if word)
        fits = 2 <= len(counts) <= min(_MOST_CLASSES, len(images) // 2)
        numbered = all(word.isascii() and word.isdigit() and int(word) < _MOST_CLASSES for word in counts)
        if fits and (numbered or extension != "cls"):
            return files, TarSet(folder, pattern, extension, dict(counts))
    seen = ", ".join(f"{len(keys)} .{extension}" for extension, keys in sorted(extensions.items())[:6])
    raise ValueError(
        f"no member of the samples in {folder}/{pattern} looks like their class ({seen}); a sample is <key>.jpg with "
        "<key>.cls, which holds the number of its class, or <key>.txt, which holds its name."
    )
