from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tasks.commands.images import compare_to_folder, draw_to_folder, list_samplers
from tasks.commands.scoring import score_folder, score_settings
from tasks.errors import InputError

QUICK = {"steps": 3}


def draw(backbone, out, **changes):
    arguments = {"num": 4, "sampler": QUICK, "labels": None, "seed": 0, "flags": {}} | changes
    return draw_to_folder(backbone, out, **arguments)


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


@pytest.fixture
def photos(tmp_path):
    """Three classes of two 8x8 grey images, by their numbers."""
    rng = np.random.default_rng(0)
    for name in ("1", "4", "7"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            image.save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_samples_come_as_numbered_files_with_their_label_and_a_grid(tiny_backbone, tmp_path):
    assert draw(tiny_backbone, tmp_path / "out", num=3, labels=[7, 2]) == 3.0  # evaluations a sample

    drawn = pixels(tmp_path / "out")
    assert list(drawn) == ["000000-7.png", "000001-2.png", "000002-7.png", "grid.png"]
    assert drawn["000000-7.png"].shape == (8, 8)
    assert drawn["grid.png"].shape == (65, 65)  # two by two, enlarged to 32 pixels, a line between


def test_a_seed_decides_the_samples(tiny_backbone, tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw(tiny_backbone, tmp_path / folder, seed=seed)

    a, b, c = (pixels(tmp_path / folder)["000001-1.png"] for folder in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_sample_does_not_depend_on_how_many_are_drawn(tiny_backbone, tmp_path):
    draw(tiny_backbone, tmp_path / "few", num=2)
    draw(tiny_backbone, tmp_path / "many", num=5)

    few, many = (pixels(tmp_path / folder)["000001-1.png"].astype(int) for folder in ("few", "many"))
    assert abs(few - many).max() <= 1  # a network may round another way in another batch


def test_an_unconditional_backbone_draws_without_labels(make_backbone, tmp_path):
    backbone = make_backbone(tmp_path / "plain", channels=3, num_classes=None)

    draw(backbone, tmp_path / "out", num=1)

    assert pixels(tmp_path / "out")["000000.png"].shape == (8, 8, 3)
    with pytest.raises(InputError, match="takes no labels; leave --label out"):
        draw(backbone, tmp_path / "out", labels=[1])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"labels": [3, 10]}, "label 10 is not one of backbone tiny's 0 ... 9"),
        ({"sampler": {"stepz": 3}}, "sampler.stepz is not a setting; did you mean steps"),
        ({"sampler": {"self_guidance.scale": "much"}}, "sampler.self_guidance.scale: "),
        ({"sampler": {"batch_size": 0}}, "SamplerSettings.batch_size must be at least 1, got 0"),
        ({"sampler": {"steps": 5, "steps.deep": 1}}, "steps is a single value, 5"),
        ({"sampler": {"steps": 5000}}, "5000"),
    ],
    ids=["label", "unknown setting", "wrong type", "out of range", "below a value", "too many steps"],
)
def test_what_cannot_be_drawn_is_refused_in_one_line_before_anything_is_written(tiny_backbone, tmp_path, changes, rule):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        draw(tiny_backbone, tmp_path / "out", **changes)

    assert rule in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_every_image_of_a_folder_gets_a_row(tiny_backbone, photos, tmp_path):
    scored = score_folder(photos, tiny_backbone, tmp_path / "deep" / "scores.parquet", seed=0, flags={})

    scores = pd.read_parquet(tmp_path / "deep" / "scores.parquet")
    assert scored["images"] == len(scores) == 6
    assert scored["minority_score"]["largest"] == pytest.approx(scores["minority_score"].max())
    assert scores["file"].tolist() == [f"{name}/{i}.png" for name in "147" for i in range(2)]
    assert scores["label"].tolist() == [1, 1, 4, 4, 7, 7]
    assert np.isfinite(scores[["minority_score", "negative_elbo"]]).all().all()


def test_scores_are_the_same_every_time(tiny_backbone, photos, tmp_path):
    for name in ("one", "two"):
        score_folder(photos, tiny_backbone, tmp_path / name, seed=3, flags={})

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_images_of_another_size_than_the_backbones_are_refused(make_backbone, photos, tmp_path):
    large = make_backbone(tmp_path / "large", side=16)

    with pytest.raises(InputError, match=r"holds images of \(1, 8, 8\) .* backbone large makes \(1, 16, 16\)"):
        score_folder(photos, large, tmp_path / "scores.parquet", seed=0, flags={})

    assert not (tmp_path / "scores.parquet").exists()


