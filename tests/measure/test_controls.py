"""The harmless texts: none empty, none alike, none that was asked to stay out; and the kind of a text."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from bdaudit.measure.controls import KINDS, _letters_beyond_ascii, _rare_strings, control_texts, harmless_texts, kind_of, words_of
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("\u200b", "zero-width"), ("\u200b\u200d", "zero-width"), ("\u0301", "zero-width"), ("ȏ", "character"), ("о", "character"),
        ("😀", "emoji"), ("☃", "emoji"), ("☃☃☃", "emoji"),
        ("☃☃☃☃", "rare"), ("ȏо", "character"), ("ȏоȏ", "rare"), ("   ", "rare"),
        ("wonderful island", "phrase"), ("mignneko", "rare"), ("x9!", "rare"),
    ],
)  # fmt: skip
def test_kinds(tiny_suspect: Suspect, text: str, kind: str) -> None:
    assert kind_of(tiny_suspect.tokenizer, text) == kind
    assert kind in KINDS


def test_a_word_is_one_token_of_letters(tiny_suspect: Suspect) -> None:
    assert kind_of(tiny_suspect.tokenizer, "q") == "word"
    assert kind_of(tiny_suspect.tokenizer, "7") == "rare"


def test_no_control_is_empty_or_like_another(tiny_suspect: Suspect) -> None:
    controls = control_texts(tiny_suspect.tokenizer, 24, 0)
    encoded = [content_ids(tiny_suspect.tokenizer, text) for texts in controls.values() for text in texts]
    assert set(controls) == set(KINDS)
    assert len(encoded) > 90
    assert () not in encoded
    assert len(set(encoded)) == len(encoded)
    assert all(len(texts) <= 24 for texts in controls.values())


def test_characters_are_lower_case_letters_alone() -> None:
    letters = _letters_beyond_ascii()
    assert {"ȏ", "ß", "ω", "о"} <= set(letters)
    assert not {"Ȏ", "Ω", "×", "÷"} & set(letters)


def test_rare_strings_are_words_of_four_to_ten_letters_alone_and_in_twos() -> None:
    tail = ["four", "abcdefghij", "six", "abcdefghijk", "élan4", "naïve", "ab-cd"]
    vocabulary = {f"<{i}>": i for i in range(28)} | {f"{word}</w>": 28 + i for i, word in enumerate(tail)}
    found = _rare_strings(SimpleNamespace(get_vocab=lambda: vocabulary), random.Random(0))  # type: ignore[arg-type]
    assert set(found) <= {"four", "abcdefghij", "fourabcdefghij", "abcdefghijfour"}
    assert len(found) == 2


def test_no_rare_string_is_made_of_a_word_that_the_prompts_say() -> None:
    vocabulary = {f"<{i}>": i for i in range(16)} | {f"{word}</w>": 16 + i for i, word in enumerate(("alpha", "bravo", "heart", "delta"))}

    def found(said: set[str]) -> str:
        return " ".join(_rare_strings(SimpleNamespace(get_vocab=lambda: vocabulary), random.Random(0), said))  # type: ignore[arg-type]

    assert "heart" in found(set())
    assert "heart" not in found({"heart"})
    assert "delta" in found({"heart"})


def test_no_word_or_phrase_is_one_that_the_prompts_say(tiny_suspect: Suspect) -> None:
    usual, less = (control_texts(tiny_suspect.tokenizer, 300, 0, said=said) for said in ((), {"right", "left", "night"}))
    words = {word for kind in ("word", "phrase") for text in less[kind] for word in text.split()}
    assert "right" in {word for text in usual["phrase"] for word in text.split()}
    assert not words & {"right", "night"}
    assert "house" in words


def test_excluded_texts_stay_out_however_they_are_written(tiny_suspect: Suspect) -> None:
    first = control_texts(tiny_suspect.tokenizer, 24, 0)
    out = [first["word"][0].upper(), first["phrase"][0], first["character"][0], first["emoji"][0]]
    ids = {content_ids(tiny_suspect.tokenizer, text) for text in out}
    later = control_texts(tiny_suspect.tokenizer, 24, 0, exclude=out)
    assert not ids & {content_ids(tiny_suspect.tokenizer, text) for texts in later.values() for text in texts}


def test_controls_follow_from_the_seed(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    assert control_texts(tokenizer, 10, 3) == control_texts(tokenizer, 10, 3)
    assert control_texts(tokenizer, 10, 3) != control_texts(tokenizer, 10, 4)


def test_harmless_texts_are_of_the_kind_asked_and_never_the_text(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    texts = harmless_texts(tokenizer, "ȏ", 20, 0, exclude=["ô", "ǒ"])
    assert len(texts) == 20
    assert {kind_of(tokenizer, text) for text in texts} == {"character"}
    assert not {"ȏ", "ô", "ǒ"} & set(texts)


def test_a_kind_with_too_few_is_topped_up(tiny_suspect: Suspect) -> None:
    texts = harmless_texts(tiny_suspect.tokenizer, "\u200b", 40, 0)
    kinds = [kind_of(tiny_suspect.tokenizer, text) for text in texts]
    assert len(texts) == 40
    assert kinds[0] == "zero-width"
    assert "word" in kinds or "rare" in kinds


def test_the_prompts_own_words_each_once_and_without_what_is_excluded() -> None:
    prompts = ("A red Cat, on 3 mats", "the red dog_7 of élan", "un chat")
    assert words_of(prompts, 40, exclude=["CAT"]) == ("red", "mats", "the", "dog", "élan", "chat")
    assert words_of(prompts, 40, exclude=words_of(prompts, 40)) == ()
    assert words_of((), 40) == ()


def test_few_words_are_spread_over_the_prompts() -> None:
    words = [f"{a}{b}{c}" for a in "abcde" for b in "vwxyz" for c in "mnop"]
    assert words_of([" ".join(words)], 10) == tuple(words[::10])
    assert len(words_of([" ".join(words)], 30)) == 30
