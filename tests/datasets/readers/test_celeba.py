import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.readers.celeba import read_celeba

ATTRIBUTES = ["5_o_Clock_Shadow", "Blond_Hair", "Male"]
#        name          shadow blond male part
FACES = [
    ("000001.jpg", -1, 1, -1, 0),
    ("000002.jpg", 1, -1, 1, 0),
    ("000003.jpg", -1, 1, 1, 1),
    ("000004.jpg", -1, -1, -1, 0),
    ("000005.jpg", -1, -1, 1, 2),
]


@pytest.fixture
def celeba(tmp_path):
    """CelebA's layout with five faces: grey, with a band of another brightness that the central square leaves out."""
    (tmp_path / "img_align_celeba").mkdir()
    for name, *_ in FACES:
        face = np.full((218, 178, 3), 10 * int(name[:6]), dtype=np.uint8)
        face[:19] = face[-19:] = 255
        Image.fromarray(face).save(tmp_path / "img_align_celeba" / name, quality=95)
    rows = [f"{name} {shadow:2d} {blond:2d} {male:2d} " for name, shadow, blond, male, _ in FACES]
    (tmp_path / "list_attr_celeba.txt").write_text(
        "\n".join([str(len(FACES)), " ".join(ATTRIBUTES) + " ", *rows]) + "\n"
    )
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for name, *_, part in FACES))
    return tmp_path


def edit(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


def test_a_split_holds_its_faces_with_label_and_group(celeba):
    faces = read_celeba(celeba)

    assert faces.source_ids == ["celeba/000001", "celeba/000002", "celeba/000004"]
    assert faces.labels.tolist() == [1, 0, 0]
    assert faces.class_names == ["not Blond_Hair", "Blond_Hair"]
    assert faces.groups == ["Blond_Hair=1,Male=0", "Blond_Hair=0,Male=1", "Blond_Hair=0,Male=0"]
    assert read_celeba(celeba, split="validation").source_ids == ["celeba/000003"]
    assert read_celeba(celeba, split="test").source_ids == ["celeba/000005"]


def test_faces_are_cut_to_the_central_square_and_resized(celeba):
    faces = read_celeba(celeba, image_size=32)

    face = faces.image(1)

    assert face.shape == faces.image_shape == (32, 32, 3)
    # JPEG moves a flat grey by a level or two; the bright bands above and below the square would show at once.
    np.testing.assert_allclose(face[1:-1].astype(int), 20, atol=3)


def test_other_attributes_can_be_target_and_group(celeba):
    faces = read_celeba(celeba, target="Male", protected="5_o_Clock_Shadow")

    assert faces.class_names == ["not Male", "Male"]
    assert faces.groups[1] == "Male=1,5_o_Clock_Shadow=1"


def test_all_that_is_missing_is_named_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CelebA folder .*nowhere does not exist") as caught:
        read_celeba(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)

    with pytest.raises(
        FileNotFoundError, match=r"lacks img_align_celeba/, list_attr_celeba\.txt, list_eval_partition\.txt; unpack"
    ) as caught:
        read_celeba(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_faces_are_counted_and_the_first_named(celeba):
    (celeba / "img_align_celeba" / "000002.jpg").unlink()
    (celeba / "img_align_celeba" / "000004.jpg").unlink()

    with pytest.raises(FileNotFoundError, match=r"lacks 2 of 3 images, first 000002\.jpg"):
        read_celeba(celeba)


def test_a_face_cut_short_is_named_when_it_is_read(celeba):
    face = celeba / "img_align_celeba" / "000002.jpg"
    face.write_bytes(face.read_bytes()[:700])

    faces = read_celeba(celeba)

    assert faces.image(0).shape == (64, 64, 3)
    with pytest.raises(ValueError, match=r"000002\.jpg cannot be decoded as an image"):
        faces.image(1)


def test_a_face_removed_after_the_index_was_read_is_named(celeba):
    faces = read_celeba(celeba)
    (celeba / "img_align_celeba" / "000001.jpg").unlink()

    with pytest.raises(FileNotFoundError, match=r"000001\.jpg does not exist"):
        faces.image(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "Blond"}, r"has no attribute 'Blond'; did you mean one of Blond_Hair"),
        ({"protected": "Sex"}, r"has no attribute 'Sex'; did you mean one of"),
        ({"target": "Male"}, "both 'Male'"),
        ({"split": "valid"}, "split must be one of train, validation, test, got 'valid'"),
        ({"image_size": 256}, r"image_size must be 8\.\.178 pixels.*got 256"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(celeba, settings, message):
    with pytest.raises(ValueError, match=message):
        read_celeba(celeba, **settings)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "5\n", "7\n", "announces 7 images on line 1 but has 5 rows"),
        ("list_attr_celeba.txt", "5\n", "five\n", "must begin with the number of images"),
        ("list_attr_celeba.txt", "000002.jpg  1", "000002.jpg", r"line 4 has 3 fields, expected 4"),
        ("list_attr_celeba.txt", "-1  1 -1", "-1  0 -1", r"line 3 has the attribute value '0', expected -1 or 1"),
        ("list_attr_celeba.txt", "000004.jpg", "000009.jpg", r"has no row for 1 images of .*first 000004\.jpg"),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", r"line 2 is '000002\.jpg 3', expected"),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg", r"line 2 is '000002\.jpg', expected"),
    ],
)
def test_an_index_file_that_contradicts_itself_is_named(celeba, file, old, new, message):
    edit(celeba / file, old, new)

    with pytest.raises(ValueError, match=message) as caught:
        read_celeba(celeba)
    assert file in str(caught.value)


