"""The data card beside the shards: what it is, how much of what, what the columns mean, how to open it."""

from collections.abc import Mapping, Sequence

from datasets.runs.card_statement import FAIRNESS, front_matter, limits_text, origin_text, saw, says_itself, use_text
from datasets.runs.manifest import METADATA_FILE, Review, RunFacts, ShardEntry
from datasets.storage.escaping import for_markdown

# In the order of METADATA_SCHEMA; a test holds the two together.
COLUMN_MEANINGS = {
    "key": "unique name of the image; the basename inside the shard",
    "source": "real or synthetic",
    "sampler": "real, minority, or plain (the baseline)",
    "source_id": "where a real image comes from",
    "sample_index": "the sample's number in the run",
    "seed": "seed of the sample's noise",
    "round": "planning round that asked for the sample",
    "unit": "work unit that made it",
    "guidance": "the sampler's settings as JSON",
    "evaluations": "network passes it took, backward passes weighed in",
    "label": "class index",
    "label_name": "class name",
    "group": "label and attribute combination",
    "minority_score": "larger is rarer",
    "negative_elbo": "bits per dimension; larger is less likely under the model",
    "knn_distance": "mean feature distance to the nearest training images",
    "nearest_distance": "feature distance to the nearest training image",
    "nearest_source_id": "that training image",
    "realism": "above 1: inside the neighbourhood of real images",
    "label_agreement": "in 0..1, how much nearer the own label's training images are than the others'",
    "rare": "verdict: rarer than the asked quantile of real images",
    "valid": "verdict: looks real",
    "new": "verdict: no near-copy of a training image",
    "label_kept": "verdict: shows what the label says",
    "kept": "whether the image is published",
    "reason": "kept, or the first filter that refused it",
    "shard": "tar that holds the image; null where it was not published",
    "image_sha256": "SHA-256 of the encoded image",
    "lof": "local outlier factor among the training images; larger is rarer",
    "rarity_score": "radius of the smallest real neighbourhood around the image; infinite outside of all",
    "copy_ratio": "nearest over mean distance to the nearest training images; far below 1: a near-copy of one",
    "p_real": "the discriminator's p(real): that the image is no synthetic negative",
    "label_probability": "the discriminator's probability of the label",
    "label_margin": "the same less that of the likeliest other label",
    "minority_score_quantile": "of minority_score among validation images, which the backbone never saw",
    "negative_elbo_quantile": "of negative_elbo among them",
    "knn_distance_quantile": "of knn_distance among training images, each evaluated without itself",
    "realism_quantile": "of realism among them",
    "lof_quantile": "of lof among them",
    "rarity_score_quantile": "of rarity_score among them",
    "copy_ratio_quantile": "of copy_ratio among them",
    "p_real_quantile": "of p_real among them",
    "label_probability_quantile": "of label_probability among them",
    "label_margin_quantile": "of label_margin among them",
    "random_projection": "features projected to a few numbers that keep their distances",
    "near_duplicate_group": "key of the first candidate that this one nearly duplicates; its own where there is none",
    "root_ancestor": "sample index of the chain that it descends from; copies share it",
    "edited_source_id": "the training image that it is a variant of; null where it was drawn from noise",
    "edited_fraction": "how far up the chain that image was noised",
    "labeller_confidence": "in 0..1, how sure the ensemble that recognised the group is of it",
    "prompt": "the text that it was drawn by; null where the backbone takes none",
}
#: Of the column that tables of runs have which move real images into other groups.
EDIT_MEANINGS = {"edited_source_group": "the group of the training image that it is a variant of"}
#: Of the columns that tables of reviewed runs have beside these.
REVIEW_MEANINGS = {
    "decision": "good or bad where a person said so; null where nobody did",
    "decision_reason": "why, in the person's words",
    "decided_by": "who",
}


#: In the order of OPTIONAL_SCHEMA.
OPTIONAL_MEANINGS = {
    "zero_shot_label": "the class that explains the image best to the backbone (zero-shot diffusion classifier)",
    "zero_shot_probability": "that the backbone gives to the label that the image was drawn for",
    "zero_shot_kept": "whether zero_shot_label is that label",
}
#: Of the columns of runs with publish.provenance, in their order.
PROVENANCE_MEANINGS = {
    "backbone": "the diffusion model that drew it",
    "backbone_sha256": "SHA-256 of its weights",
    "recipe": "hash over everything that decides the run's images",
}


