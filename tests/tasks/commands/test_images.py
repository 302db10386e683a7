from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tasks.commands.images import compare_to_folder, draw_to_folder, score_folder, score_settings
from tasks.errors import InputError

QUICK = {"steps": 3}


def draw(backbone, out, **changes):
    arguments = {"num": 4, "sampler": QUICK, "labels": None, "seed": 0, "flags": {}} | changes
    return draw_to_folder(backbone, out, **arguments)


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


@pytest.fixture
def photos(tmp_path):
    """Three classes of two 8x8 grey images."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            image.save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def test_samples_come_as_numbered_files_with_their_label_and_a_grid(tiny_backbone, tmp_path):
    assert draw(tiny_backbone, tmp_path / "out", num=3, labels=[7, 2]) == 3

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
        ({"sampler": {"stepz": 3}}, "--guidance: sampler.stepz is not a setting; did you mean steps"),
        ({"sampler": {"self_guidance.scale": "much"}}, "--guidance: sampler.self_guidance.scale: "),
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
    count = score_folder(photos, tiny_backbone, tmp_path / "deep" / "scores.parquet", seed=0, flags={})

    scores = pd.read_parquet(tmp_path / "deep" / "scores.parquet")
    assert count == len(scores) == 6
    assert scores["file"].tolist() == [f"{name}/{i}.png" for name in "abc" for i in range(2)]
    assert scores["label"].tolist() == [0, 0, 1, 1, 2, 2]
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
