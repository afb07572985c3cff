"""Steps of a serialised tokenizer: known kinds, a bounded number, and no text grows by more than a bound."""

from __future__ import annotations

from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.untrusted.tokenizer_steps import KINDS, PRECOMPILED, check_steps


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: Any) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def test_clips_own_steps_are_taken() -> None:
    space = replaced({"Regex": r"\s+"}, " ")
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\p{N}"}, "behavior": "Removed", "invert": True}
    post = {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}
    content = {"normalizer": sequence({"type": "NFC"}, space, {"type": "Lowercase"}), "pre_tokenizer": split, "post_processor": post}
    check_steps({**content, "decoder": {"type": "ByteLevel"}}, "x")
    check_steps({"normalizer": None}, "x")


@pytest.mark.parametrize("section", ["normalizer", "pre_tokenizer", "post_processor", "decoder"])
def test_a_kind_that_is_not_known_is_told_at_any_depth(section: str) -> None:
    for odd in ({"type": "Evil"}, {"precompiled_charsmap": "AAAAAA=="}, "NFC", 5):
        for step in (odd, {"type": "Sequence", {"pre_tokenizer": "pretokenizers"}.get(section, "normalizers"): [{"type": "NFC"}, odd]}):
            with pytest.raises(BdauditError, match="x: a step of the kind"):
                check_steps({section: step}, "x")


def test_tables_of_bytes_are_taken_where_they_are_asked_for() -> None:
    content = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}}
    check_steps(content, "x", also=frozenset({PRECOMPILED}))
    with pytest.raises(BdauditError, match="of the kind Precompiled"):
        check_steps(content, "x")
    assert PRECOMPILED not in KINDS


def test_steps_are_counted_over_all_sections() -> None:
    content = {"normalizer": sequence(*[{"type": "NFC"}] * 62), "decoder": {"type": "Fuse"}}
    check_steps(content, "x")
    with pytest.raises(BdauditError, match="65 steps; at most 64"):
        check_steps({**content, "pre_tokenizer": {"type": "Whitespace"}}, "x")
    with pytest.raises(BdauditError, match="expected a list of steps"):
        check_steps({"normalizer": {"type": "Sequence", "normalizers": {"type": "NFC"}}}, "x")


@pytest.mark.parametrize(
    ("steps", "grows"),
    [
        ([replaced({"String": "a"}, "b" * 64)], False),
        ([replaced({"String": "a"}, "b" * 65)], True),
        ([replaced({"String": "aa"}, "b" * 128)], False),
        ([replaced({"String": "aaaa"}, "")] * 40, False),
        ([replaced({"String": "a"}, "aa")] * 6, False),
        ([replaced({"String": "a"}, "aa")] * 7, True),
        ([replaced({"String": ""}, "b" * 63)], False),
        ([replaced({"String": ""}, "b" * 64)], True),
        ([replaced({"Regex": r"\s+"}, "_")] * 40, False),
        ([replaced({"Regex": r"\s+"}, "_" * 64)], False),
        ([replaced({"Regex": r"\s+"}, "_" * 65)], True),
        ([replaced({"Regex": r"\s*"}, "_")] * 6, False),
        ([replaced({"Regex": r"\s*"}, "_")] * 7, True),
        ([replaced({"Regex": "a|"}, "_")] * 7, True),
        ([replaced({"Regex": r"\b"}, "_")] * 7, True),
        ([replaced({"Regex": "^"}, "_")] * 7, True),
        ([replaced({"Regex": ""}, "_")] * 7, True),
        ([replaced({"Other": "a"}, "_")] * 7, True),
        ([replaced({"Regex": r"\s*"}, "")] * 40, False),
        ([{"type": "Prepend", "prepend": "▁" * 64}], False),
        ([{"type": "Prepend", "prepend": "▁" * 65}], True),
    ],
)
def test_a_text_grows_within_bounds(steps: list[dict[str, Any]], grows: bool) -> None:
    content = {"normalizer": sequence(*steps)}
    if not grows:
        check_steps(content, "x")
        return
    with pytest.raises(BdauditError, match=r"times as long; at most 64|before a text; at most 64"):
        check_steps(content, "x")


@pytest.mark.parametrize("where", ["single", "pair", "special_tokens", "ids", "tokens"])
def test_a_template_puts_few_tokens_around_a_text(where: str) -> None:
    def template(n: int) -> dict[str, Any]:
        step: dict[str, Any] = {"type": "TemplateProcessing", "single": ["$A"], "pair": None}
        if where in ("ids", "tokens"):
            step["special_tokens"] = {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]} | {where: [1] * n}}
        elif where == "special_tokens":
            step[where] = {str(i): {"id": str(i)} for i in range(n)}
        else:
            step[where] = ["$A"] * n
        return {"post_processor": step}

    check_steps(template(64), "x")
    with pytest.raises(BdauditError, match="its template puts more than 64 tokens around a text"):
        check_steps(template(65), "x")