def test_a_split_without_faces_is_an_error(celeba):
    edit(celeba / "list_eval_partition.txt", "000005.jpg 2", "000005.jpg 1")

    with pytest.raises(ValueError, match=r"lists no image of the test part \(2\)"):
        read_celeba(celeba, split="test")


def test_an_index_file_that_is_no_text_is_named(celeba):
    (celeba / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ValueError, match=r"list_attr_celeba\.txt is not plain text"):
        read_celeba(celeba)


def test_missing_faces_can_be_left_out_and_are_problems_then(celeba):
    (celeba / "img_align_celeba" / "000002.jpg").unlink()

    faces = read_celeba(celeba, missing="leave out")

    assert faces.source_ids == ["celeba/000001", "celeba/000004"]
    assert [problem.source_id for problem in faces.problems] == ["celeba/000002"]
    assert "000002.jpg does not exist" in faces.problems[0].reason


def test_a_face_cut_short_is_a_problem_and_the_others_are_read(celeba):
    face = celeba / "img_align_celeba" / "000002.jpg"
    face.write_bytes(face.read_bytes()[:700])

    good, problems = read_celeba(celeba).readable()

    assert good.tolist() == [0, 2]
    assert [problem.source_id for problem in problems] == ["celeba/000002"]


def write_persons(folder):
    lines = [f"{name} {7 + place % 2}\n" for place, (name, *_) in enumerate(FACES)]
    (folder / "identity_CelebA.txt").write_text("".join(lines))


def test_attributes_parts_and_persons_come_along(celeba):
    write_persons(celeba)

    faces = read_celeba(celeba)

    assert faces.attributes == {"Blond_Hair": ["1", "0", "0"], "Male": ["0", "1", "0"]}
    assert faces.parts == ["train"] * 3
    assert faces.identities == ["7", "8", "8"]
    assert read_celeba(celeba, split="test").identities == ["7"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("000002.jpg 8", "000002.jpg x", r"line 2 is '000002\.jpg x'"), ("000002.jpg 8\n", "", "has no row for 1 images")],
)
def test_a_list_of_persons_that_contradicts_itself_is_named(celeba, old, new, message):
    write_persons(celeba)
    edit(celeba / "identity_CelebA.txt", old, new)

    with pytest.raises(ValueError, match=message):
        read_celeba(celeba)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), name=st.sampled_from(["list_attr_celeba.txt", "list_eval_partition.txt"]))
def test_a_damaged_index_file_is_one_clear_line_or_faces(celeba, data, name):
    path = celeba / name
    original = path.read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))])

    refusal, faces = "", None
    try:
        faces = read_celeba(celeba, missing="leave out")
    except (ValueError, FileNotFoundError) as error:
        refusal = str(error)
    path.write_bytes(original)

    assert (faces is None) == bool(refusal)
    assert "\n" not in refusal
    assert faces is None or len(faces.readable()[0]) == len(faces)
