"""The card of an export: how to read it, and what the run's own card says of the images."""

import re

from datasets.export.opened import OpenedRun
from datasets.runs.card_statement import front_matter, limits_text, origin_text, use_text
from datasets.storage.canonical import sha256_hex
from datasets.storage.escaping import for_markdown

FAIRNESS_FILE = "report/fairness.md"
#: Sections of a run's card that an export's has, too: those that are not about the run's own files.
_REPEATED = (
    "Images by class and source",
    "Quotas of synthetic images by group",
    "Where every real image is",
    "Review",
    "Columns of the table",
    "Origin and licence",
)
_PATTERNS = {"imagefolder": "train/**", "hf-parquet": "data/train-*.parquet"}
_READING = {
    "imagefolder": (
        "One folder a class in `train/`; `train/metadata.parquet` has a row for every image, by `file_name`.",
        "from datasets import load_dataset  # Hugging Face's\n\n"
        'images = load_dataset("imagefolder", data_dir=".", split="train")\n'
        'first = images[0]["image"], images[0]["label"], images[0]["source"]',
    ),
    "hf-parquet": (
        "Images and their fields in `data/*.parquet`; the column `image` holds bytes.",
        "from datasets import load_dataset  # Hugging Face's\n\n"
        'images = load_dataset("parquet", data_files="data/*.parquet", split="train")\n'
        'first = images[0]["image"], images[0]["label"], images[0]["source"]',
    ),
    "fiftyone": (
        "Images in `data/`, their fields in `samples.json`; `ground_truth` is the label.",
        "import fiftyone as fo\n\n"
        'images = fo.Dataset.from_dir(dataset_dir=".", dataset_type=fo.types.LegacyFiftyOneDataset)\n'
        'rarest = images.match_tags("synthetic").sort_by("minority_score", reverse=True)',
    ),
    "coco": (
        "Images in `images/`; `annotations.json` has one annotation an image, whose box is the whole image. The other "
        "fields stand in the entries of `images`.",
        "from pycocotools.coco import COCO\n\n"
        'coco = COCO("annotations.json")\n'
        "image = coco.loadImgs(1)[0]  # file_name, source, group, scores\n"
        'category = coco.loadCats(coco.loadAnns(coco.getAnnIds(imgIds=1))[0]["category_id"])[0]["name"]',
    ),
}


def export_card(run: OpenedRun, *, layout: str) -> str:
    """Write the card as Markdown.

    Args:
        run: What is exported.
        layout: "imagefolder", "hf-parquet", "fiftyone" or "coco".

    Raises:
        ValueError: The run's card is not the one that its manifest names.
    """
    manifest = run.manifest
    name = run.store.url(manifest.card.path)
    data = run.store.read(manifest.card.path)
    if sha256_hex(data) != manifest.card.sha256:
        raise ValueError(f"{name} is not the card that the manifest names; verify the run.")
    sections = _sections(data.decode())
    what, code = _READING[layout]
    parts = [
        f"# {for_markdown(manifest.dataset)}, run {manifest.run_id}",
        f"{run.rows.num_rows} labelled images, exported from a run of recipe `{manifest.recipe}`; the files of the "
        f"images are its own, byte for byte. {what} `backbone`, `backbone_sha256` and `recipe` say of each synthetic "
        "image what made it. Columns without any value are left out.",
        f"## How to read it\n\n```python\n{code}\n```",
        f"## What in it is synthetic, and how it was made\n\n{origin_text(manifest, manifest.counts)}",
        f"## May it be used, and what for\n\n{use_text(manifest)}",
        f"## Known limits\n\n{limits_text(manifest, manifest.quotas)}",
        *(f"## {title}\n\n{sections[title]}" for title in _REPEATED if title in sections),
    ]
    if run.store.exists(FAIRNESS_FILE):
        parts.append(run.store.read(FAIRNESS_FILE).decode().replace("\n#", "\n##").replace("# ", "## ", 1).strip())
    if layout in _PATTERNS:
        licences = [sections.get("Origin and licence", ""), *_backbone_licence(manifest.backbone)]
        parts.insert(
            0,
            front_matter(
                name=f"{manifest.dataset} ({manifest.run_id})",
                licences=licences,
                images=run.rows.num_rows,
                data_files=_PATTERNS[layout],
            ),
        )
    return "\n\n".join(parts) + "\n"


def _backbone_licence(backbone: dict[str, str]) -> list[str]:
    return [backbone["licence"]] if "licence" in backbone else []


def _sections(card: str) -> dict[str, str]:
    """Title -> text of a card's sections."""
    parts = re.split(r"^## (.+)$", card, flags=re.MULTILINE)[1:]
    return {title.strip(): text.strip() for title, text in zip(parts[::2], parts[1::2], strict=True)}
