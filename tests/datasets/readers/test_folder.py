import os
import subprocess
import sys
from pathlib import Path

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


def kinds(images):
    return {(problem.source_id, problem.kind, problem.on_disk) for problem in images.problems}


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["0", "1", "10", "2"], ["0", "1", "2", "10"]),
        (["001", "010", "2"], ["001", "2", "010"]),
        (["-1", "+3", "0", "12"], ["-1", "0", "+3", "12"]),
        (["1", "10", "2", "b"], ["1", "10", "2", "b"]),
        (["1.5", "10", "9"], ["1.5", "10", "9"]),
    ],
)
def test_names_that_are_whole_numbers_are_sorted_as_numbers(tmp_path, names, ordered):
    for name in names:
        paint(tmp_path / name / "a.png")

    assert read_folder(tmp_path).class_names == ordered


def test_two_folders_of_one_number_are_refused(tmp_path):
    paint(tmp_path / "7" / "a.png")
    paint(tmp_path / "07" / "a.png")

    with pytest.raises(ValueError, match="'07' and '7' are the same number"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("train", "test"), ["train", "test"]),
        (("Train", "VALID", "Test"), ["train", "test", "validation"]),
        (("train", "val"), ["train", "test"]),  # as ImageNet's
        (("training", "testing"), ["test", "train"]),
        (("train",), None),
        (("test",), ["test"]),
        (("val", "test"), ["test", "validation"]),
    ],
)
def test_folders_of_parts_hold_the_makers_parts(tmp_path, folders, parts):
    for part in folders:
        for name in ("a", "b"):
            paint(tmp_path / part / name / "0.png")

    images = read_folder(tmp_path)

    assert images.class_names == ["a", "b"]
    assert len(images) == 2 * len(folders)
    assert sorted(images.source_ids) == sorted(f"{part}/{name}/0.png" for part in folders for name in "ab")
    assert (images.parts is None) == (parts is None)
    assert set(images.parts or ()) == set(parts or ())
    assert images.labels.tolist() == [0, 1] * len(folders)


def test_a_part_may_lack_a_class_and_a_test_part_its_labels(tmp_path):
    for name in ("a", "b"):
        paint(tmp_path / "train" / name / "0.png")
        paint(tmp_path / "val" / "a" / f"{name}.png")
    (tmp_path / "val" / "b").mkdir()
    paint(tmp_path / "test" / "17.png")
    (tmp_path / "sample_submission.csv").write_text("id,label")

    images = read_folder(tmp_path)

    assert images.parts == ["train", "train", "validation", "validation"]
    assert kinds(images) == {
        ("val/b", "class folder without images in one part", False),
        ("test/17.png", "image of a part without class folders", True),
        ("sample_submission.csv", "file that is no image", False),
    }


def test_train_may_be_a_class(tmp_path):
    for name in ("bus", "train"):
        paint(tmp_path / "vehicles" / name / "0.png")
        paint(tmp_path / "words" / ("test" if name == "bus" else name) / "0.png")

    assert read_folder(tmp_path / "vehicles").class_names == ["bus", "train"]
    assert read_folder(tmp_path / "words", classes=["train", "test"]).class_names == ["train", "test"]
    with pytest.raises(ValueError, match="has the parts test/, train/, but no class folders in them"):
        read_folder(tmp_path / "words")


def test_a_folder_beside_parts_is_refused_with_what_helps(tmp_path):
    paint(tmp_path / "train" / "a" / "0.png")
    paint(tmp_path / "test" / "a" / "0.png")
    (tmp_path / "logs").mkdir()
    assert len(read_folder(tmp_path)) == 2

    paint(tmp_path / "unlabelled" / "0.png")
    with pytest.raises(ValueError, match="unlabelled lies beside test/, which is a part and no class; move it"):
        read_folder(tmp_path)


def test_a_folder_around_the_set_is_named(tmp_path):
    paint(tmp_path / "set" / "train" / "a" / "0.png")
    paint(tmp_path / "set" / "test" / "a" / "0.png")

    with pytest.raises(ValueError, match=r"or name .*/set where set is no class"):
        read_folder(tmp_path)


def test_strays_are_passed_over_and_told_one_by_one(tmp_path):
    paint(tmp_path / "a" / "0.PNG")
    paint(tmp_path / "a" / "1.JPeG")
    paint(tmp_path / "b" / "0.png").rename(tmp_path / "b" / "without_suffix")
    for stray in ("desktop.ini", "Thumbs.db", "classes.txt", "a/desktop.ini", "a/labels/0.xml"):
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).write_text("[.ShellClassInfo]")
    paint(tmp_path / "__MACOSX" / "a" / "._0.png")
    paint(tmp_path / ".ipynb_checkpoints" / "0-checkpoint.png")
    (tmp_path / "b" / ".DS_Store").write_bytes(b"x")

    images = read_folder(tmp_path)

    assert images.source_ids == ["a/0.PNG", "a/1.JPeG", "b/without_suffix"]
    assert images.image(2).shape == (4, 6, 1)
    no_image = "file that is no image"
    assert kinds(images) == {
        *((name, no_image, False) for name in ("desktop.ini", "Thumbs.db", "classes.txt", "a/desktop.ini")),
        ("a/labels/0.xml", no_image, False),
        ("__MACOSX/a/._0.png", "file in a folder that the system made", True),
        (".ipynb_checkpoints/0-checkpoint.png", "hidden file", True),
        ("b/.DS_Store", "hidden file", False),
    }


