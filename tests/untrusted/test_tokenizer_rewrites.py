"""What a tokenizer's own steps may do to a text that transformers 5 would not do: spaces and one token at each end, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.tokenizer_rewrites import check_rewrites

IDS = {"</s>": 1, "<bos>": 2, "cat": 3}


def replaces(pattern: dict[str, Any], content: str) -> dict[str, Any]:
    return {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": pattern, "content": content}]}
    }


def frames(before: tuple[tuple[str, int], ...], after: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    named = {text: {"id": text, "ids": [number], "tokens": [text]} for text, number in (*before, *after)}
    pieces = [[{"SpecialToken": {"id": text, "type_id": 0}} for text, _ in side] for side in (before, after)]
    single = [*pieces[0], {"Sequence": {"id": "A", "type_id": 0}}, *pieces[1]]
    return {"post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": named}}


def checked(content: dict[str, Any]) -> None:
    check_rewrites({"model": {}, **content}, "tokenizer.json", IDS)


USUAL: dict[str, dict[str, Any]] = {
    "nothing": {},
    "CLIP's": {
        **replaces({"Regex": r"\s+"}, " "),
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<bos>", 2]},
        "model": {"dropout": None, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>"},
    },
    "T5's": {**replaces({"Regex": " {2,}"}, "▁"), **frames((), (("</s>", 1),))},
    "T5's, of old": replaces({"Regex": " {2,}"}, " "),
    "Gemma's": {**replaces({"String": " "}, "▁"), **frames((("<bos>", 2),), ()), "model": {"dropout": 0.0}},
    "a mark before a text": {"normalizer": {"type": "Prepend", "prepend": "▁"}},
    "both ends": frames((("<bos>", 2),), (("</s>", 1),)),
    "a decoder's": {"decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": "x"}},
}
REWRITTEN: dict[str, tuple[dict[str, Any], str]] = {
    "a word": (replaces({"String": "cat"}, "dog"), "it replaces cat by dog"),
    "a letter": (replaces({"Regex": "[ c]+"}, " "), "it replaces"),
    "spaces by nothing": (replaces({"String": " "}, ""), "it replaces"),
    "spaces by a word": (replaces({"Regex": r"\s+"}, " cat "), "by"),
    "a word before": ({"normalizer": {"type": "Prepend", "prepend": "cat "}}, "before every text"),
    "two ends": (frames((), (("</s>", 1), ("cat", 3))), "2 tokens around"),
    "two starts": (frames((("<bos>", 2), ("cat", 3)), ()), "2 tokens around"),
    "another's id": (frames((), (("</s>", 3),)), "id 3 around every text, and calls it </s>"),
    "an end that is no token": (frames((), (("<x>", 1),)), "calls it <x>"),
    "another's id, of CLIP": ({"post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<bos>", 2]}}, "id 3 around"),
    "another's id, of BERT": ({"post_processor": {"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<bos>", 3]}}, "id 3 around"),
    "chance": ({"model": {"dropout": 0.1}}, "the dropout of its model is 0.1"),
    "a prefix": ({"model": {"continuing_subword_prefix": "##"}}, "continuing_subword_prefix"),
    "a suffix": ({"model": {"end_of_word_suffix": "x"}}, "end_of_word_suffix"),
}
DAMAGED: dict[str, dict[str, Any]] = {
    "two patterns": replaces({"String": " ", "Regex": " "}, " "),
    "a pattern that is a list": replaces({"String": [" "]}, " "),
    "no pattern": {"normalizer": {"type": "Replace", "content": " "}},
    "no text": frames((), ()) | {"post_processor": {"type": "TemplateProcessing", "single": [], "special_tokens": {}}},
    "an end that is not told": {
        "post_processor": {
            "type": "TemplateProcessing", "special_tokens": {}, "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
        }
    },
    "ids without their texts": {
        "post_processor": {
            "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1, 3], "tokens": ["</s>"]}},
        }
    },
    "an end that is a number": {"post_processor": {"type": "RobertaProcessing", "sep": 1, "cls": ["<bos>", 2]}},
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_what_the_families_files_have_goes_through(name: str) -> None:
    checked(USUAL[name])


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_rewrites_a_text_is_not_supported(name: str) -> None:
    content, said = REWRITTEN[name]
    with pytest.raises(InconclusiveError, match="transformers 4 does so and transformers 5 does not") as error:
        checked(content)
    assert said in str(error.value)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_step_that_is_none_is_damage(name: str) -> None:
    with pytest.raises(BdauditError, match="a step of its is damaged") as error:
        checked(DAMAGED[name])
    assert type(error.value) is BdauditError
