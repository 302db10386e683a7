"""The study of absent cells: what is in no training is in none, and nobody is on two sides."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.absent_cells.congress import COLOUR, GREY, GREY_COPIES, MEN, WOMEN, Congress, with_grey_copies
from benchmarks.absent_cells.construction import shuffled, unshuffled
from benchmarks.absent_cells.recipes import all_recipes, finished, fit_oracle, real_recipes, run
from benchmarks.absent_cells.tables import report
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