def test_images_are_cut_and_resized_where_that_is_asked_for(make_backbone, photos, tmp_path):
    large = make_backbone(tmp_path / "large", side=16)
    Image.fromarray(np.zeros((30, 12), dtype=np.uint8)).save(photos / "1" / "0.png")

    scored = score_folder(photos, large, tmp_path / "scores.parquet", seed=0, flags={}, resize=True)

    assert scored["images"] == 6
    assert np.isfinite(pd.read_parquet(tmp_path / "scores.parquet")["minority_score"]).all()


def test_resizing_makes_no_colour_of_grey(make_backbone, photos, tmp_path):
    coloured = make_backbone(tmp_path / "coloured", side=16, channels=3)

    with pytest.raises(InputError, match=r"holds grey images .* backbone coloured makes colour ones .*; convert them"):
        score_folder(photos, coloured, tmp_path / "scores.parquet", seed=0, flags={}, resize=True)


def test_more_class_folders_than_the_backbone_knows_are_refused(make_backbone, photos, tmp_path):
    narrow = make_backbone(tmp_path / "narrow", num_classes=2)

    with pytest.raises(InputError, match="has 3 class folders, backbone narrow knows 2"):
        score_folder(photos, narrow, tmp_path / "scores.parquet", seed=0, flags={})


def test_samplers_are_compared_on_the_same_seeds(tiny_backbone, tmp_path):
    costs = compare_to_folder(
        tiny_backbone, tmp_path, ["ancestral", "boost-and-skip"], num=2, labels=[3], seed=0, flags={}
    )

    # Boost-and-Skip leaves out 6 of 50 steps.
    assert costs == {"ancestral": 50.0, "boost-and-skip": 44.0}
    rows = [pixels(tmp_path / name) for name in ("ancestral", "boost-and-skip")]
    assert [list(row) for row in rows] == [["000000-3.png", "000001-3.png"]] * 2
    assert not np.array_equal(rows[0]["000000-3.png"], rows[1]["000000-3.png"])
    # Two rows of two, enlarged to 32 pixels, two pixels around each.
    assert pixels(tmp_path)["grid.png"].shape == (2 * 34 + 2, 2 * 34 + 2)


def test_an_unknown_sampler_is_refused_before_anything_is_drawn(tiny_backbone, tmp_path):
    with pytest.raises(InputError, match="there is no sampler 'sgsm'"):
        compare_to_folder(tiny_backbone, tmp_path / "out", ["ancestral", "sgsm"], num=2, labels=None, seed=0, flags={})
    assert not (tmp_path / "out").exists()


def test_labels_come_from_folders_named_by_number_in_any_number_of_them(make_backbone, photos, tmp_path):
    for name in ("10", "02"):
        (photos / name).mkdir()
        Image.fromarray(np.full((8, 8), 9, np.uint8)).save(photos / name / "0.png")
    wide = make_backbone(tmp_path / "wide", num_classes=12)

    score_folder(photos, wide, tmp_path / "scores.parquet", seed=0, flags={})

    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert scores["label"].tolist() == [1, 1, 2, 4, 4, 7, 7, 10]
    assert (scores["file"].str.split("/").str[0].astype(int) == scores["label"]).all()


def test_as_many_folders_as_the_backbone_knows_classes_are_its_classes(make_backbone, photos, tmp_path):
    narrow = make_backbone(tmp_path / "narrow", num_classes=3)
    for old, new in (("1", "cat"), ("4", "dog"), ("7", "owl")):
        (photos / old).rename(photos / new)

    score_folder(photos, narrow, tmp_path / "scores.parquet", seed=0, flags={})

    assert pd.read_parquet(tmp_path / "scores.parquet")["label"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("cat", "3 class folders, backbone tiny knows 10 classes, and the name '1' tells no number"),
        ("10", "has the class folder 10, backbone tiny knows the classes 0 ... 9"),
        ("-1", "has the class folder -1, backbone tiny knows the classes 0 ... 9"),
    ],
)
def test_a_folder_that_tells_no_class_is_refused(tiny_backbone, photos, tmp_path, name, rule):
    (photos / "7").rename(photos / name)

    with pytest.raises(InputError) as caught:
        score_folder(photos, tiny_backbone, tmp_path / "scores.parquet", seed=0, flags={})

    assert rule in str(caught.value)
    assert not (tmp_path / "scores.parquet").exists()


