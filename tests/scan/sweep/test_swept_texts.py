"""Texts that nobody listed, against the tokenizer's own answers."""

from __future__ import annotations

import string
import unicodedata
from pathlib import Path
from typing import ClassVar

import pytest
from transformers import CLIPTokenizer

from bdaudit.measure.look_alikes import confusables
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.scan.sweep.swept_texts import characters, common_words, joined_words, two_of, vocabulary
from fixtures import layout
from tests.verify.toy import byte_tokenizer


@pytest.fixture(scope="module")
def cut() -> CLIPTokenizer:
    """The fixtures' tokenizer: CLIP's own pieces, those of an ordinary vocabulary left out."""
    return CLIPTokenizer.from_pretrained(Path(layout.__file__).parent / "base" / "tokenizer")


def test_every_entry_is_reached_or_named(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    source = vocabulary(tokenizer)
    entries = [entry for probe in (*source.probes, *source.unreachable) for entry in probe.ids]
    assert sorted(entries) == sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    assert len(source.probes) > 60
    for probe in source.probes:
        assert content_ids(tokenizer, probe.text) == probe.ids
    assert all(probe.text for probe in source.unreachable), "named by their piece"


def test_an_embedding_of_several_vectors_is_swept_whole() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<toy>", "<toy>_1", "<one>"])
    probes = {probe.text: probe.ids for probe in vocabulary(tokenizer).probes}
    toy = tokenizer.convert_tokens_to_ids("<toy>")
    assert probes["<toy>"] == (toy, toy + 1)
    assert probes["<toy>_1"] == (toy + 1,)
    assert probes["<one>"] == (toy + 2,)


def test_what_the_files_call_special_is_swept_like_any_other_entry() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"unk_token": "mign", "pad_token": "<pad>", "additional_special_tokens": ["neko"]})
    assert {"mign", "<pad>", "neko"} <= {probe.text for probe in vocabulary(tokenizer).probes}
    assert not {tokenizer.bos_token, tokenizer.eos_token} & {probe.text for probe in vocabulary(tokenizer).probes}


def test_an_added_token_with_spaces_of_its_own_is_reached_with_them() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([" mign"])
    entry = tokenizer.convert_tokens_to_ids(" mign")
    assert content_ids(tokenizer, "a mign")[-1] == entry
    assert {probe.ids: probe.text for probe in vocabulary(tokenizer).probes}[entry,] == " mign"


def test_characters_encode_to_something_and_none_twice(tiny_suspect: Suspect) -> None:
    source = characters(tiny_suspect.tokenizer, ["a big dog, so near"])
    ids = [probe.ids for probe in source.probes]
    assert len(set(ids)) == len(ids) > 500
    for probe in source.probes:
        assert content_ids(tiny_suspect.tokenizer, probe.text) == probe.ids != ()
    assert "\xa0" in source.dropped
    assert {"ȏ", "о", "е", "\u200b", "\u200d", "\u00ad", "🎃", "ａ"} <= {probe.text for probe in source.probes}


@pytest.mark.parametrize("prompts", [["ooo"], [string.printable]])
def test_whatever_unicode_confuses_is_swept_or_encodes_like_something_that_is(cut: CLIPTokenizer, prompts: list[str]) -> None:
    swept = {probe.ids for probe in characters(cut, prompts).probes}
    missing = [c for c in confusables() if content_ids(cut, c) not in swept]
    assert not missing
    assert all(content_ids(cut, c) for c in confusables()), "none encodes to nothing"


def test_what_only_its_parts_or_its_name_liken_to_a_letter_is_swept_for_the_prompts_letters_alone(tiny_suspect: Suspect) -> None:
    texts = {probe.text for probe in characters(tiny_suspect.tokenizer, ["ooo"]).probes}
    assert {"о", "а", "ö", "ꓳ"} <= texts
    assert not {"ä", "ɐ"} & texts
    assert unicodedata.normalize("NFC", "o\u0311") in texts


def test_words_come_in_the_order_of_the_entries() -> None:
    class Entries:
        added_tokens_encoder: ClassVar[dict[str, int]] = {}

        def __len__(self) -> int:
            return len(self.get_vocab())

        def get_vocab(self) -> dict[str, int]:
            return {"the</w>": 5, "cat</w>": 3, "ca": 1, "it</w>": 2, "x1z</w>": 4, "dog</w>": 9, "Dog</w>": 7}

        def __call__(self, text: str, add_special_tokens: bool) -> object:
            return type("Encoded", (), {"input_ids": [self.get_vocab()[text + "</w>"]]})

    assert common_words(Entries(), 10) == ("cat", "the", "dog")
    assert common_words(Entries(), 2) == ("cat", "the")


def test_joined_words_encode_to_their_two_parts(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    made, entries = joined_words(tokenizer, 20), {entry: piece for piece, entry in tokenizer.get_vocab().items()}
    assert len(made.firsts) == len(made.seconds) == 20
    assert list(made.firsts) == sorted(made.firsts, reverse=True), "the rarest first"
    assert not any(entries[a].endswith("</w>") for a in made.firsts)
    assert all(entries[b].endswith("</w>") for b in made.seconds)
    named = {(a, b): text for a in made.firsts for b, text in zip(made.seconds, made.texts(a, made.seconds), strict=True)}
    assert any(named.values())
    assert made.texts(made.firsts[0], [tokenizer.get_vocab()["!</w>"]]) == [""], "it would stand beside a word"
    for pair, text in named.items():
        assert not text or (text.isalnum() and content_ids(tokenizer, text) == pair)


def test_phrases_are_two_common_words(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    made = two_of(tokenizer, ("a", "b", "c"))
    assert len(made.firsts) == 3 == len(made.seconds)
    for text, second in zip(made.texts(made.firsts[0], made.seconds), made.seconds, strict=True):
        assert content_ids(tokenizer, text) == (made.firsts[0], second)
