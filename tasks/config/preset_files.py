"""The files of presets: prefect.yaml, and those of users. Listing them needs no model of a config."""

import difflib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets.storage.yaml_text import Written, load_yaml, plain
from tasks.errors import InputError

PREFECT_FILE = Path(__file__).resolve().parents[2] / "prefect.yaml"
#: Names of the flows that presets are for.
FLOW_NAMES = ("augment", "backbone", "adapt", "calibrate", "discover", "downstream")


def list_presets() -> list[tuple[str, str, str]]:
    """Every preset as (flow, name, description), in the order of prefect.yaml, users' own behind."""
    return [
        (flow_of(entry), worded(entry, "name"), " ".join(worded(entry, "description").split())) for entry in entries()
    ]


def own_presets_folder() -> Path:
    """Where users keep files of presets of their own, one a set: $MINORITY_PRESETS, or presets/ in the checkout."""
    return Path(os.environ.get("MINORITY_PRESETS") or PREFECT_FILE.parent / "presets")


def named_file() -> Path | None:
    """The one file that presets are to be taken from, $MINORITY_CONFIG (`--config` of a command); None: all files."""
    named = os.environ.get("MINORITY_CONFIG")
    return Path(named) if named else None


def preset_files() -> list[Path]:
    """prefect.yaml, and the files of users' own presets; or the one that is named."""
    named = named_file()
    if named is not None:
        return [named]
    return [PREFECT_FILE, *sorted(own_presets_folder().glob("*.yaml"))]


def entries() -> list[dict[str, Any]]:
    """The deployments of all files as they are written.

    Raises:
        InputError: A file cannot be read, or two presets of one flow have one name.
    """
    by_name: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for path in preset_files():
        for entry in read_entries(path):
            key = (flow_of(entry), worded(entry, "name"))
            if key in by_name:
                raise InputError(f"{'/'.join(key)} stands in {by_name[key][0]} and in {path}; rename one of the two.")
            by_name[key] = (path, entry)
    return [entry for _, entry in by_name.values()]


def deployments_of(name: str) -> tuple[Path, list[str]]:
    """The file that holds the presets of a name, and their flows.

    Raises:
        InputError: There is none.
    """
    for path in preset_files():
        flows = [flow_of(entry) for entry in read_entries(path) if worded(entry, "name") == name]
        if flows:
            return path, flows
    known = sorted({worded(entry, "name") for entry in entries()})
    raise InputError(f"there is no preset {name}; {options(name, known)}.")


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The deployments of one file as they are written.

    Raises:
        InputError: It cannot be read, or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if path == named_file():
            raise InputError(f"--config: there is no file {path}; name one with presets, as init writes it.") from error
        raise InputError(f"{path} is missing; run from a complete checkout of the project.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); repair it.") from error
    return entries_in(text, source=str(path))


def entries_in(text: str, *, source: str) -> list[dict[str, Any]]:
    """The deployments of a file's content as they are written.

    Args:
        text: YAML with a list `deployments`, as `prefect deploy` takes it.
        source: What messages call the file.

    Raises:
        InputError: It is no such YAML.
    """
    try:
        content = _parse(text)
    except ValueError as error:
        raise InputError(f"{source} is not readable YAML ({error}); repair it.") from error
    deployments = content.get("deployments") if isinstance(content, Mapping) else None
    if not isinstance(deployments, list) or not all(isinstance(entry, Mapping) for entry in deployments):
        raise InputError(f"{source} has no list of deployments; write one as prefect.yaml does.")
    for number, entry in enumerate(deployments, start=1):
        lacking = [key for key in ("name", "entrypoint", "parameters") if key not in entry]
        if lacking:
            raise InputError(
                f"deployment {number} of {source} lacks {', '.join(lacking)}; write it as prefect.yaml does."
            )
        if flow_of(entry) not in FLOW_NAMES:
            known = ", ".join(f"flows.{flow}" for flow in FLOW_NAMES)
            raise InputError(f"deployment {number} of {source} runs {entry['entrypoint']}, which is none of {known}.")
    return [{"description": "", **entry} for entry in deployments]


@lru_cache(maxsize=8)
def _parse(text: str) -> Any:
    """The document of a file that commands read several times; nobody changes it."""
    return load_yaml(text)


def flow_of(entry: Mapping[str, Any]) -> str:
    """The flow that a deployment runs, by its name in commands."""
    return str(entry["entrypoint"]).rsplit(":", 1)[-1].replace("train_backbone", "backbone")


def worded(entry: Mapping[str, Any], key: str) -> str:
    """A text of a deployment as it was written, quoted or not."""
    value = entry[key]
    return value.text if isinstance(value, Written) else str(plain(value))


def options(wanted: object, known: Sequence[str]) -> str:
    """The end of a message about a name that is not known: the likely ones, or all there are."""
    near = difflib.get_close_matches(str(wanted), known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}" if near else "there are " + (", ".join(known) or "none")