def test_unequal_images_are_cut_and_resized_on_request(tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6
    lying = Image.new("RGB", (12, 4), "red")
    lying.paste("blue", (0, 0, 4, 4))  # what is shown above
    (tmp_path / "a").mkdir()
    lying.save(tmp_path / "a" / "lying.png", exif=tag)
    paint(tmp_path / "a" / "wide.png", size=(30, 8), mode="RGB", colour=(0, 255, 0))

    images = read_folder(tmp_path, image_size=4)

    assert images.image_shape == (4, 4, 3)
    assert images.image(0).reshape(-1, 3).tolist() == [[255, 0, 0]] * 16  # the middle of 4 x 12
    assert images.image(1).reshape(-1, 3).tolist() == [[0, 255, 0]] * 16
    with pytest.raises(ValueError, match=r"wide\.png is 30 x 8 pixels, lying\.png is 4 x 12; give the side"):
        read_folder(tmp_path)


def test_classes_that_are_given_keep_their_labels(tmp_path):
    for name in ("cat", "fox", "owl"):
        paint(tmp_path / name / "0.png")

    images = read_folder(tmp_path, classes=["owl", "dog", "cat"])

    assert images.class_names == ["owl", "dog", "cat"]
    assert list(zip(images.source_ids, images.labels.tolist(), strict=True)) == [("owl/0.png", 0), ("cat/0.png", 2)]
    assert kinds(images) == {("fox/0.png", "image of a folder that is not among classes", True)}


def test_a_damaged_picture_takes_the_colour_of_no_other(tmp_path):
    paint(tmp_path / "a.png")
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:80])
    (tmp_path / "c.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")

    images = read_folder(tmp_path)
    good, problems = images.readable()

    assert images.image_shape == (4, 6, 1)
    assert good.tolist() == [0]
    assert "b.png cannot be decoded" in problems[0].reason
    assert "c.png is a Git LFS pointer in place of the image; run git lfs pull" in problems[1].reason


def test_a_set_of_pointers_says_so(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")

    with pytest.raises(ValueError, match=r"none of the 1 images in .* Git LFS pointer .*run git lfs pull"):
        read_folder(tmp_path)


def test_further_frames_are_told(tmp_path):
    frames = [Image.new("L", (6, 4), shade) for shade in (10, 200)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])

    images = read_folder(tmp_path)

    assert images.image(0)[0, 0, 0] == 10
    assert kinds(images) == {("a.tif", "further frames of an image", False)}
    assert images.problems[0].reason == "has 2 frames or pages, of which the first is read."


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path):
    paint(tmp_path / "a" / "0.png")
    os.mkfifo(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "a" / "pipe")

    images = read_folder(tmp_path)
    good, problems = images.readable()

    assert good.tolist() == [0]
    assert "1.png is a pipe or a device" in problems[0].reason
    assert kinds(images) == {("a/pipe", "file that is no image", False)}


COMPOSED, DECOMPOSED = "m\u00fccke", "mu\u0308cke"


def test_a_class_is_one_name_in_either_unicode_form(tmp_path):
    for part, name, file in (("train", DECOMPOSED, DECOMPOSED), ("test", COMPOSED, "b"), ("train", "other", "c")):
        (tmp_path / part / name).mkdir(parents=True)
        Image.new("L", (8, 8), 90).save(tmp_path / part / name / f"{file}.png")

    found = read_folder(tmp_path)
    chosen = read_folder(tmp_path, classes=["other", DECOMPOSED])

    assert found.class_names == [COMPOSED, "other"]
    assert sorted(zip(found.source_ids, found.labels.tolist(), strict=True)) == [
        (f"test/{COMPOSED}/b.png", 0),
        (f"train/{COMPOSED}/{COMPOSED}.png", 0),
        ("train/other/c.png", 1),
    ]
    assert found.image(0).shape == (8, 8, 1)
    assert chosen.class_names == ["other", COMPOSED]
    assert len(chosen) == 3


@pytest.mark.parametrize(
    "names", [(f"{DECOMPOSED}/a.png", f"{COMPOSED}/a.png"), (f"x/{DECOMPOSED}.png", f"x/{COMPOSED}.png")]
)
def test_two_names_in_a_folder_that_are_one_are_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 90).save(tmp_path / name)

    with pytest.raises(ValueError, match=r"holds 'mu\\u0308cke.* and 'm\\xfccke.*are one name in two Unicode forms"):
        read_folder(tmp_path)


@pytest.mark.parametrize("place", [b"K\xe4fer/a.png", b"beetle/\xe4.png"])
def test_a_name_that_is_not_utf_8_is_refused(tmp_path, place):
    paint(tmp_path / os.fsdecode(place))

    with pytest.raises(ValueError, match=r"the file name b'.*\\xe4.*' is not UTF-8; rename it"):
        read_folder(tmp_path)


def test_a_stray_whose_name_is_not_utf_8_is_told(tmp_path):
    (tmp_path / "beetle").mkdir()
    Image.new("L", (8, 8), 90).save(tmp_path / "beetle" / "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/beetle/caf\xe9.txt")).write_text("a note")

    (problem,) = read_folder(tmp_path).problems

    assert problem.source_id == "beetle/caf\\xe9.txt"


@pytest.mark.parametrize("locale", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["C", "ASCII"])
def test_umlauts_on_disk_are_the_same_under_any_locale(tmp_path, locale):
    (tmp_path / "K\u00e4fer").mkdir()
    Image.new("L", (8, 8), 90).save(tmp_path / "K\u00e4fer" / "gr\u00fcn.png")
    script = (
        "import sys; from datasets.readers.folder import read_folder; found = read_folder(sys.argv[1]); "
        "print(ascii(found.class_names + found.source_ids), found.image(0).mean())"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        env=os.environ | {"LC_ALL": "C", "LANG": "C"} | locale,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "['K\\xe4fer', 'K\\xe4fer/gr\\xfcn.png'] 90.0\n"
