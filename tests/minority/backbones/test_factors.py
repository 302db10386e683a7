"""Label and attributes as separate conditions of one U-Net, and the folder that it is saved to."""

import itertools
import json

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline

from minority.backbones import BackboneError, UNetDenoiser, UNetSettings, load_folder, save_folder
from minority.backbones.factors import LEFT_OUT, Factor, Factors, with_factors
from minority.diffusion.schedule import NoiseSchedule
from minority.training import TrainingSettings, train_denoiser
from minority.training.data import TrainingData
from tests.tiny_networks import tiny_unet

FACTORS = Factors((Factor("label", ("cat", "dog", "owl")), Factor("sex", ("f", "m")), Factor("age", ("a", "b", "c"))))
SCHEDULE = NoiseSchedule.cosine(20)
SETTINGS = UNetSettings(num_classes=3, factors=FACTORS)


def network():
    return with_factors(tiny_unet(side=4, num_class_embeds=FACTORS.num_rows), FACTORS)


def every_value():
    return np.array(list(itertools.product(range(-1, 3), range(-1, 2), range(-1, 3))))


def test_every_combination_has_a_row_of_its_own_and_labels_alone_come_first():
    values = every_value()

    rows = FACTORS.rows(values)

    assert sorted(rows.tolist()) == list(range(4 * 3 * 4)) == list(range(FACTORS.num_rows))
    np.testing.assert_array_equal(FACTORS.values(rows), values)
    assert FACTORS.rows(np.array([[0, -1, -1], [2, -1, -1], [-1, -1, -1]])).tolist() == [0, 2, FACTORS.nothing]


def test_a_condition_is_told_alone_or_left_out():
    rows = torch.tensor(FACTORS.rows(np.array([[1, 0, 2], [2, -1, 1]])))

    alone = [FACTORS.values(FACTORS.alone(rows, place).numpy()).tolist() for place in range(3)]
    without_sex = FACTORS.without(rows, torch.tensor([[False, False], [True, True], [False, False]]))

    assert alone == [[[1, -1, -1], [2, -1, -1]], [[-1, 0, -1], [-1, -1, -1]], [[-1, -1, 2], [-1, -1, 1]]]
    assert FACTORS.values(without_sex.numpy()).tolist() == [[1, -1, 2], [2, -1, 1]]


@pytest.mark.parametrize("wrong", [(("label", ("a",)),), (("sex", ("f",)), ("label", ("a",)))])
def test_conditions_are_the_label_and_then_others(wrong):
    with pytest.raises(ValueError, match="the label first"):
        Factors(tuple(Factor(*entry) for entry in wrong))


def test_a_value_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"age must lie in 0 \.\.\. 2, got 3"):
        FACTORS.rows(np.array([[0, 0, 3]]))


def test_a_saved_folder_predicts_as_the_network_in_training_did_and_is_plain_diffusers(tmp_path):
    unet = network()
    in_training = UNetDenoiser(unet, SCHEDULE, settings=SETTINGS)

    save_folder(tmp_path / "bars", unet, schedule=SCHEDULE, settings=SETTINGS)
    backbone = load_folder(tmp_path / "bars")

    rows = torch.arange(FACTORS.num_rows)
    x, timestep = torch.randn(len(rows), 1, 4, 4), torch.full((len(rows),), 7)
    with torch.no_grad():
        told = backbone.denoiser(x, timestep, rows).eps
        torch.testing.assert_close(told, in_training(x, timestep, rows).eps)
        plain = DDPMPipeline.from_pretrained(tmp_path / "bars", local_files_only=True).unet
        torch.testing.assert_close(plain(x, timestep, class_labels=rows).sample, told)
        torch.testing.assert_close(
            backbone.denoiser(x, timestep, None).eps,
            backbone.denoiser(x, timestep, torch.full_like(rows, FACTORS.nothing)).eps,
        )
    assert backbone.factors == FACTORS
    assert backbone.num_classes == 3
    assert backbone.facts[-1] == "conditions: label (cat, dog, owl), sex (f, m), age (a, b, c)"


def test_a_folder_without_conditions_says_nothing_of_them(tmp_path):
    unet = tiny_unet(side=4, num_class_embeds=4)

    save_folder(tmp_path / "bars", unet, schedule=SCHEDULE, settings=UNetSettings(num_classes=3))

    assert set(json.loads((tmp_path / "bars" / "minority.json").read_text())) == {
        "prediction_type",
        "num_classes",
        "low_resolution",
        "attention_heads",
        "timestep_scale",
        "variance_type",
    }
    assert load_folder(tmp_path / "bars").factors is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([{"name": "label", "values": ["cat", "dog", "owl"]}, {"name": "sex", "values": ["f"]}], "48 class embeddings"),
        ([{"name": "label"}], "list of name and values"),
    ],
)
def test_conditions_that_do_not_fit_the_weights_are_refused(tmp_path, content, says):
    save_folder(tmp_path / "bars", network(), schedule=SCHEDULE, settings=SETTINGS)
    path = tmp_path / "bars" / "minority.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"conditions": content}))

    with pytest.raises(BackboneError, match=says):
        load_folder(tmp_path / "bars")


def test_each_condition_is_left_out_on_its_own_and_all_of_them_together():
    settings = TrainingSettings(label_dropout=0.2, condition_dropout=(0.0, 0.5, 0.1))
    images, rows = np.zeros((1, 4, 4, 1), dtype=np.uint8), FACTORS.rows(np.array([[1, 0, 2]]))
    data = TrainingData(images, rows, settings, no_label=FACTORS.nothing, shown=True, factors=FACTORS)

    left = data.leave_out(torch.full((20000,), int(rows[0])), torch.Generator().manual_seed(0))

    missing = FACTORS.values(left.numpy()) == LEFT_OUT
    # 4 standard errors of shares over 20,000 draws.
    assert missing.all(axis=1).mean() == pytest.approx(0.2, abs=0.012)
    assert missing[~missing.all(axis=1)].mean(axis=0) == pytest.approx([0.0, 0.5, 0.1], abs=0.017)


def test_a_network_learns_each_condition_and_resumes(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 4, 1), dtype=np.uint8)
    rows = FACTORS.rows(np.array([[i % 3, i % 2, -1] for i in range(12)]))
    settings = TrainingSettings(steps=3, batch_size=4, label_dropout=0.1, augmentation=None)
    before = {name: value.clone() for name, value in network().state_dict().items()}

    once, again = (
        train_denoiser(
            network(), images, rows, schedule=SCHEDULE, settings=settings, checkpoint=tmp_path / "checkpoint.pt"
        )
        for _ in range(2)
    )

    changed = {name for name, value in once.state_dict().items() if not torch.equal(value, before[name])}
    assert {f"class_embedding.tables.{place}.weight" for place in range(3)} <= changed
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, once.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"label_dropout": 0.0}, {"label_dropout": 0.1, "condition_dropout": (0.1, 0.1)}])
def test_what_no_condition_means_must_be_taught_and_dropout_fit_the_conditions(settings):
    images, rows = np.zeros((2, 4, 4, 1), dtype=np.uint8), np.zeros(2, dtype=np.int64)

    with pytest.raises(ValueError, match="a network with 3 conditions needs"):
        train_denoiser(network(), images, rows, schedule=SCHEDULE, settings=TrainingSettings(steps=1, **settings))
