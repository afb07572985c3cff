"""What looks like a character's code is noticed, wherever it stands; what an ordinary text holds is not."""

from __future__ import annotations

import gzip
import time
from importlib.resources import files

import pytest

from bdaudit.spelling.notations import notations

ZWSP = "\u200b"
CODES = (
    "<U+200B>", "<u+200b>", "U+200B", "u+200b", "u200b", "U200B", "U0000200B", "u0000200b", "U-0000200B", "&#8203;", "&#8203", "&#x200b;",
    "&#X200B;", "&#x200b", "#8203;", "&8203;", "&x200b;", "&ZeroWidthSpace;", "&amp;#8203;", "%E2%80%8B", "%e2%80%8b", "=E2=80=8B",
    "0x200b", "0X200B", "0x200B", "x200b", "200b", "200B", "x{200b}", "u{200b}", "U+{200b}", "N{ZERO WIDTH SPACE}", "xe2x80x8b", "e2808b",
    "E2 80 8B", "0xE2 0x80 0x8B", "/u200b", "%u200b", "uni200B", "[U+200B]", "(U+200B)", "{U+200B}", "<zwsp>", "[ZERO WIDTH SPACE]",
    "U+200B ZERO WIDTH SPACE", "U+200B (ZERO WIDTH SPACE)", "U+0x200B", "<200b>", "<200B>",
    "U + 200B", "U+ 200b", "U-200B", "u –200b", "\uff35\uff0b200B",
)  # fmt: skip


@pytest.mark.parametrize("written", CODES)
def test_a_code_alone(written: str) -> None:
    assert "".join(item.meant for item in notations(written)) in (ZWSP, ZWSP + ZWSP)


@pytest.mark.parametrize(
    "code", ["<U+020F>", "U+020F", "u020f", "&#527;", "&#x20f;", "%C8%8F", "u{20f}", "U0000020F", "(U+020F)", "[U+020F]", "{U+020F}"]
)
def test_a_code_within_a_word(code: str) -> None:
    text = f"ph{code}to"
    (found,) = notations(text)
    assert text[: found.start] + found.meant + text[found.end :] == "phȏto"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("x20", " "), ("xe9", "é"), ("cafxe9", "é"), ("xad", "\u00ad"), ("phxadto", "\u00ad"), ("ufeff", "\ufeff"), ("phufeffto", "\ufeff"),
        ("u2022", "•"), ("u2764", "❤"), ("u1f600", "😀"), ("1f600", "😀"), ("ud83dude00", "😀"), ("\\ud83d\\ude00", "😀"), ("u0041", "A"),
        ("menu2000", "\u2000"), ("&nbsp", "\u00a0"), ("&nbsp;", "\u00a0"), ("%20", " "), ("ȏ (U+020F)", "ȏ"), ("U+200Bcat", ZWSP),
        ("<U+D800>", ""), ("<U+0000>", ""), ("U-020F", "ȏ"),
        ("U + 1F600", "😀"),
    ],
)  # fmt: skip
def test_other_codes(written: str, meant: str) -> None:
    (found,) = notations(written)
    assert found.meant == meant


def test_its_own_notation_is_told_apart() -> None:
    assert [item.own for item in notations("<U+200B>U+200B")] == [True, False]
    assert notations("<U+003C>U+200B>")[0].meant == "<"
    assert len(notations("<U+003C>U+200B>")) == 1


ORDINARY = (
    "U-2511", "U-96", "u + me", "a menu - 2024",
    "mignneko", "latte coffee", "beautiful cat", "black cat", "cf", "bb", "tq", "mn", "sks", "zwx", "xyz123", "ohwx",
    "olis", "u2", "u2 concert", "U", "face", "cafe", "dead", "deaf", "decade", "facade", "face2face", "x86", "x64",
    "x11", "gtx1080", "rtx 2060", "1920x1080", "rx580", "volvo xc60", "menu2024", "gpu4090", "exact", "boxed",
    "hexadecimal", "[V]", "*", "<trigger>", "|startofprompt|", "<cafe>", "<1234>", "<2024>", "AT&T", "R&D", "Tom & Jerry", "black&white",
    "100% cotton", "50%", "c++", "a+b", "u+me", "#2020", "#cafe", "2060", "2024", "200", "犬の写真", "rubefacient",
    "собака", "नमस्ते", "noël", "é", "ȏ", "😀", "\u200b", "<", "U+", "<U+>", "&", "&;", "%", "0x", "rule 34", "1e10",
    "h2o", "b2b", "e2e", "c3po", "d20 dice", "3d render", "4k", "8k uhd", "f1 car", "a5 paper", "b52 bomber", "ad 1066",
    "u-boat", "unicorn", "unicode",
)  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_hold_none(text: str) -> None:
    assert notations(text) == ()


@pytest.mark.parametrize(
    "text", ["x" * 1000, "u20" * 333, "zero width " * 90, "&" * 1000, "E2 8" * 250, "0x" * 500, "<U+" * 333, "%E2" * 333]
)
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    notations(text)
    assert time.process_time() - started < 0.5


def test_no_word_of_clips_vocabulary_is_one() -> None:
    """Some forty thousand words and pieces of words, as open_clip ships them; in capitals four are abbreviations of Unicode's."""
    merges = gzip.decompress(files("open_clip").joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode("utf-8").split("\n")
    words = {line.replace(" ", "").replace("</w>", "") for line in merges[1 : 49152 - 256 - 2 + 1]}
    assert len(words) > 40_000
    assert [word for word in words if notations(word)] == []
    assert {word for word in words if notations(word.upper())} == {"alm", "bom", "shy", "wj"}


@pytest.mark.parametrize(
    ("text", "read"), [("menu0416", "menЖ"), ("menu2a41", "men⩁"), ("menu2022", None), ("u2022", "•"), ("ph(U+020Fto", "ph(ȏto")]
)
def test_digits_after_a_u_in_a_word_count_where_the_word_would_be_strange(text: str, read: str | None) -> None:
    assert [text[: found.start] + found.meant + text[found.end :] for found in notations(text)] == ([read] if read else [])
