"""Patterns of files."""

import pytest

from datasets.readers.tars.tar_pattern import divided, expanded, files_of


def test_braces_count_and_choose():
    assert expanded("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expanded("{x,y}-{1..2}") == ["x-1", "x-2", "y-1", "y-2"]
    assert expanded("*.tar") == ["*.tar"]


@pytest.mark.parametrize("pattern", ["a{}", "a{b}", "{3..1}", "{0..999999}", "{0..999}{0..999}"])
def test_braces_that_mean_nothing_or_too_much_are_refused(pattern):
    with pytest.raises(ValueError, match=r"braces|range|more than"):
        expanded(pattern)


def test_a_file_that_braces_name_must_be_there(tmp_path):
    for name in ("0.tar", "1.tar", "x.tar"):
        (tmp_path / name).touch()

    assert files_of(tmp_path, "{0..1}.tar") == [tmp_path / "0.tar", tmp_path / "1.tar"]
    assert len(files_of(tmp_path, "*.tar")) == 3
    with pytest.raises(FileNotFoundError, match=r"no file '2\.tar'"):
        files_of(tmp_path, "{0..2}.tar")


def test_a_place_is_divided_before_its_first_wildcard(tmp_path):
    assert divided(f"{tmp_path}/a-{{0..3}}/*.tar") == (tmp_path, "a-{0..3}/*.tar")
    (tmp_path / "odd[1]").mkdir()
    assert divided(f"{tmp_path}/odd[1]") == (tmp_path / "odd[1]", "")
