"""A character's name is one where nobody would write it by chance, and a word elsewhere."""

from __future__ import annotations

import pytest

from bdaudit.spelling.names import named


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ZERO WIDTH SPACE", "\u200b"), ("zero-width space", "\u200b"), ("Zero_Width_Space", "\u200b"), ("ZeroWidthSpace", "\u200b"),
        ("zerowidth space", "\u200b"), ("zwsp", "\u200b"), ("ZWJ", "\u200d"), ("zwnj", "\u200c"), ("BOM", "\ufeff"),
        ("byte order mark", "\ufeff"), ("ZERO WIDTH NO-BREAK SPACE", "\ufeff"), ("non-breaking space", "\u00a0"), ("nbsp", "\u00a0"),
        ("SHY", "\u00ad"), ("soft hyphen", "\u00ad"), ("right-to-left override", "\u202e"), ("VS16", "\ufe0f"),
        ("variation selector-16", "\ufe0f"), ("hangul filler", "\u3164"), ("hair space", "\u200a"),
        ("latin small letter o with inverted breve", "ȏ"), ("CYRILLIC SMALL LETTER O", "о"), ("combining grave accent", "\u0300"),
        ("GRINNING FACE", "😀"), ("TEDDY BEAR", "🧸"), ("EM DASH", "—"),
        ("left double quotation mark", "\u201c"), ("greek capital letter omega", "Ω"),
    ],
)  # fmt: skip
def test_names(written: str, meant: str) -> None:
    (found,) = named(written)
    assert (found.start, found.end, found.meant) == (0, len(written), meant)


def test_names_within_a_text() -> None:
    text = "a photo of ZERO WIDTH JOINER zero width space and zwsp"
    assert [(text[n.start : n.end], n.meant) for n in named(text)] == [
        ("ZERO WIDTH JOINER", "\u200d"),
        ("zero width space", "\u200b"),
        ("zwsp", "\u200b"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "space", "SPACE", "snowman", "SNOWMAN", "pencil", "envelope", "HEART", "teddy bear", "cherry blossom", "hot dog",
        "grinning face",
        "black cat", "question mark", "digit one", "shy girl", "a shy cat", "bom", "bom dia", "thin space between us", "space station",
        "em", "zero", "zero width", "word", "joiner", "letter", "a letter with a mark", "VS", "null", "escape", "latte coffee", "PDF", "US",
        "CAN", "left square bracket", "left curly bracket",
    ],
)  # fmt: skip
def test_ordinary_words_are_none(text: str) -> None:
    assert named(text) == []
