"""What a card says beyond figures: the Hub's front matter, what is synthetic and how it was made, use and limits."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from datasets.runs.manifest import Manifest, RunFacts
from datasets.storage.escaping import for_markdown

#: Part of a licence's text -> what the Hub calls it.
_LICENCES = {
    "cc0-1.0": r"\bCC0\b",
    "cc-by-4.0": r"\bCC BY 4\.0\b",
    "cc-by-sa-4.0": r"\bCC BY-SA 4\.0\b",
    "cc-by-nc-4.0": r"\bCC BY-NC 4\.0\b",
    "cc-by-nc-sa-4.0": r"\bCC BY-NC-SA 4\.0\b",
    "mit": r"\bMIT licen[cs]e\b",
    "apache-2.0": r"\bApache(?: License,? Version)?[ -]2\.0\b",
}
#: What the Hub calls sizes, by the least number of images above each.
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGEST = "10M<n<100M"
_TAGS = ["synthetic", "diffusion", "class-imbalance", "fairness", "minority-augment"]


def front_matter(*, name: str, licences: Sequence[str], images: int, data_files: str, tags: Sequence[str] = ()) -> str:
    """YAML at the beginning of a card, by which the Hugging Face Hub lists and loads a dataset.

    Args:
        name: What the dataset is called.
        licences: The texts of all licences that hold; one that is known by name, and the same in all, is named.
        images: How many there are.
        data_files: Pattern of the files that hold them.
        tags: Beside those that all have.
    """
    named = {_hub_name(text) for text in licences}
    known = named.pop() if len(named) == 1 else None
    content: dict[str, Any] = {"pretty_name": name}
    content |= {"license": known} if known else {"license": "other", "license_name": "see-the-card"}
    content |= {
        "task_categories": ["image-classification"],
        "size_categories": [next((size for most, size in _SIZES if images < most), _LARGEST)],
        "tags": [*_TAGS, *tags],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": data_files}]}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _hub_name(text: str) -> str | None:
    found = [name for name, pattern in _LICENCES.items() if re.search(pattern, text)]
    return found[0] if len(found) == 1 else None


def origin_text(facts: RunFacts | Manifest, counts: Mapping[str, Mapping[str, int]]) -> str:
    """What is synthetic, how it can be told, and how it was made."""
    real, synthetic = (sum(row.get(source, 0) for row in counts.values()) for source in ("real", "synthetic"))
    lines = [
        f"- **{real} images are real, {synthetic} are synthetic**: a diffusion model drew them, and they "
        "show nothing that exists. `source` says which, in the table and in the `.json` beside every image.",
        f"- Drawn by the backbone {_backbone(facts.backbone)}{saw(facts)}; `seed` and `sample_index` give each "
        "image's noise, `guidance` the sampler's settings. All settings are `config` in `manifest.json`; the recipe "
        f"`{facts.recipe}` is a hash over what decides the images.",
        "- Of many candidates those were kept that look rarer than real images and yet real, are no near-copy of a "
        "training image and show their label, as far as the filters can tell, up to the quota of each group. The "
        "table has every candidate with its scores, verdicts and `reason`; `kept` ones are the images here.",
        "- All images are for training. Real images that were held out to choose and to test are not among them.",
    ]
    if says_itself(facts):
        lines.append(
            "- Each synthetic PNG says so in its own bytes: XMP with the IPTC's `DigitalSourceType`, and a text "
            "`minority-augment` with dataset, recipe, backbone, seed and index. Programs that write an image anew "
            "drop both."
        )
    if facts.config.get("edit") is not None:
        lines.append("- Synthetic images with an `edited_source_id` are variants of that real image.")
    return "\n".join(lines)


def _backbone(backbone: Mapping[str, str]) -> str:
    name, sha256 = for_markdown(str(backbone.get("name", "none"))), backbone.get("sha256")
    return name + (f" (SHA-256 of its weights `{sha256}`)" if sha256 else "")


def saw(facts: RunFacts | Manifest) -> str:
    """What the backbone saw beside the real training images, where the config says so."""
    backbone = facts.config.get("backbone")
    told = backbone.get("pretrained_on") if isinstance(backbone, Mapping) else None
    return "" if not isinstance(told, Mapping) else f", which saw {for_markdown(str(told.get('what', '')))}"


def says_itself(facts: RunFacts | Manifest) -> bool:
    """Whether the run's synthetic images and rows name what made them (publish.provenance)."""
    publish = facts.config.get("publish")
    return isinstance(publish, Mapping) and bool(publish.get("provenance"))


def use_text(facts: RunFacts | Manifest) -> str:
    """Whether the dataset may be used, and what for."""
    own = facts.backbone.get("licence")
    lines = [
        "- Real images are under their own licence, and synthetic ones were drawn by a model that learned from them: "
        "what [Origin and licence](#origin-and-licence) names holds for both. This card grants nothing beyond it.",
        f"- The backbone's licence is {for_markdown(own)}; read what it says of the model's images."
        if own
        else "- The backbone states no licence of its own. Where it is not yours, ask whoever made it.",
        "- Made to train classifiers of the classes below, beside the real images. It shows nothing about the world: "
        "do not test a classifier on synthetic images, count them as cases, or take them for evidence about people.",
    ]
    return "\n".join(lines)


def limits_text(facts: RunFacts | Manifest, quotas: Mapping[str, Mapping[str, int]]) -> str:
    """What a user should not expect."""
    short = {group: row["shortfall"] for group, row in quotas.items() if row["shortfall"]}
    looked = facts.review is not None
    lines = [
        "- A synthetic image's label and group are those that it was drawn for, or that classifiers saw in it. "
        + ("People looked at candidates, see below." if looked else "No person has looked at the images."),
        "- Synthetic images are chosen for being rare: they are no fair sample of their class, and shares of classes "
        "and groups here are not those of the world.",
        "- The backbone repeats what its training images show, their errors and their gaps included; what is in none "
        "of them it can hardly draw.",
        "- Groups are columns of the source set, as it gives them.",
    ]
    if short:
        named = ", ".join(f"{for_markdown(group)} ({count})" for group, count in sorted(short.items())[:10])
        more = f" and {len(short) - 10} more groups" if len(short) > 10 else ""
        lines.append(f"- Quotas that could not be filled, with the images they lack: {named}{more}.")
    return "\n".join(lines)


FAIRNESS = (
    "Where classifiers were trained with and without the synthetic images, `report/fairness.md` has their accuracy on "
    "real test images, for every group; comparisons that were made later lie in `downstream/`, each in a folder. Where "
    "neither is there, nothing is known of what the images do to a classifier."
)
