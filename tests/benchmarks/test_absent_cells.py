"""The study of absent cells: what is in no training is in none, and nobody is on two sides."""

import io
import struct
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from benchmarks.absent_cells.congress import COLOUR, GREY, GREY_COPIES, MEN, WOMEN, Congress, with_grey_copies
from benchmarks.absent_cells.construction import shuffled, unshuffled
from benchmarks.absent_cells.fashion_mark import FASHION_MARK, PER_CLASS, FashionMark
from benchmarks.absent_cells.recipes import Answers, all_recipes, finished, fit_oracle, real_recipes, run
from benchmarks.absent_cells.tables import gate_table, more_images_table, report, rule_table
from minority.classifier import ClassifierSettings

COUNTS = {("male", COLOUR): 360, ("male", GREY): 480, ("female", COLOUR): 110, ("female", GREY): 131}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder like the real one: each portrait of one person, in flat colours that differ."""
    folder = tmp_path_factory.mktemp("data") / "congress"
    folder.mkdir()
    rows, rng = [], np.random.default_rng(0)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for (sex, attribute), count in COUNTS.items():
            for _ in range(count):
                blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                if attribute == GREY:
                    blocks[:] = blocks[..., :1]
                picture = Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST)
                content, name = io.BytesIO(), f"{len(rows):06d}.jpg"
                picture.save(content, "PNG")
                archive.writestr(name, content.getvalue())
                chroma = 20.0 if attribute == COLOUR else 0.0
                rows.append({"file": name, "sex": sex, "chroma_derived": chroma, "last_congress_start_year": 1990})
        sepia, unknown = dict(rows[0], last_congress_start_year=1890), dict(rows[0], sex=None)
        rows += [sepia, unknown]
    pd.DataFrame(rows).to_parquet(folder / "labels.parquet")
    return folder.parent


@pytest.fixture(scope="module")
def congress(data):
    return Congress(data)


def people(cells):
    return [image.tobytes() for image in cells.images]


def test_nobody_is_on_two_sides_and_the_absent_cell_is_in_no_training(congress, tmp_path):
    draw = congress.draw(3, tmp_path)

    parts = [draw.train(0), draw.validation(), draw.test(), draw.ceiling()]
    every = [person for part in parts for person in people(part)]
    assert len(set(every)) == len(every) == sum(COUNTS.values()) - 20  # of the absent cell, for k above 0
    assert not draw.construction.is_absent(draw.train(0).cell).any()
    assert np.bincount(draw.test().cell).tolist() == [300, 400, 60, 66]
    assert np.bincount(draw.validation().cell).tolist() == [20, 20, 20, 20]
    assert set(draw.ceiling().cell) == set(draw.construction.absent_cells) == {2 * WOMEN + GREY}


def test_k_images_of_the_absent_cell_come_from_neither_test_nor_validation(congress, tmp_path):
    draw = congress.draw(3, tmp_path)

    train = draw.train(5)

    shown = train.subset(draw.construction.is_absent(train.cell))
    assert len(shown.labels) == 5
    assert not set(people(shown)) & set(people(draw.test()) + people(draw.validation()) + people(draw.ceiling()))
    with pytest.raises(ValueError, match=r"20 women without colour for training, k = 21 is more"):
        draw.train(21)
    assert people(train.subset(~draw.construction.is_absent(train.cell))) == people(draw.train(0))


def test_draws_differ_in_their_split(congress, tmp_path):
    one, other = (congress.draw(seed, tmp_path) for seed in (0, 1))

    assert set(people(one.test())) != set(people(other.test()))
    assert people(congress.draw(0, tmp_path).test()) == people(one.test())


def test_grey_copies_keep_the_label_and_have_no_colour(congress, tmp_path):
    train = congress.draw(0, tmp_path).train(0)

    both = with_grey_copies(train)

    copies = both.subset(np.arange(len(train.labels), len(both.labels)))
    coloured = train.subset(train.attributes == COLOUR)
    np.testing.assert_array_equal(copies.labels, coloured.labels)
    assert set(copies.cell) == {2 * MEN + GREY, 2 * WOMEN + GREY}
    assert (copies.images == copies.images[..., :1]).all()


def test_pixels_come_back_from_where_they_were_put(congress):
    images = congress.every.images[:5]

    assert unshuffled(images).shape == (5, 8, 8, 12)
    np.testing.assert_array_equal(shuffled(unshuffled(images)), images)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """Files like the real ones, smaller: every image says by two flat halves which one it is, far from all marks."""
    folder = tmp_path_factory.mktemp("data") / "fashion_mnist"
    folder.mkdir()
    for part, first, count in (("train", 0, 47_000), ("t10k", 47_000, 1_000)):
        number = np.arange(first, first + count)
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, :, :14], images[:, :, 14:] = (number // 256)[:, None, None], (number % 256)[:, None, None]
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
        )
        labels = (number % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return FashionMark(folder.parent)


def numbers(cells):
    return (cells.images[:, 8, 6, 0].astype(int) * 256 + cells.images[:, 8, 9, 0]).tolist()


def test_no_garment_is_on_two_sides_and_absent_cells_are_in_no_training(fashion, tmp_path):
    draw = fashion.draw(2, tmp_path)

    parts = [draw.train(0), draw.validation(), draw.ceiling(), draw.test(), fashion.oracle()]

    every = [number for part in parts for number in numbers(part)]
    assert len(set(every)) == len(every)
    assert sorted(numbers(draw.test())) == list(range(47_000, 48_000))
    for part in parts:
        np.testing.assert_array_equal(part.labels, np.array(numbers(part)) % 10)
    assert not FASHION_MARK.is_absent(draw.train(0).cell).any()
    assert set(draw.ceiling().cell) == set(FASHION_MARK.absent_cells)
    assert len(fashion.oracle().labels) == 47_000 - 10 * 4_500


def test_an_absent_cell_shows_k_garments_that_were_there_without_them_in_the_other_cell(fashion, tmp_path):
    draw = fashion.draw(2, tmp_path)

    without, train = draw.train(0), draw.train(3)

    assert numbers(train) == numbers(without)
    counts = np.bincount(train.cell, minlength=20)
    assert counts[list(FASHION_MARK.absent_cells)].tolist() == [3] * 6
    assert counts.reshape(10, 2).sum(axis=1).tolist() == [PER_CLASS] * 10
    assert (train.cell != without.cell).sum() == 18


def test_the_gate_is_held_against_what_the_cells_themselves_gained(fashion):
    """Two draws: the gate lets every second absent cell through, and just those gain."""
    cells = np.repeat(np.arange(20), 10)
    opened = FASHION_MARK.absent_cells[::2]

    def answers(*, right_in_opened, right_in_others):
        right = np.where(np.isin(cells, opened), right_in_opened, right_in_others)
        test = np.arange(len(cells)) % 10 < right
        return [Answers(test=test, validation=np.ones(4, dtype=bool), absent=np.zeros(4, dtype=bool), cells=cells)]

    def found(*, gain):
        plain = {name: answers(right_in_opened=2, right_in_others=5) for name in all_recipes(FASHION_MARK)}
        return plain | {"synthetic": answers(right_in_opened=2 + gain, right_in_others=3)}

    shares = [[0.9, 0.8] if cell in opened else [0.9, 0.2] for cell in FASHION_MARK.absent_cells]
    facts = {seed: {"accepted": {"0": shares}, "oracle": {"0": shares}} for seed in (0, 1)}

    said = gate_table(FASHION_MARK, 0, [found(gain=2), found(gain=4)], facts)

    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in said.splitlines()[3:9]]
    by = {(gate, verb): [count, against_balanced] for gate, verb, count, _, against_balanced in rows}
    assert by["mark", "let through"][0] == "6"
    assert by["mark", "let through"][1].startswith("30.0 (-97.1")  # of 20 and 40
    assert by["mark", "refused"] == ["6", "-20.0 (-20.0 ... -20.0)"]
    assert by["label", "let through"][0] == "12"
    assert by["label", "refused"] == ["0", "-"]
    lines = [line for line in said.splitlines() if line.startswith("- accepted by the oracle, over 12 cells")]
    assert len(lines) == 1
    ranks = stats.spearmanr([1, 0] * 6, [20, -20] * 3 + [40, -20] * 3)
    assert f"over balanced {ranks.statistic:+.2f} (p = {ranks.pvalue:.2g})" in lines[0]


def test_the_products_gate_asks_for_the_mark_only_where_no_image_is_real():
    """The first absent cell has lost its mark, the second its label; the first gains 50 points, the second loses 25."""
    cells, none = np.repeat(FASHION_MARK.absent_cells, 4), np.zeros(4, dtype=bool)
    places = np.tile(np.arange(4), len(FASHION_MARK.absent_cells))
    kinds = np.repeat([0, 1, 2, 2, 2, 2], 4)

    def found(*, extra):
        right = {"balanced": np.full(len(cells), 2), "synthetic": np.array([4, 1, 2 + extra])[kinds]}
        return {
            name: [Answers(test=places < number, validation=none, absent=none, cells=cells)]
            for name, number in right.items()
        }

    shares = [[0.9, 0.1], [0.4, 0.9], *[[0.5, 0.5]] * 4]  # label, mark
    by_k = {0: [found(extra=0), found(extra=0)], 1: [found(extra=0), found(extra=1)]}

    said = rule_table(FASHION_MARK, by_k, {k: [{"0": shares}] * 2 for k in by_k})

    assert said.startswith("The gate by its rule, 2 draws.")
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in said.splitlines()[3:]]
    assert [row[:5] for row in rows] == [  # real images, let through, gain, refused, gain
        ["0", "8", "0.0 (0.0 ... 0.0)", "4", "12.5 (12.5 ... 12.5)"],
        ["1", "10", "20.0 (-107.1 ... 147.1)", "2", "-25.0 (-25.0 ... -25.0)"],  # of 10 and 30
        ["all", "18", "11.1 (-59.5 ... 81.7)", "6", "0.0 (0.0 ... 0.0)"],
    ]
    assert [row[5:] for row in rows] == [  # difference, all cells
        ["-12.5 (-12.5 ... -12.5)", "4.2 (4.2 ... 4.2)"],
        ["45.0 (-82.1 ... 172.1)", "12.5 (-93.4 ... 118.4)"],
        ["11.1 (-59.5 ... 81.7)", "8.3 (-44.6 ... 61.3)"],
    ]


def test_more_images_are_compared_with_what_is_drawn_from_fewer_draw_by_draw():
    cells = np.array(FASHION_MARK.absent_cells)  # one test image each

    def found(*, balanced, kept):
        right = {"balanced": balanced, "synthetic, kept": kept}
        none = np.zeros(4, dtype=bool)
        return {
            name: [Answers(test=np.arange(len(cells)) < number, validation=none, absent=none, cells=cells)]
            for name, number in right.items()
        }

    by_k = {
        0: {0: found(balanced=0, kept=3), 1: found(balanced=0, kept=3), 2: found(balanced=0, kept=0)},
        5: {1: found(balanced=6, kept=6), 0: found(balanced=3, kept=6)},
    }

    said = more_images_table(FASHION_MARK, by_k)

    (row,) = said.splitlines()[3:]
    assert row.startswith("| 5 | 0 | 2 | 25.0 (")  # of 0 and 50; the third draw has no larger k


@pytest.mark.slow
def test_a_draw_runs_from_its_split_to_the_tables_and_goes_on_where_it_was(data, tmp_path, monkeypatch):
    import dataclasses

    few = ClassifierSettings(steps=5, width=4)
    source = Congress(data)
    source.construction = dataclasses.replace(source.construction, steps=5, budget=few, judges=few, samples=4)
    draw = dataclasses.replace(source.draw(0, tmp_path / "draw-0"), construction=source.construction)
    oracle = fit_oracle(source)

    run(draw, 0, oracle, seeds=2)

    done = finished(draw, 0, seeds=2)
    assert np.shape(done["accepted"]["1"]) == np.shape(done["oracle"]["0"]) == (1, 2)
    recipes = all_recipes(draw.construction)
    assert len(list(draw.folder.glob("answers-*"))) == 2 * len(recipes) == 22
    assert GREY_COPIES in real_recipes(draw.construction)
    said = report([draw], [0], seeds=2)
    assert "1 draws, 2 seeds each" in said
    assert "fewer than 5 draws" in said
    monkeypatch.setattr("benchmarks.absent_cells.recipes.train_classifier", None)  # nothing is trained a second time
    run(draw, 0, oracle, seeds=2)
    assert report([draw], [0], seeds=2) == said
