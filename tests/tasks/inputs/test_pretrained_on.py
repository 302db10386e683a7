"""What a backbone saw, and that it saw no test image."""

import numpy as np
import pytest

from datasets.readers.imageset import ImageSet
from datasets.runs.manifest import RunFacts
from datasets.splits.account import take_account
from tasks.config.runs import AugmentConfig
from tasks.config.sections import BackboneConfig, DatasetConfig
from tasks.errors import InputError
from tasks.inputs.pretrained_on import NEAR, check_pretrained, near_duplicates
from tasks.inputs.real_data import RealData, load_real_data

POOL = {"reader": "digits", "pool": {"take": "pool"}, "split": {"test_fraction": 0.05, "validation_fraction": 0.0}}
USER = {"reader": "digits", "pool": {"take": "user"}, "split": {"validation_each": 10, "imbalance": 10}}


def images(pixels, prefix):
    labels = np.zeros(len(pixels), dtype=np.int64)
    return ImageSet(
        name=prefix,
        labels=labels,
        groups=["class=a"] * len(pixels),
        source_ids=[f"{prefix}/{i}" for i in range(len(pixels))],
        class_names=["a"],
        image_shape=pixels.shape[1:],
        load=lambda index: pixels[index],
    )


def random_pixels(count, *, seed, shape=(32, 32, 3)):
    # Coarse pictures, so that areas keep what tells them apart.
    coarse = np.random.default_rng(seed).integers(0, 256, size=(count, 8, 8, shape[2]), dtype=np.uint8)
    return coarse.repeat(shape[0] // 8, axis=1).repeat(shape[1] // 8, axis=2)


def backbone(dataset):
    return BackboneConfig(path="anywhere", pretrained_on={"what": "a pool", "dataset": dataset})


def test_a_near_duplicate_is_found_through_noise_size_and_colour():
    rng = np.random.default_rng(0)
    seen, mine = random_pixels(40, seed=1), random_pixels(10, seed=2)
    copy = np.clip(seen[17].astype(int) + rng.integers(-6, 7, size=seen[17].shape), 0, 255)
    mine[4] = copy[:, :, :]

    assert near_duplicates(images(mine, "mine"), images(seen, "seen")) == (("mine/4", "seen/17"),)
    smaller = seen[:, ::2, ::2]
    assert near_duplicates(images(mine, "mine"), images(smaller, "small")) == (("mine/4", "small/17"),)


def test_pictures_farther_apart_than_the_tolerance_are_not_near():
    seen = np.full((1, 16, 16, 1), 100, dtype=np.uint8)
    within, beyond = (np.full((1, 16, 16, 1), 100 + step, dtype=np.uint8) for step in (5, 6))

    assert 5 / 255 < NEAR < 6 / 255
    assert len(near_duplicates(images(within, "a"), images(seen, "s"))) == 1
    assert near_duplicates(images(beyond, "a"), images(seen, "s")) == ()


def test_a_pool_without_the_users_images_passes_and_is_told():
    real = load_real_data(DatasetConfig(**USER))

    found = check_pretrained(backbone(POOL), real)

    assert found is not None
    assert found.pairs == {"training": (), "validation": (), "test": ()}
    assert found.to_text().startswith("The backbone saw 854 images; near-duplicates among the user's: 0 of training")


def test_a_test_image_that_the_backbone_saw_is_refused_by_name():
    whole = load_real_data(DatasetConfig(reader="digits"))
    leaked = whole.test.subset([0, 1])
    real = RealData(
        train=whole.train.subset([0]),
        validation=whole.validation.subset([0]),
        test=leaked,
        groups=[whole.train.groups[0]],
        licence="",
        account=take_account({"train": leaked}, left_out={}, unreadable=[], num_beyond_cap=0, notes=[]),
    )
    # A split of another seed: its training images hold some of the test images.
    seen = {"reader": "digits", "split": {"seed": 5, "test_fraction": 0.01, "validation_fraction": 0.0}}

    with pytest.raises(InputError, match=r"saw 2 of 2 test images \(digits/\d+ is nearly digits/\d+; "):
        check_pretrained(backbone(seen), real)


def test_what_is_not_said_is_not_checked():
    real = load_real_data(DatasetConfig(**USER))

    assert check_pretrained(BackboneConfig(path="anywhere"), real) is None
    assert check_pretrained(BackboneConfig(path="anywhere", pretrained_on={"what": "the web"}), real) is None


def test_saying_what_a_backbone_saw_changes_no_recipe(tiny_config):
    plain, told = tiny_config(), tiny_config(backbone__pretrained_on={"what": "the web"})

    def recipe(config: AugmentConfig) -> str:
        return config.recipe(backbone_identity="a" * 64, real_digest="b" * 64)

    assert recipe(plain) == recipe(told)
    assert "pretrained_on" not in plain.backbone.model_dump()


def test_the_card_says_what_the_backbone_saw(tiny_config):
    from datasets.runs.card import card_text

    config = tiny_config(backbone__pretrained_on={"what": "the web | 2019"}).model_dump(mode="json")
    facts = RunFacts(
        dataset="d",
        run_id="r",
        recipe="0" * 12,
        config=config,
        backbone={"name": "tiny", "sha256": "0" * 64},
        versions={},
        class_names=["a"],
        provenance="mine",
    )

    assert "backbone tiny, which saw the web \\| 2019." in card_text(facts, counts={}, quotas={}, shards=[], num_rows=0)
