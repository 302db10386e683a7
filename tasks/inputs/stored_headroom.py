"""What `minority headroom` found, kept in the store for the reports of runs on the same images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan

from datasets.storage.checked import checked_json, parse_checked_json
from datasets.storage.store import Store
from minority.downstream.learning_curve import GroupHeadroom
from tasks.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StoredHeadroom:
    """What more images of each group could bring.

    Attributes:
        recipe: How the classifiers were trained.
        seeds: Trainings at each size.
        groups: What was found, group by group.
    """

    recipe: str
    seeds: int
    groups: Sequence[GroupHeadroom]


def keep_headroom(found: StoredHeadroom, store: Store, *, digest: str) -> str:
    """Write it, over what was found before on the same images.

    Args:
        found: What was found.
        store: The data set's own.
        digest: Of the real images.

    Returns:
        The file's URL.

    Raises:
        InputError: The store cannot be written.
    """
    document = {
        "recipe": found.recipe,
        "seeds": found.seeds,
        "groups": [
            asdict(group)
            | {"accuracy": [_or_none(value) for value in group.accuracy], "gain": _or_none(group.gain)}
            | {"interval": [_or_none(end) for end in group.interval]}
            for group in found.groups
        ],
    }
    try:
        store.write(_path(digest), checked_json(document))
    except OSError as error:
        raise InputError(str(error)) from error
    return store.url(_path(digest))


def read_headroom(store: Store, *, digest: str) -> StoredHeadroom | None:
    """What was found on these real images; None where nobody looked.

    Raises:
        ValueError: The file is damaged.
        StoreError: The store cannot be read.
    """
    path = _path(digest)
    if not store.exists(path):
        return None
    document = parse_checked_json(store.read(path), name=store.url(path))
    return StoredHeadroom(
        recipe=document["recipe"],
        seeds=document["seeds"],
        groups=[
            GroupHeadroom(
                **group
                | {"accuracy": tuple(_number(value) for value in group["accuracy"]), "gain": _number(group["gain"])}
                | {"interval": (_number(group["interval"][0]), _number(group["interval"][1]))}
            )
            for group in document["groups"]
        ],
    )


def _path(digest: str) -> str:
    return f"headroom/{digest[:16]}.json"


def _or_none(value: float) -> float | None:
    """JSON has no word for what is no number."""
    return None if isnan(value) else float(value)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
