"""The licence that a model's card states, and what is known of licences that restrict training on a model's images."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_CARD = "README.md"
#: Part of a licence's name -> what it says. Texts change and are long: each names what to look for, and none is advice.
_TERMS = {
    "flux-1-dev": "forbids using images of the model to train a competing model, and commercial use without a licence",
    "flux-1-kontext-dev": "forbids using images of the model to train a competing model, and commercial use",
    "flux-non-commercial": "forbids using images of the model to train a competing model, and commercial use",
    "stabilityai-ai-community": "forbids using images of the model to create or improve foundational generative models",
    "stabilityai-nc": "is for research and other non-commercial use only",
    "sai-nc": "is for research and other non-commercial use only",
    "tencent-hunyuan": "forbids using images of the model to improve other models",
    "nsclv1": "is for research and other non-commercial use only",
    "cc-by-nc": "is for non-commercial use only",
}


def licence_of(folder: Path) -> str | None:
    """The licence that a folder's model card states at its beginning, as the hub's cards do; None where none does.

    Returns:
        Its name, and its address where the card has one, in one line.
    """
    content = _front_matter(folder / _CARD)
    name = content.get("license_name") or content.get("license")
    if not isinstance(name, str) or not name.strip():
        return None
    link = content.get("license_link")
    return " ".join(f"{name} ({link})".split()) if isinstance(link, str) and "://" in link else " ".join(name.split())


def training_terms(licence: str | None) -> str | None:
    """What a licence says that concerns training sets made with the model; None where nothing is known."""
    if licence is None:
        return None
    plain = re.sub(r"[\s_.]+", "-", licence.lower())
    return next((terms for name, terms in _TERMS.items() if name in plain), None)


def _front_matter(card: Path) -> Mapping[str, Any]:
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, flags=re.DOTALL)
    try:
        content = yaml.safe_load(match[1]) if match is not None else None
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