def card_text(
    facts: RunFacts,
    *,
    counts: Mapping[str, Mapping[str, int]],
    quotas: Mapping[str, Mapping[str, int]],
    shards: Sequence[ShardEntry],
    num_rows: int,
    weighted: bool = False,
) -> str:
    """Write the card as Markdown; a function of its arguments alone.

    Args:
        facts: What is known about the run.
        counts: Class name -> source -> published images.
        quotas: Group -> asked, kept and shortfall.
        shards: The published tars.
        num_rows: Candidates in the table, published or not.
        weighted: Whether there is a table of weights.
    """
    published = sum(shard.num_samples for shard in shards)
    meanings = _columns(facts) | (REVIEW_MEANINGS if facts.review else {})
    licences = [facts.provenance, *([facts.backbone["licence"]] if "licence" in facts.backbone else [])]
    sections = [
        front_matter(
            name=f"{facts.dataset} ({facts.run_id})", licences=licences, images=published, data_files="shards/*.tar"
        ),
        f"# {facts.dataset}, run {facts.run_id}",
        f"A training set for classifiers of {len(facts.class_names)} classes, made by minority-augment: real images, "
        "and synthetic ones that fill up its rare groups.",
        f"{published} labelled images in {len(shards)} WebDataset shards, and one row for each of {num_rows} "
        f"candidates, published or not, in `{METADATA_FILE}`. Recipe `{facts.recipe}`; backbone "
        f"{for_markdown(str(facts.backbone.get('name', 'none')))}{saw(facts)}. Trust only what `manifest.json` names.",
        "## What in it is synthetic, and how it was made\n\n" + origin_text(facts, counts),
        "## May it be used, and what for\n\n" + use_text(facts),
        "## Known limits\n\n" + limits_text(facts, quotas),
        "## How to read it\n\n" + _how_to_read(shards),
        "## What it does to classifiers\n\n" + FAIRNESS,
        "## Images by class and source\n\n" + _counts_table(counts),
        "## Quotas of synthetic images by group\n\n" + _quotas_table(quotas) if quotas else "",
        "## Where every real image is\n\n" + facts.real_images if facts.real_images else "",
        "## Review\n\n" + _review_text(facts.review) if facts.review else "",
        "## Columns of the table\n\n" + "\n".join(f"- `{name}`: {text}" for name, text in meanings.items()),
        "## Weights\n\n" + _WEIGHTS if weighted else "",
        "## Origin and licence\n\n" + for_markdown(facts.provenance.strip(), keep_lines=True),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _columns(facts: RunFacts) -> dict[str, str]:
    scores = facts.config.get("scores")
    asked = isinstance(scores, Mapping) and scores.get("zero_shot") is not None
    edit = facts.config.get("edit")
    moved = isinstance(edit, Mapping) and edit.get("sources") != "group"
    named = COLUMN_MEANINGS | (EDIT_MEANINGS if moved else {}) | (OPTIONAL_MEANINGS if asked else {})
    return named | (PROVENANCE_MEANINGS if says_itself(facts) else {})


def _review_text(review: Review) -> str:
    people = ", ".join(for_markdown(person) for person in review.decided_by) or "nobody by name"
    looked = f"Candidates were looked at by {people}; what they called bad is not published."
    if review.version_of is None:
        return looked
    return (
        f"{looked} This is a version of run `{review.version_of}`: what was refused there is left out, and its places "
        "were filled with other candidates of that run under the same rules."
    )


_WEIGHTS = (
    "`weights.parquet` has a row an image: `key`, `source_id`, `group` and `weight`. Weighted by it, every group "
    "counts alike and an image counts 1 on average: give it to a weighted sampler, or multiply the loss by it."
)


def _counts_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    sources = sorted({source for row in counts.values() for source in row})
    lines = [f"| class | {' | '.join(sources)} | all |", "|---" * (len(sources) + 2) + "|"]
    for name, row in counts.items():
        cells = [str(row.get(source, 0)) for source in sources]
        lines.append(f"| {for_markdown(name)} | {' | '.join(cells)} | {sum(row.values())} |")
    return "\n".join(lines)


def _quotas_table(quotas: Mapping[str, Mapping[str, int]]) -> str:
    lines = ["| group | asked | kept | shortfall |", "|---|---|---|---|"]
    for name, row in sorted(quotas.items()):
        lines.append(f"| {for_markdown(name)} | {row['asked']} | {row['kept']} | {row['shortfall']} |")
    return "\n".join(lines)


def _how_to_read(shards: Sequence[ShardEntry]) -> str:
    paths = ", ".join(repr(shard.path) for shard in shards[:3]) + (", ..." if len(shards) > 3 else "")
    return (
        "In this folder, by pandas (with pyarrow) and webdataset (with Pillow):\n\n"
        "```python\n"
        "from glob import glob\n\n"
        "import pandas as pd\n"
        "import webdataset as wds\n\n"
        f"table = pd.read_parquet({METADATA_FILE!r})\n"
        "published = table[table['kept']].set_index('key')\n"
        "shards = wds.WebDataset(sorted(glob('shards/*.tar')), shardshuffle=False)\n"
        "for key, image, label in shards.decode('pil').to_tuple('__key__', 'png;webp;jpg', 'cls'):\n"
        "    row = published.loc[key]\n"
        "    print(key, image.size, label, row['label_name'], row['group'], row['source'])\n"
        "```\n\n"
        f"The shards are {paths}. Any program that knows tar, PNG and Parquet reads them as well."
    )
