import numpy as np
import pytest
from PIL import Image

from datasets.readers.folder import read_folder


def paint(path, *, size=(6, 4), mode="L", colour=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def test_class_folders_become_labels_in_the_order_of_their_names(tmp_path):
    paint(tmp_path / "dog" / "b.png", colour=2)
    paint(tmp_path / "cat" / "z.png", colour=0)
    paint(tmp_path / "dog" / "a.png", colour=1)
    (tmp_path / ".DS_Store").write_bytes(b"x")

    images = read_folder(tmp_path)

    assert images.class_names == ["cat", "dog"]
    assert images.labels.tolist() == [0, 1, 1]
    assert images.source_ids == ["cat/z.png", "dog/a.png", "dog/b.png"]
    assert images.groups == ["class=cat", "class=dog", "class=dog"]
    assert images.image_shape == (4, 6, 1)
    assert images.images([0, 1, 2])[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_flat_folder_is_one_class(tmp_path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.jpg")

    images = read_folder(tmp_path)

    assert images.class_names == ["all"]
    assert images.labels.tolist() == [0, 0]
    assert images.source_ids == ["a.png", "b.jpg"]


def test_the_overview_beside_drawn_images_is_none_of_them(tmp_path):
    paint(tmp_path / "flat" / "000000.png")
    paint(tmp_path / "flat" / "grid.png", size=(60, 60))
    paint(tmp_path / "classes" / "cat" / "a.png")
    paint(tmp_path / "classes" / "grid.png", size=(60, 60))

    assert read_folder(tmp_path / "flat").source_ids == ["000000.png"]
    assert read_folder(tmp_path / "classes").class_names == ["cat"]


def test_one_colour_image_makes_the_set_colour(tmp_path):
    paint(tmp_path / "a.png", colour=7)
    paint(tmp_path / "b.png", mode="RGB", colour=(1, 2, 3))

    images = read_folder(tmp_path)

    assert images.image_shape == (4, 6, 3)
    assert images.image(0)[0, 0].tolist() == [7, 7, 7]
    assert images.image(1)[0, 0].tolist() == [1, 2, 3]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        read_folder(tmp_path / "nowhere")


def empty(folder):
    folder.mkdir(exist_ok=True)


def empty_class(folder):
    paint(folder / "cat" / "a.png")
    (folder / "dog").mkdir()


def loose_file(folder):
    paint(folder / "cat" / "a.png")
    paint(folder / "stray.png")


def nested(folder):
    paint(folder / "cat" / "more" / "a.png")


def text(folder):
    (folder / "notes.txt").write_text("no image")


def text_in_a_class(folder):
    paint(folder / "cat" / "a.png")
    (folder / "dog").mkdir()
    (folder / "dog" / "notes.txt").write_text("no image")


def other_size(folder):
    paint(folder / "a.png")
    paint(folder / "b.png", size=(5, 5))


def thirty_two_bits(folder):
    paint(folder / "a.tif", mode="F")


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (empty, "holds no images"),
        (empty_class, "dog is an empty class; add images of dog"),
        (loose_file, r"stray\.png lies beside class folders such as cat/"),
        (nested, "more is a folder inside a class folder"),
        (text, "holds no images"),
        (text_in_a_class, "dog is an empty class; add images of dog"),
        (other_size, r"b\.png is 5 x 5 pixels, a\.png is 6 x 4"),
        (thirty_two_bits, r"none of the 1 images .*a\.tif has pixels of mode F"),
    ],
)
def test_a_folder_that_is_no_image_set_is_refused_by_name(tmp_path, arrange, message):
    arrange(tmp_path)

    with pytest.raises(ValueError, match=message) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_image_cut_short_is_named_when_it_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])

    images = read_folder(tmp_path)

    for index, name in enumerate(images.source_ids):
        with pytest.raises(ValueError, match=f"{name} cannot be decoded as an image"):
            images.image(index)


def test_an_image_that_changed_its_size_is_named(tmp_path):
    paint(tmp_path / "a.png")
    images = read_folder(tmp_path)

    paint(tmp_path / "a.png", size=(9, 9))

    with pytest.raises(ValueError, match=r"a\.png of .* is \(9, 9, 1\), the set is \(4, 6, 1\)"):
        images.image(0)