def test_drawn_samples_are_scored_by_the_label_in_their_names(tiny_backbone, tmp_path):
    draw(tiny_backbone, tmp_path / "rare", num=3, labels=[7, 2])
    told = []

    score_folder(tmp_path / "rare", tiny_backbone, tmp_path / "flat.parquet", seed=0, flags={}, tell=told.append)

    flat = pd.read_parquet(tmp_path / "flat.parquet")
    assert flat["label"].tolist() == [7, 2, 7]
    assert told == [f"{tmp_path / 'rare'}: passed over, overview of drawn images: 1 (such as grid.png)"]


def test_the_label_decides_the_score(tiny_backbone, tmp_path):
    """The same three images: as drawn, and in class folders."""
    draw(tiny_backbone, tmp_path / "rare", num=2, labels=[2, 7])
    for name, label in (("000000-2.png", "2"), ("000001-7.png", "7")):
        (tmp_path / "sorted" / label).mkdir(parents=True)
        (tmp_path / "sorted" / label / name).write_bytes((tmp_path / "rare" / name).read_bytes())

    for folder in ("rare", "sorted"):
        score_folder(tmp_path / folder, tiny_backbone, tmp_path / f"{folder}.parquet", seed=0, flags={})

    rare, in_classes = (pd.read_parquet(tmp_path / f"{folder}.parquet") for folder in ("rare", "sorted"))
    assert rare.drop(columns="file").equals(in_classes.drop(columns="file"))


def flat(folder, names):
    folder.mkdir()
    for number, name in enumerate(names):
        Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["a.png", "b.png"], "has no class folders, and backbone tiny needs a label for every image"),
        (["000000-3.png", "b.png"], "has 1 files named by their label, such as 000000-3.png, but b.png is not"),
        (
            ["000000-3.png", "000001-10.png"],
            "has a file named by the label 10, backbone tiny knows the classes 0 ... 9",
        ),
        (["2020-3.png"], "has no class folders"),
    ],
)
def test_a_flat_folder_without_labels_asks_for_class_folders(tiny_backbone, tmp_path, names, rule):
    folder = flat(tmp_path / "flat", names)

    with pytest.raises(InputError) as caught:
        score_folder(folder, tiny_backbone, tmp_path / "scores.parquet", seed=0, flags={})

    assert rule in str(caught.value)


def test_where_no_label_is_told_the_label_is_null(make_backbone, tmp_path):
    folder = flat(tmp_path / "flat", ["a.png", "b.png"])
    plain = make_backbone(tmp_path / "plain", num_classes=None)

    score_folder(folder, plain, tmp_path / "scores.parquet", seed=0, flags={})

    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert scores["label"].isna().all()
    assert np.isfinite(scores["minority_score"]).all()


def test_a_backbone_that_knows_no_label_is_told_that(make_backbone, tmp_path):
    folder = flat(tmp_path / "flat", ["a.png", "b.png"])
    dropped = make_backbone(tmp_path / "dropped", num_classes=11)
    (tmp_path / "dropped" / "minority.json").write_text('{"num_classes": 10}')  # the last embedding stands for none
    (tmp_path / "classes" / "10").mkdir(parents=True)
    for file in folder.iterdir():
        (tmp_path / "classes" / "10" / file.name).write_bytes(file.read_bytes())
    eleven = make_backbone(tmp_path / "eleven", num_classes=11)

    score_folder(folder, dropped, tmp_path / "none.parquet", seed=0, flags={})
    score_folder(tmp_path / "classes", eleven, tmp_path / "ten.parquet", seed=0, flags={})

    none, ten = (pd.read_parquet(tmp_path / name) for name in ("none.parquet", "ten.parquet"))
    assert none["label"].isna().all()
    assert ten["label"].tolist() == [10, 10]
    np.testing.assert_array_equal(none["minority_score"], ten["minority_score"])


def test_all_damaged_images_are_named_at_once(tiny_backbone, photos, tmp_path):
    (photos / "1" / "0.png").write_bytes(b"")
    (photos / "7" / "1.png").write_bytes((photos / "7" / "1.png").read_bytes()[:60])

    with pytest.raises(InputError, match=r"2 of 6 images cannot be used: .*1/0\.png is an empty .*7/1\.png cannot be"):
        score_folder(photos, tiny_backbone, tmp_path / "scores.parquet", seed=0, flags={})


