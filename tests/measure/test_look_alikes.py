"""What looks like what, against Unicode's table; and that the shipped table is what Unicode's file gives."""

from __future__ import annotations

import json
import string
import unicodedata
from collections import Counter

import pytest

from bdaudit.measure.look_alikes import TABLE, confusables, looks_like
from tests.measure import confusables as made


@pytest.mark.parametrize(
    ("character", "seen"),
    [
        ("ȏ", "o"), ("о", "o"), ("ё", "e"), ("Ā", "a"), ("ａ", "a"), ("ſ", "s"),
        ("Ꮟ", "b"), ("ꓐ", "b"), ("ⲟ", "o"), ("ɑ", "a"), ("ϲ", "c"), ("𝐈", "i"), ("ᴡ", "w"), ("০", "o"), ("Ⅿ", "m"),
        ("к", "k"), ("м", "m"), ("т", "t"), ("в", "b"), ("н", "h"), ("ь", "b"), ("χ", "x"), ("Β", "b"), ("г", "r"),
        ("ɐ", "a"), ("ʀ", "r"), ("ⓑ", "b"), ("ȵ", "n"),
        ("‚", ","), ("–", "-"), ("’", "'"), ("Ƨ", "2"), ("×", "x"),
        ("o", ""), ("", ""), ("ab", ""), ("ж", ""), ("猫", ""), ("😀", ""), ("\u200b", ""), ("\xa0", ""), ("①", ""),
    ],
)  # fmt: skip
def test_what_looks_like_what(character: str, seen: str) -> None:
    assert looks_like(character) == seen


@pytest.mark.parametrize("character", "КМТВНЬΧΑаΟо")
def test_a_capital_looks_like_what_its_small_form_does_since_that_is_what_is_read(character: str) -> None:
    assert looks_like(character) == looks_like(character.lower()) != ""


def test_the_table_is_unicode_s_whole_and_has_its_licence() -> None:
    kept = json.loads(TABLE.read_text(encoding="utf-8"))
    assert (kept["version"], kept["date"]) == ("17.0.0", "2025-07-22")
    assert kept["sha256"] == "ec88ecebcf89f63f813d460842b0cf8322744b40a0b2c06f88a2cea48c0351ea"
    assert {"UNICODE LICENSE V3", "SPDX-License-Identifier: Unicode-3.0"} <= set(kept["licence"])
    count = Counter(letter in string.ascii_lowercase for letter in confusables().values())
    assert (count[True], count[False]) == (1326, 285)
    assert set(string.ascii_lowercase) <= set(confusables().values())
    assert not any(c.isascii() for c in confusables())


def test_whatever_unicode_confuses_looks_like_something() -> None:
    other = {c: looks_like(c) for c, letter in confusables().items() if looks_like(c) != letter}
    assert all(other.values())
    for c, seen in other.items():  # a decomposition, or a small form, of its own
        forms = {c, c.lower(), c.upper()}
        plain = {unicodedata.normalize("NFKD", form)[:1].lower() for form in forms}
        assert seen in plain | {confusables().get(form) for form in forms}


LINES = """\ufeff# confusables.txt
# Date: 2030-01-02, 00:00:00 GMT
# Version: 20.0.0
0430 ;\t0061 ;\tMA\t# ( а → a )
0399 ;\t006C ;\tMA\t# ( Ι → l )
0049 ;\t006C ;\tMA\t# ( I → l )
0031 ;\t006C ;\tMA\t# ( 1 → l )
006D ;\t0072 006E ;\tMA\t# ( m → rn )
1F700 ;\t0072 006E ;\tMA\t# one that looks like m
0030 ;\t004F ;\tMA\t# ( 0 → O )
0D20 ;\t004F ;\tMA\t# one that looks like O
0153 ;\t006F 0065 ;\tMA\t# ( œ → oe )
201A ;\t002C ;\tMA\t# ( ‚ → , )
"""


def test_the_shipped_table_is_made_by_skeletons() -> None:
    found = made.table(LINES.encode(), ["none"])
    assert (found["version"], found["date"], found["licence"]) == ("20.0.0", "2030-01-02", ["none"])
    assert found["look_alikes"] == {",": "201A", "a": "0430", "l": "0399", "m": "1F700", "o": "0D20"}
