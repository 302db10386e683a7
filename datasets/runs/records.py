"""One row a candidate: the schema of metadata.parquet and of every unit's table.

The columns are declared here and nowhere else. Real training images of a balanced set have a row too; their generation
columns are null.
"""

from collections.abc import Collection

import pyarrow as pa

METADATA_SCHEMA = pa.schema(
    [
        # Which image.
        pa.field("key", pa.string(), nullable=False),  # unique in the run; the basename inside the shard
        pa.field("source", pa.string(), nullable=False),  # "real" or "synthetic"
        pa.field("sampler", pa.string(), nullable=False),  # "real", "minority" or "plain" (the baseline)
        pa.field("source_id", pa.string()),  # where a real image comes from, e.g. "digits/00017"
        # How it was made.
        pa.field("sample_index", pa.int64()),
        pa.field("seed", pa.int64()),
        pa.field("round", pa.int32()),
        pa.field("unit", pa.string()),
        pa.field("guidance", pa.string()),  # the sampler's settings as JSON
        pa.field("evaluations", pa.float32()),  # denoiser forward passes this sample took, backward passes weighed in
        # What it shows.
        pa.field("label", pa.int32(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        # Scores.
        pa.field("minority_score", pa.float32()),  # larger = rarer
        pa.field("negative_elbo", pa.float32()),  # bits/dim
        pa.field("knn_distance", pa.float32()),  # mean distance to the k nearest training images
        pa.field("nearest_distance", pa.float32()),  # distance to the nearest training image
        pa.field("nearest_source_id", pa.string()),  # that image
        pa.field("realism", pa.float32()),  # > 1: inside the k-NN manifold of the training split
        pa.field("label_agreement", pa.float32()),  # in [0, 1]: how much nearer the own label's training images are
        # Verdicts of the filters; null for real images.
        pa.field("rare", pa.bool_()),
        pa.field("valid", pa.bool_()),
        pa.field("new", pa.bool_()),
        pa.field("label_kept", pa.bool_()),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # "kept", or the first filter that refused it
        # Where it went.
        pa.field("shard", pa.string()),  # null where the image was not published
        pa.field("image_sha256", pa.string()),  # of the encoded image in the shard or unit
        # More scores; null where they were not computed.
        pa.field("lof", pa.float32()),  # local outlier factor among the training images
        pa.field("rarity_score", pa.float32()),  # radius of the smallest real neighbourhood around it; inf: in none
        pa.field("copy_ratio", pa.float32()),  # nearest_distance over knn_distance; far below 1: a near-copy
        pa.field("p_real", pa.float32()),  # the discriminator's p(real): that it is no synthetic negative
        pa.field("label_probability", pa.float32()),  # the discriminator's probability of the label
        pa.field("label_margin", pa.float32()),  # that, less the probability of the likeliest other label
        # Quantiles among real images that the score was not fitted on, in [0, 1]: validation images for the scores of
        # the backbone, training images for all others, each left out of its own neighbours or discriminator.
        pa.field("minority_score_quantile", pa.float32()),
        pa.field("negative_elbo_quantile", pa.float32()),
        pa.field("knn_distance_quantile", pa.float32()),
        pa.field("realism_quantile", pa.float32()),
        pa.field("lof_quantile", pa.float32()),
        pa.field("rarity_score_quantile", pa.float32()),
        pa.field("copy_ratio_quantile", pa.float32()),
        pa.field("p_real_quantile", pa.float32()),
        pa.field("label_probability_quantile", pa.float32()),
        pa.field("label_margin_quantile", pa.float32()),
        # Among the candidates.
        pa.field(
            "random_projection", pa.list_(pa.float32())
        ),  # features projected to a few numbers that keep distances
        pa.field("near_duplicate_group", pa.string()),  # key of the first candidate that it nearly duplicates
        # Where chains were pruned: sample_index of the one that it descends from; copies have the same.
        pa.field("root_ancestor", pa.int64()),
        # Of variants of real images (edit).
        pa.field("edited_source_id", pa.string()),  # the training image that it is a variant of
        pa.field("edited_fraction", pa.float32()),  # t0 / T: how far up the chain that image was noised
        # Where groups were recognised. Tables without this column have it in label_agreement.
        pa.field("labeller_confidence", pa.float32()),  # in [0, 1]: how sure the ensemble is of the group
        # Of text-to-image backbones.
        pa.field("prompt", pa.string()),  # what it was drawn by
    ]
)

#: What classifiers of label and attributes say of a candidate. Only tables of runs that ask them have these columns.
FACTOR_COLUMNS = (
    pa.field("shows_label", pa.bool_()),  # whether the label that was asked for is shown
    pa.field("shows_attributes", pa.bool_()),  # whether every attribute value that was asked for is
)
#: Of variants of real images that were moved into another group. Only tables of runs that do so have this column.
EDIT_COLUMNS = (pa.field("edited_source_group", pa.string()),)  # the group of the training image that it varies
#: What a person said of a candidate. Only tables of runs that were reviewed have these columns.
REVIEW_FIELDS = (
    pa.field("decision", pa.string()),  # "good", "bad", or null where nobody said anything
    pa.field("decision_reason", pa.string()),  # why, in the reviewer's words
    pa.field("decided_by", pa.string()),  # who
)
REVIEW_COLUMNS = tuple(field.name for field in REVIEW_FIELDS)
#: Columns of runs that ask for them (scores.zero_shot), behind all others; tables without them are as they always were.
OPTIONAL_SCHEMA = pa.schema(
    [
        pa.field("zero_shot_label", pa.int32()),  # the class that explains it best to the backbone (Li et al. 2023)
        pa.field("zero_shot_probability", pa.float32()),  # that the backbone gives to the label it was drawn for
        pa.field("zero_shot_kept", pa.bool_()),  # whether zero_shot_label is that label
    ]
)
#: What made a synthetic image, beside `seed` and `sample_index`. Only tables of runs that ask for it
#: (publish.provenance) have these columns; the manifest says the same of every run as a whole.
PROVENANCE_FIELDS = (
    pa.field("backbone", pa.string()),
    pa.field("backbone_sha256", pa.string()),  # of its weights
    pa.field("recipe", pa.string()),
)
#: Every column that a table may have.
ALL_COLUMNS = pa.schema(
    [*METADATA_SCHEMA, *FACTOR_COLUMNS, *EDIT_COLUMNS, *REVIEW_FIELDS, *OPTIONAL_SCHEMA, *PROVENANCE_FIELDS]
)

#: Names that columns had before -> those of now. Tables are read under both (datasets/runs/tables.py).
FORMER_COLUMNS = {
    "realness": "p_real",
    "realness_quantile": "p_real_quantile",
    "fingerprint": "random_projection",
    "founder": "root_ancestor",
}

# One row a published image, for training jobs that weigh the real images instead of adding synthetic ones.
WEIGHTS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # as in METADATA_SCHEMA, like source_id and group
        pa.field("source_id", pa.string()),
        pa.field("group", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),  # mean 1; every group has the same sum
    ]
)


def schema_for(columns: Collection[str]) -> pa.Schema:
    """The schema of a table with these columns: METADATA_SCHEMA, and the columns that only some runs have."""
    kinds = (FACTOR_COLUMNS, EDIT_COLUMNS, REVIEW_FIELDS, tuple(OPTIONAL_SCHEMA), PROVENANCE_FIELDS)
    some = [parts for parts in kinds if {field.name for field in parts} & set(columns)]
    return pa.schema([*METADATA_SCHEMA, *(field for parts in some for field in parts)]) if some else METADATA_SCHEMA