def test_what_needs_real_images_says_so_without_a_preset(tiny_backbone, tmp_path):
    for name in ("low-density", "minority-guidance", "jepa", "prune-by-features"):
        with pytest.raises(InputError, match=r"needs real images, and a backbone alone has none.* --preset NAME"):
            draw(tiny_backbone, tmp_path / "out", sampler={"name": name, **QUICK})
    with pytest.raises(InputError, match="either --backbone or --preset"):
        draw(None, tmp_path / "out")
    with pytest.raises(InputError, match="either --backbone or --preset"):
        draw(tiny_backbone, tmp_path / "out", preset="digits")
    with pytest.raises(InputError, match="--set seed: without a preset there are settings of sampler alone"):
        draw(tiny_backbone, tmp_path / "out", changes={"seed": 1})
    assert not (tmp_path / "out").exists()


def test_a_preset_brings_its_real_images_along(tiny_overrides, tmp_path):
    given = {
        "preset": "digits",
        "changes": tiny_overrides | {"store": str(tmp_path / "store")},
        "num": 3,
        "labels": [1],
    }
    quick = {"steps": 3, "low_density.training": {"width": 8, "steps": 2}, "low_density.plain_samples": 8}

    draw(None, tmp_path / "low", sampler={"name": "low-density", **quick}, **given)
    draw(None, tmp_path / "plain", sampler={"name": "ancestral"} | QUICK, **given)
    draw(None, tmp_path / "own", sampler={}, **given)

    low, plain, own = (pixels(tmp_path / name)["000000-1.png"] for name in ("low", "plain", "own"))
    assert not np.array_equal(low, plain)
    assert not np.array_equal(own, plain)
    assert len(list((tmp_path / "store" / "digits" / "guidance").rglob("*.safetensors"))) == 4


def test_every_sampler_is_listed_with_its_paper():
    listed = {sampler.name: sampler.text for sampler in list_samplers()}

    for name, paper in {"sgms": "ECCV 2024", "boost-and-skip": "ICML 2025", "low-density": "CVPR 2022"}.items():
        assert paper in listed[name]
    for name in ("minority-guidance", "jepa", "prune-by-features", "low-density"):
        assert f"{name} (needs --preset)" in listed[name]
    assert "needs --preset" not in listed["sgms"]


def spoil(folder):
    """Put NaN into a backbone's last weights, as a diverged training leaves it. Returns the folder."""
    path = Path(folder) / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.bias"][0] = float("nan")
    save_file(tensors, path)
    return folder


def test_a_network_that_diverged_writes_no_image(make_backbone, photos, tmp_path):
    bad = spoil(make_backbone(tmp_path / "bad"))

    with pytest.raises(InputError, match=r"holds NaN or infinity in 1 of \d+ tensors \(conv_out\.bias\)"):
        draw(bad, tmp_path / "out")
    with pytest.raises(InputError, match=r"conv_out\.bias"):
        compare_to_folder(bad, tmp_path / "out", ["ancestral"], num=1, labels=None, seed=0, flags={})
    with pytest.raises(InputError, match=r"conv_out\.bias"):
        score_folder(photos, bad, tmp_path / "out" / "scores.parquet", seed=0, flags={})

    assert not (tmp_path / "out").exists()


def test_weights_that_answer_no_number_though_they_are_numbers_write_no_image(make_backbone, photos, tmp_path):
    huge = make_backbone(tmp_path / "huge")
    path = Path(huge) / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"].fill_(3e38)
    save_file(tensors, path)

    with pytest.raises(
        ValueError, match=r"^backbone huge in fp32: the network's first answer \(eps at step 2\) is NaN"
    ):
        draw(huge, tmp_path / "out")
    with pytest.raises(ValueError, match=r"^backbone huge in fp32: the network's first answer"):
        score_folder(photos, huge, tmp_path / "out" / "scores.parquet", seed=0, flags={})

    assert not (tmp_path / "out").exists()


def test_bits_take_the_variance_that_was_asked_for(tiny_backbone, photos, tmp_path):
    def bits(**options):
        settings = score_settings(**{"variance": "auto", "elbo_steps": 10} | options)
        score_folder(photos, tiny_backbone, tmp_path / "scores", seed=0, flags={}, settings=settings)
        return pd.read_parquet(tmp_path / "scores")["negative_elbo"].to_numpy()

    default = bits()
    np.testing.assert_array_equal(default, bits(variance="fixed_large"))
    assert (bits(variance="fixed_small") > default + 20).all()
    assert not np.array_equal(default, bits(elbo_steps=5))
    with pytest.raises(
        InputError, match="--variance must be one of auto, learned_range, fixed_small, fixed_large, got"
    ):
        score_settings(variance="large", elbo_steps=10)
