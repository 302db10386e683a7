"""Fashion-MNIST, CIFAR-10, LSUN, ImageNet and tars of anybody, on generated files of their exact layouts."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.readers.cifar10 import read_cifar10
from datasets.readers.fashion_mnist import read_fashion_mnist, read_idx
from datasets.readers.image_tars import read_image_tars
from datasets.readers.imagenet import read_imagenet
from datasets.readers.lsun import read_lsun

RNG = np.random.default_rng(0)


def encoded(pixels, extension="PNG", **options):
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format=extension, **options)
    return sink.getvalue()


def random_pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write_idx(path, values):
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = header + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def fashion(tmp_path):
    """Six training and four test pictures."""
    pixels = {"train": random_pixels(6, 28, 28), "t10k": random_pixels(4, 28, 28)}
    for name, images in pixels.items():
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", np.arange(len(images), dtype=np.uint8))
    return tmp_path, np.concatenate(list(pixels.values()))


def test_fashion_mnist_is_read_with_its_official_parts(fashion):
    folder, pixels = fashion

    found = read_fashion_mnist(folder)

    assert found.parts == ["train"] * 6 + ["test"] * 4
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert found.source_ids[6] == "fashion_mnist/test/00000"
    np.testing.assert_array_equal(found.images(range(10))[..., 0], pixels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an idx file of bytes"),
        (b"\0\0\x08\x01\0\0\0\x09abc", "has 3 bytes of data, its header says 9"),
        (b"\0\0\x0d\x01\0\0\0\x01a", "is not an idx file of bytes"),
    ],
)
def test_an_idx_file_that_is_damaged_is_named(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content)[:-5])

    with pytest.raises(ValueError, match=rf"/x {message}"):
        read_idx(tmp_path / "x")
    with pytest.raises(ValueError, match=r"x\.gz cannot be unpacked"):
        read_idx(tmp_path / "x.gz")


def test_a_missing_part_of_fashion_mnist_is_named(fashion):
    folder, _ = fashion
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()

    with pytest.raises(FileNotFoundError, match=r"lacks t10k-labels-idx1-ubyte\.gz"):
        read_fashion_mnist(folder)


def test_cifar10_is_read_alike_from_batches_and_from_strips(tmp_path):
    pixels, labels = random_pixels(1020, 32, 32, 3), RNG.integers(0, 10, 1020)
    batches, strips = tmp_path / "batches" / "cifar-10-batches-py", tmp_path / "strips"
    batches.mkdir(parents=True)
    strips.mkdir()
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        part = slice(170 * number, 170 * (number + 1))
        content = {b"data": pixels[part].transpose(0, 3, 1, 2).reshape(-1, 3072), b"labels": labels[part].tolist()}
        (batches / name).write_bytes(pickle.dumps(content, protocol=2))
    rows = {"split": ["train"] * 850 + ["test"] * 170, "index": [*range(850), *range(170)], "label": labels}
    pd.DataFrame(rows).sample(frac=1, random_state=0).to_parquet(strips / "labels.parquet")
    with zipfile.ZipFile(strips / "strips.zip", "w") as archive:
        parts = {
            "train_000": slice(0, 500),
            "train_001": slice(500, 850),
            "test_000": slice(850, 1020),
        }
        for name, part in parts.items():
            strip = encoded(pixels[part].reshape(-1, 32, 3), "WEBP", lossless=True, method=0)
            archive.writestr(f"{name}.webp", strip)

    one, other = read_cifar10(tmp_path / "batches"), read_cifar10(strips)

    assert one.source_ids == other.source_ids
    assert one.parts == other.parts == ["train"] * 850 + ["test"] * 170
    for index in (0, 169, 170, 499, 500, 849, 850, 1019):
        np.testing.assert_array_equal(one.image(index), pixels[index])
        np.testing.assert_array_equal(other.image(index), pixels[index])
        assert one.labels[index] == other.labels[index] == labels[index]


def test_a_batch_that_wants_to_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch evil",)

    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (tmp_path / name).write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))

    with pytest.raises(ValueError, match=r"is not a batch of CIFAR-10's python version \(it wants to load \w+\.system"):
        read_cifar10(tmp_path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_batch_is_one_clear_line_or_images_and_problems(tmp_path, data):
    content = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=2)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (tmp_path / name).write_bytes(content)
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, 300))] = data.draw(st.integers(0, 255))
    fresh = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"  # batches are cached by their path
    fresh.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (fresh / name).write_bytes(bytes(broken) if name == "data_batch_3" else content)

    refusal = ""
    try:
        good, problems = read_cifar10(fresh).readable()
    except ValueError as error:
        refusal = str(error)

    assert refusal or len(good) + len(problems) >= 12
    assert not refusal or str(fresh) in refusal


@pytest.fixture
def lsun(tmp_path):
    """A bedroom database of three WebP images and a church folder of two JPEG files."""
    lmdb = pytest.importorskip("lmdb")
    pixels = random_pixels(3, 20, 30, 3)
    with (
        lmdb.open(str(tmp_path / "bedroom_train_lmdb"), map_size=1 << 20) as database,
        database.begin(write=True) as to,
    ):
        for number, image in enumerate(pixels):
            to.put(f"{number:040x}".encode(), encoded(image, "WEBP", lossless=True))
    (tmp_path / "church_train" / "0" / "1").mkdir(parents=True)
    for name in ("0/b.jpg", "0/1/a.jpg"):
        (tmp_path / "church_train" / name).write_bytes(encoded(random_pixels(40, 20, 3), "JPEG"))
    return tmp_path, pixels


def test_lsun_is_read_from_databases_and_folders(lsun):
    folder, pixels = lsun

    found = read_lsun(folder, categories=["bedroom", "church"], image_size=20)

    assert found.class_names == ["bedroom", "church"]
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert found.source_ids[2:] == [f"lsun/bedroom/{2:040x}", "lsun/church/0/1/a.jpg", "lsun/church/0/b.jpg"]
    np.testing.assert_array_equal(found.image(1), pixels[1][:, 5:25])
    assert found.image(4).shape == (20, 20, 3)


def test_images_beyond_the_cap_of_lsun_are_counted(lsun):
    both = read_lsun(lsun[0], categories=["bedroom", "church"], image_size=20, max_images=1)

    assert (len(both), both.num_beyond_cap) == (2, 3)
    assert read_lsun(lsun[0], image_size=20, max_images=3).num_beyond_cap == 0
    assert read_lsun(lsun[0], image_size=20).num_beyond_cap == 0


def test_lsun_is_read_in_a_forked_process_too(lsun):
    found = read_lsun(lsun[0], image_size=20)
    expected = found.image(0)
    read_end, write_end = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            os.write(write_end, b"1" if np.array_equal(found.image(0), expected) else b"0")
        finally:
            os._exit(0)  # never back into pytest
    os.close(write_end)
    os.waitpid(child, 0)

    assert os.read(read_end, 1) == b"1"
    os.close(read_end)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"categories": ["tower"]}, FileNotFoundError, r"has neither tower_train_lmdb/data\.mdb nor tower_train/"),
        ({"split": "test"}, ValueError, "split must be train or val, got 'test'"),
        ({"categories": []}, ValueError, "categories must name at least one category"),
        ({"image_size": 0}, ValueError, "image_size and max_images must be at least 1"),
    ],
)
def test_lsun_settings_that_fit_nothing_are_named(lsun, changes, error, message):
    with pytest.raises(error, match=message):
        read_lsun(lsun[0], **changes)


def test_a_damaged_lsun_database_is_named(lsun):
    (lsun[0] / "bedroom_train_lmdb" / "data.mdb").write_bytes(b"no database" * 1000)

    with pytest.raises(ValueError, match=r"bedroom_train_lmdb cannot be read as an lmdb database"):
        read_lsun(lsun[0])


@pytest.fixture
def imagenet(tmp_path):
    for synset, count in {"n01440764": 2, "n02123045": 3}.items():
        folder = tmp_path / "train" / synset
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{synset}_{number}.JPEG").write_bytes(encoded(random_pixels(30, 40, 3), "JPEG"))
    (tmp_path / "train" / "n02123045" / "notes.txt").write_text("not an image")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn02123045 tabby, tabby cat\n")
    return tmp_path


def test_imagenet_numbers_its_synsets_and_names_them(imagenet):
    found = read_imagenet(imagenet, image_size=16)

    assert found.class_names == ["n01440764 tench", "n02123045 tabby"]
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.source_ids[0] == "imagenet/n01440764/n01440764_0"
    assert found.image(4).shape == (16, 16, 3)
    assert [(problem.source_id, problem.reason) for problem in found.problems] == [
        ("train/n02123045/notes.txt", "is no image.")
    ]


def test_images_beyond_the_cap_of_imagenet_are_counted(imagenet):
    capped = read_imagenet(imagenet, max_images_per_class=1)

    assert (len(capped), capped.num_beyond_cap) == (2, 3)
    assert read_imagenet(imagenet).num_beyond_cap == 0


def test_imagenet_without_images_or_synsets_is_named(imagenet):
    (imagenet / "train" / "n99999999").mkdir()
    with pytest.raises(ValueError, match="n99999999 is an empty class"):
        read_imagenet(imagenet)
    with pytest.raises(FileNotFoundError, match="holds no folder named by a synset"):
        read_imagenet(imagenet / "train" / "n01440764")
    with pytest.raises(FileNotFoundError, match="holds no folder named by a synset"):
        read_imagenet(imagenet / "nowhere")


def test_a_damaged_photo_of_imagenet_is_a_problem_and_the_others_are_read(imagenet):
    path = imagenet / "train" / "n01440764" / "n01440764_1.JPEG"
    path.write_bytes(path.read_bytes()[:300])

    good, problems = read_imagenet(imagenet, image_size=16).readable()

    assert good.tolist() == [0, 2, 3, 4]
    assert [problem.source_id for problem in problems] == ["imagenet/n01440764/n01440764_1"]


def foreign_tar(path, members, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_form_are_read_with_long_names_and_folders(tmp_path, form):
    long = "x" * 130 if form != tarfile.USTAR_FORMAT else "x" * 60
    image = random_pixels(12, 12, 3)
    foreign_tar(
        tmp_path / "a.tar",
        [
            ("dir/one.jpg", encoded(image, "JPEG")),
            ("dir/one.cls", b"1"),
            (f"{long}.cls", b" 0\n"),
            (f"{long}.PNG", encoded(image)),
        ],
        format=form,
    )

    found = read_image_tars([tmp_path / "a.tar"], name="any", class_names=["cat", "dog"], image_size=12)

    assert found.source_ids == ["a.tar/dir/one", f"a.tar/{long}"]
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(found.image(1), image)


def test_samples_that_cannot_be_used_are_problems_with_reasons(tmp_path):
    image = encoded(random_pixels(12, 12, 3))
    members = [("a.png", image), ("a.cls", b"0"), ("b.png", image), ("c.cls", b"0"), ("d.png", image), ("d.cls", b"7")]
    foreign_tar(tmp_path / "a.tar", [*members, ("e.png", image[:50]), ("e.cls", b"1")])

    found = read_image_tars([tmp_path / "a.tar"], name="any", class_names=["cat", "dog"], image_size=12)
    good, undecodable = found.readable()

    assert found.source_ids == ["a.tar/a", "a.tar/e"]
    assert {problem.source_id: problem.reason for problem in found.problems} == {
        "a.tar/b": "has an image but no class.",
        "a.tar/c": "has a class but no image.",
        "a.tar/d": "has the class b'7', expected a number below 2.",
    }
    assert good.tolist() == [0]
    assert [problem.source_id for problem in undecodable] == ["a.tar/e"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_a_corrupted_tar_gives_samples_and_reasons_and_loses_nothing_in_silence(tmp_path, data, form):
    path = tmp_path / "a.tar"
    members = []
    for number in range(6):
        name = f"{number}{'x' * 120 if form != tarfile.USTAR_FORMAT and number == 3 else ''}"
        members += [(f"{name}.cls", b"1"), (f"{name}.png", encoded(np.full((8, 8, 3), number, np.uint8)))]
    foreign_tar(path, members, format=form)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path.write_bytes(content[:cut])

    found, refusal = None, ""
    try:
        found = read_image_tars([path], name="any", class_names=["cat", "dog"], image_size=8)
    except ValueError as error:
        refusal = str(error)

    assert "\n" not in refusal
    if found is None:
        assert "hold no usable sample" in refusal
        return
    good, problems = found.readable()
    # A sample is there, or a reason is: for itself, or for the place from which the tar cannot be read.
    assert len(good) == 6 or problems or found.problems
