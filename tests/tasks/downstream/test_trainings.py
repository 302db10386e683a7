import numpy as np

from minority.downstream.arms import arms_for, backbone_arms
from minority.downstream.data import DownstreamData, LabelledImages
from tasks.downstream.trainings import _without_images

CLASS_NAMES = ("cat", "dog", "owl")


def part(labels):
    labels = np.array(labels, dtype=np.int64)
    return LabelledImages(np.zeros((len(labels), 8, 8, 1), dtype=np.uint8), labels, labels)


def data_with(synthetic):
    real = part([0, 1, 2])
    return DownstreamData(
        train=real,
        validation=real,
        test=real,
        class_names=CLASS_NAMES,
        group_names=CLASS_NAMES,
        synthetic={source: part(labels) for source, labels in synthetic.items()},
    )


def test_an_arm_of_synthetic_images_alone_is_skipped_where_a_class_has_none():
    arms = (*arms_for(["plain"]), *backbone_arms(["plain"], conditional=True))
    alone = {arm.name for arm in arms if arm.source == "plain" and arm.synthetic_share == 1 and arm.draws != "filled"}

    skipped = _without_images(arms, data_with({"plain": [0, 0, 2]}))

    assert "plain alone" in alone
    assert set(skipped) == alone
    assert skipped["plain alone"].startswith(
        "it learns from synthetic images alone, and class dog has none; plan.quota"
    )
    assert _without_images(arms, data_with({"plain": [0, 1, 2]})) == {}


def test_every_arm_of_a_source_without_any_image_is_skipped_and_no_other():
    arms = arms_for(["plain", "minority"])

    skipped = _without_images(arms, data_with({"plain": [0, 1, 2], "minority": []}))

    assert set(skipped) == {arm.name for arm in arms if arm.source == "minority"}
    assert set(skipped.values()) == {"the run has no synthetic image of minority"}
