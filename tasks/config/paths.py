"""Where the paths of a preset lie."""

import os
from pathlib import Path


def project_path(path: str) -> Path:
    """A path of a preset: as it is where it exists or is absolute, else beside prefect.yaml."""
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    return Path(__file__).resolve().parents[2] / given


def data_path(path: str) -> Path:
    """A folder of real images: as `project_path`, but data/... may lie below the folder that MINORITY_DATA names."""
    path_here, elsewhere = project_path(path), os.environ.get("MINORITY_DATA")
    if not path_here.exists() and elsewhere and Path(path).parts[:1] == ("data",):
        return Path(elsewhere, *Path(path).parts[1:])
    return path_here


def cache_folder() -> Path:
    """Where this machine keeps what can be made again: MINORITY_CACHE, or minority-augment below the user's cache."""
    named = os.environ.get("MINORITY_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "minority-augment"
