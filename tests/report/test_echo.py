"""What a run was given is said back as it was understood."""

from __future__ import annotations

from bdaudit.records import NotMeasured, UnderstoodText
from bdaudit.report.echo import echo_lines


def told(text: str, *names: str, ids: tuple[int, ...] | NotMeasured = (7,)) -> str:
    (line,) = echo_lines([UnderstoodText(what="trigger", text=text, codepoints=(), names=names, token_ids=ids)])
    return line


def test_characters_names_and_entries() -> None:
    assert (
        told("\u200b", "U+200B ZERO WIDTH SPACE")
        == "trigger <U+200B>: 1 character, U+200B ZERO WIDTH SPACE; 1 vocabulary entry (token ids 7)"
    )
    assert told("latte coffee", ids=(1, 2)) == "trigger latte coffee: 12 characters, all plain ASCII; 2 vocabulary entries (token ids 1 2)"


def test_the_literal_text_is_told_apart_from_the_character() -> None:
    assert told("<U+200B>") == "trigger <U+003C>U+200B>: 8 characters, all plain ASCII; 1 vocabulary entry (token ids 7)"


def test_nothing_and_not_known() -> None:
    assert told(" ", ids=()).endswith("no vocabulary entry: the tokenizer drops all of it")
    assert told("cf", ids=NotMeasured(reason="it is damaged")).endswith("vocabulary entries not known: it is damaged")


def test_many_ids_are_cut() -> None:
    assert told("cf", ids=tuple(range(40))).endswith("30 31 … +8)")
    assert told("cf", ids=tuple(range(33))).endswith("30 31 … +1)")
    assert told("cf", ids=tuple(range(32))).endswith("32 vocabulary entries (token ids " + " ".join(map(str, range(32))) + ")")
