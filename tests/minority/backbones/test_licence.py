"""What is read of a model's card, and which licences are warned of."""

import pytest

from minority.backbones.licence import licence_of, training_terms

CARDS = {
    "---\nlicense: creativeml-openrail-m\ntags: [art]\n---\n# Model\n": ("creativeml-openrail-m", None),
    "---\nlicense: other\nlicense_name: flux-1-dev-non-commercial-license\nlicense_link: LICENSE.md\n---\n": (
        "flux-1-dev-non-commercial-license",
        "train a competing model",
    ),
    "---\r\nlicense: other\r\nlicense_name: stabilityai-ai-community\r\nlicense_link: https://x.y/z\r\n---\r\n": (
        "stabilityai-ai-community (https://x.y/z)",
        "foundational generative models",
    ),
    "---\nlicense: cc-by-nc-4.0\n---": ("cc-by-nc-4.0", "non-commercial"),
    "---\nlicense: [a, b]\n---\n": (None, None),
    "---\nlicense: : :\n---\n": (None, None),
    "# Model\n\nlicense: mit\n": (None, None),
    "": (None, None),
}


@pytest.mark.parametrize("card", CARDS)
def test_the_licence_of_a_card(tmp_path, card):
    (tmp_path / "README.md").write_bytes(card.encode())
    licence, terms = CARDS[card]
    assert licence_of(tmp_path) == licence
    assert (terms is None and training_terms(licence) is None) or terms in training_terms(licence)


def test_no_card_states_no_licence(tmp_path):
    assert licence_of(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert licence_of(tmp_path) is None
