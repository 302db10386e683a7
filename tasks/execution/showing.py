"""What a run shows in Prefect: pictures and places that can be looked at from any machine.

Artifacts are kept in the server's database and read by browsers that reach neither the worker's disk nor the store, so
pictures are in them, made small enough, and only addresses that a browser can open become links.
"""

import base64
import io
import os
import re

from PIL import Image
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact

from datasets.storage.escaping import for_markdown, markdown_table

#: Bytes of a picture in an artifact, at most; the database keeps each twice.
MOST_BYTES = 300_000
#: Where browsers find what lies in the store: the address of a web server that serves it.
WEB_ADDRESS = "MINORITY_STORE_WEB"
_SHRINK = 0.75


def artifact_key(*parts: str) -> str:
    """The key of an artifact made of names, of which Prefect takes small letters, digits and dashes alone."""
    return re.sub("[^a-z0-9-]", "-", "-".join(parts).lower())


def show_picture(picture: bytes, *, key: str, description: str, url: str | None = None) -> None:
    """Show a picture as an artifact: it is in it, or its address where browsers reach it.

    Args:
        picture: PNG.
        key: The artifact's key, see `artifact_key`.
        description: What it shows.
        url: Its address for browsers, where it has one.
    """
    create_markdown_artifact(key=key, markdown=f"![{description}]({data_uri(picture)})", description=description)
    if url is not None:
        create_image_artifact(image_url=url, key=f"{key}-full", description=f"{description}, in full size")


def show_place(place: str, *, key: str, description: str, url: str | None) -> None:
    """Show where something lies: as a link where browsers reach it, else in words.

    Args:
        place: File name or URL as the worker has it.
        key: The artifact's key, see `artifact_key`.
        description: What lies there.
        url: Its address for browsers; None where there is none.
    """
    if url is not None:
        create_link_artifact(key=key, link=url, description=description)
        return
    create_markdown_artifact(key=key, markdown=f"{description}: {for_markdown(place)}", description=description)


def web_url(place: str, *, store: str) -> str | None:
    """The address at which a browser finds something that lies in a store; None where it has none.

    Args:
        place: File name or URL as the worker has it.
        store: The store's root, as the worker has it.
    """
    if place.startswith(("http://", "https://")):
        return place
    address = os.environ.get(WEB_ADDRESS, "").rstrip("/")
    if not address or not place.startswith(f"{store.rstrip('/')}/"):
        return None
    return address + place.removeprefix(store.rstrip("/"))


def data_uri(picture: bytes) -> str:
    """A PNG as text that stands in a page; one that is too large becomes a JPEG, and smaller until it fits."""
    if len(picture) <= MOST_BYTES:
        return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    while len(data := _jpeg(image)) > MOST_BYTES:
        image = image.resize((max(1, int(image.width * _SHRINK)), max(1, int(image.height * _SHRINK))))
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def table(rows: list[dict[str, str]]) -> str:
    """Rows as a table in Markdown; empty where there are none."""
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""


def _jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format="JPEG", quality=85)
    return sink.getvalue()
