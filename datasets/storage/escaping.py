"""Text from outside (names of classes, groups and files, paths) as it may be shown: one function a target.

HTML is escaped by the report's templates themselves.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

#: Format characters that turn or hide what stands beside them (bidirectional control, and zero-width ones).
_HIDING = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
#: Marks of Markdown: those inside a line, and those that begin a heading, a list or a rule.
_MARKDOWN = re.compile(r"[\\|`*~]|(?<=\])\(|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|(?m:^\s*)[#+=-]")


def for_terminal(text: str, *, keep_lines: bool = True) -> str:
    r"""Text without anything that a terminal would obey: control characters are written out, e.g. as \x1b.

    Args:
        text: Of any characters.
        keep_lines: Whether line ends and tabs stay; else they are written out too.

    Example:
        >>> for_terminal("\x1b[31mred")
        '\\x1b[31mred'
    """
    kept = "\n\t" if keep_lines else ""
    written = "".join(
        _written(character) if _is_control(character) and character not in kept else character for character in text
    )
    return _HIDING.sub(lambda match: _written(match[0]), written)


def for_markdown(text: str, *, keep_lines: bool = False) -> str:
    r"""Text that Markdown shows as it is: no markup, no HTML, no cell's end.

    Args:
        text: Of any characters.
        keep_lines: Whether line ends stay; in a table or a list they would end it.

    Example:
        >>> for_markdown("a|b [x](y) <img>")
        'a\\|b [x]\\(y) &lt;img&gt;'
    """
    shown = for_terminal(text if keep_lines else " ".join(text.split("\n")))
    return html.escape(_MARKDOWN.sub(_escaped, shown), quote=False)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table in Markdown whose cells are shown as they are.

    Args:
        head: Titles of the columns.
        rows: Cells of each row, as many as titles.

    Example:
        >>> print(markdown_table(["class", "images"], [["a|b", "3"]]))
        | class | images |
        | --- | --- |
        | a\|b | 3 |
    """
    lines = ["| " + " | ".join(map(for_markdown, cells)) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])


def _escaped(match: re.Match[str]) -> str:
    """The mark behind a backslash; blanks before it stay."""
    return f"{match[0][:-1]}\\{match[0][-1]}"


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs")


def _written(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
