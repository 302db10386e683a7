"""The images that arms are trained, tuned and tested on, out of real data and a published run.

Shapes: N images, H x W pixels, C channels, G groups.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from datasets.readers.imageset import ImageSet
from datasets.streaming.published import read_published
from minority.downstream.data import DownstreamData, LabelledImages
from minority.runtime.image_arrays import Images
from minority.selection.choice import choose
from minority.selection.policy import POLICIES, Policy, asked_columns
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.published_run import PublishedRun
from tasks.inputs.real_data import RealData
from tasks.inputs.real_images import images_of

#: What the published synthetic images are called, and what they are compared with: the same sampler's candidates as
#: they came, and plain ancestral samples.
SELECTED, UNSELECTED, PLAIN = "minority", "unselected", "plain"
#: Values that an attribute may have at most to be one that fairness is evaluated by.
_MOST_VALUES = 8


def real_images(real: RealData, *, by_class: bool = False) -> DownstreamData:
    """The real images as arms take them.

    Validation and test images of groups that the training split lacks are left out.

    Args:
        real: The images by split.
        by_class: Take the classes for the groups, whatever groups the set has.
    """
    groups = None if by_class else real.groups
    train, validation, test = (labelled(part, groups) for part in (real.train, real.validation, real.test))
    sensitive = {
        name: values
        for name, values in _known(real.test, groups).attributes.items()
        if 2 <= len({value for value in values if value is not None}) <= _MOST_VALUES
    }
    return DownstreamData(
        train=train,
        validation=validation,
        test=test,
        class_names=tuple(real.train.class_names),
        group_names=tuple(groups or real.train.class_names),
        sensitive=sensitive,
    )


def sources_of(config: AugmentConfig, *, policies: Sequence[Policy] = ()) -> list[str]:
    """The sources of synthetic images that a run of this config has.

    Args:
        config: The run's config.
        policies: Further choices among its candidates; each is a source of every sampler, e.g. minority-clean.

    Raises:
        InputError: A policy asks what the run's filter does not say.
    """
    if "consistent" in policies and config.selection.held_out is None:
        raise InputError(
            "downstream.policies: consistent goes by the discriminator's margin of the label, which this run does not "
            "have; leave it out, or augment with selection.held_out."
        )
    if "recognised" in policies and config.scores.zero_shot is None:
        raise InputError(
            "downstream.policies: recognised goes by the backbone's zero-shot classifier, which this run did not ask; "
            "leave it out, or augment with scores.zero_shot."
        )
    samplers = [SELECTED, *([PLAIN] if config.plan.baseline else [])]
    further = [f"{sampler}-{policy}" for sampler in samplers for policy in dict.fromkeys(policies)]
    return [SELECTED, UNSELECTED, *samplers[1:], *further]


def images_of_run(run: PublishedRun, sources: Sequence[str]) -> DownstreamData:
    """The real images of a run and, of each source, as many synthetic ones of every group as its quota asks for.

    Args:
        run: The run.
        sources: Some of `sources_of`.
    """
    data = real_images(run.real)
    return DownstreamData(**{**vars(data), "synthetic": {source: _synthetic(run, source) for source in sources}})


def _synthetic(run: PublishedRun, source: str) -> LabelledImages:
    name, _, further = source.partition("-")
    rows = run.metadata[run.metadata["sampler"] == (PLAIN if name == PLAIN else "minority")]
    if source == SELECTED:
        rows = rows[rows["kept"]]
        if rows.empty:
            return _with_rows(run.images([]), rows, run)
        published = read_published(run.url, source="synthetic")
        position = {key: i for i, key in enumerate(published.source_ids)}
        chosen = published.subset(np.array([position[key] for key in rows["key"]], dtype=np.int64))
        return _with_rows(images_of(chosen), rows, run)
    # As they came, unless a policy chooses.
    policy: Policy = next((policy for policy in POLICIES if policy == further), "all")
    rows = rows[_chosen(run, rows, policy)]
    return _with_rows(run.images(list(rows["key"])), rows, run)


def _chosen(run: PublishedRun, rows: pd.DataFrame, policy: Policy) -> np.ndarray:
    """(N,) whether a policy keeps each row, up to the quotas that the run was asked for."""
    number = {name: i for i, name in enumerate(run.manifest.quotas)}
    kept, _ = choose(
        {name: rows[name].to_numpy() for name in asked_columns(policy)},
        rows["group"].map(number).to_numpy().astype(np.int64),
        quotas={number[group]: quota["asked"] for group, quota in run.manifest.quotas.items()},
        policy=policy,
        rounds=rows["round"].to_numpy().astype(np.int64),
    )
    return kept


def _with_rows(images: Images, rows: pd.DataFrame, run: PublishedRun) -> LabelledImages:
    number = {name: i for i, name in enumerate(run.real.groups)}
    groups = np.array([number[group] for group in rows["group"]], dtype=np.int64)
    attributes = attributes_of(list(rows["group"]), run.real.groups)
    return LabelledImages(images, rows["label"].to_numpy(dtype=np.int64), groups, attributes)


def attributes_of(groups: Sequence[str], known: Sequence[str]) -> np.ndarray | None:
    """(N,) the attribute in each image's group: what stands behind its class, numbered in order of its name.

    Args:
        groups: N groups, "class=coat,sex=female".
        known: All groups, which decide the numbers.

    Returns:
        None where groups are classes alone.
    """
    values = sorted({group.partition(",")[2] for group in known})
    if len(values) < 2:
        return None
    number = {value: index for index, value in enumerate(values)}
    return np.array([number[group.partition(",")[2]] for group in groups], dtype=np.int64)


def labelled(part: ImageSet, groups: Sequence[str] | None) -> LabelledImages:
    """A part's images with their classes and the numbers of their groups; those of other groups are left out.

    Args:
        part: The images.
        groups: All groups, which decide the numbers; None takes the classes for them.
    """
    part = _known(part, groups)
    labels = np.asarray(part.labels, dtype=np.int64)
    number = {name: i for i, name in enumerate(groups or ())}
    group_indices = labels if groups is None else np.array([number[group] for group in part.groups], dtype=np.int64)
    attributes = None if groups is None else attributes_of(part.groups, groups)
    return LabelledImages(images_of(part), labels, group_indices, attributes)


def _known(part: ImageSet, groups: Sequence[str] | None) -> ImageSet:
    if groups is None:
        return part
    known = set(groups)
    return part.subset(np.flatnonzero([group in known for group in part.groups]))
