"""Scripts and styles that go into pages whole, and the hashes by which a page's policy knows its own."""

import base64
import hashlib
from pathlib import Path


def page_part(name: str) -> str:
    """The text of a file of this folder, e.g. "gallery.js"."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """The hash by which a content security policy lets a piece of inline script or style through."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
