"""Names from outside are names: no terminal, Markdown or HTML obeys them."""

import pytest

from datasets.runs.card import card_text
from datasets.runs.manifest import RunFacts
from datasets.storage.escaping import for_markdown, for_terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größe\n\tnext", "plain, größe\n\tnext"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("bell\r over", r"bell\x0d over"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert for_terminal(text) == shown
    assert for_terminal(text, keep_lines=False) == shown.replace("\n", r"\x0a").replace("\t", r"\x09")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tumour [stage 2]", "tumour [stage 2]"),
        ("a|b", r"a\|b"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[here](http://evil)", r"[here]\(http://evil)"),
        ("`code` *bold* __all__", r"\`code\` \*bold\* \_\_all\_\_"),
        ("snake_case", "snake_case"),
        ("two\nlines", "two lines"),
        (r"\*x\*", r"\\\*x\\\*"),
        ("# head", r"\# head"),
        ("- item", r"\- item"),
        ("~~gone~~", r"\~\~gone\~\~"),
    ],
)
def test_markdown_shows_a_name_as_it_is(text, shown):
    assert for_markdown(text) == shown


def test_kept_lines_begin_no_heading():
    assert for_markdown("Mine.\n# Yours\n  - theirs", keep_lines=True) == "Mine.\n\\# Yours\n  \\- theirs"


def test_a_card_holds_no_markup_of_a_class():
    evil = "<img src=x onerror=alert(1)> | [x](http://evil)\n# head"
    facts = RunFacts(
        dataset="d", run_id="r", recipe="0", config={}, backbone={}, versions={}, class_names=[evil], quotas={},
        provenance="None.",
    )  # fmt: skip

    card = card_text(
        facts,
        counts={evil: {"real": 1}},
        quotas={evil: {"asked": 1, "kept": 0, "shortfall": 1}},
        shards=[],
        num_rows=1,
    )

    assert "<img" not in card
    assert "](http" not in card
    assert "\n# head" not in card
    assert sum(line.startswith("| &lt;img") for line in card.splitlines()) == 2
