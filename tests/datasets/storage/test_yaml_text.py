import pytest

from datasets.storage.yaml_text import Written, load_yaml, plain

WORDS = ["no", "yes", "on", "Off", "true", "01", "1_000", "0x10", "12:30", "1.50", "null", "~", "-7", ".inf"]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_yaml_takes_for_something_else_keeps_its_text(word):
    (found,) = load_yaml(f"[{word}]")

    assert isinstance(found, Written)
    assert found.text == word
    assert load_yaml(f"['{word}']") == [word]


@pytest.mark.parametrize("word", ["1e3", "2020-01-01", "2001-12-14 21:59:43", "0x_", "maybe", "="])
def test_dates_and_other_words_are_texts(word):
    assert load_yaml(f"- {word}") == [word]


def test_keys_are_texts_and_values_can_be_had_as_yaml_takes_them():
    tree = load_yaml("{no: 1, 01: [true, null, 2.5, x], ~: {a: 0x10}}")

    assert list(tree) == ["no", "01", "~"]
    assert plain(tree) == {"no": 1, "01": [True, None, 2.5, "x"], "~": {"a": 16}}


def test_anchors_and_merges_give_what_they_name():
    tree = plain(load_yaml("base: &base {seed: 3, name: a}\nown: {<<: *base, name: b}\nsame: *base"))

    assert tree["own"] == {"seed": 3, "name": "b"}
    assert tree["same"] == {"seed": 3, "name": "a"}
    assert load_yaml("") is None


def billion():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]" for before, after in zip("abcdefgh", "bcdefghi")]  # noqa: B905
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3", "names the key 'a' twice"),
        ("&a [*a]", "holds itself"),
        ("[" * 5000, "nested|recursion|expected"),
        ("{", "expected the node content"),
        ("? [a]\n: b", "has a list or a mapping as a key"),
        (billion(), "aliases unfold to more than 1,000,000 values"),
    ],
)
def test_what_is_no_settings_file_is_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        load_yaml(text)

    assert "\n" not in str(caught.value)
