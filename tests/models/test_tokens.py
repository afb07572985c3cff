"""Alignment of token ids against hand-written cases, and what a text encodes to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.measure.insertion import insert
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import (
    Framed,
    Tokenizer,
    alignment,
    content_ids,
    content_mask,
    contents,
    expanded,
    is_truncated,
    own_positions,
    source_positions,
    text_of,
    token_ids,
)
from bdaudit.untrusted.layouts.layout import Reading
from tests.verify.toy import byte_tokenizer

CLEAN = [11, 12, 13, 14]


@pytest.mark.parametrize(
    ("changed", "own", "moved"),
    [
        ([99, 11, 12, 13, 14], [0], [1, 2, 3, 4]),
        ([11, 12, 13, 14, 99], [4], [0, 1, 2, 3]),
        ([11, 12, 99, 13, 14], [2], [0, 1, 3, 4]),
        ([11, 12, 97, 98, 99, 13, 14], [2, 3, 4], [0, 1, 5, 6]),
        ([97, 98, 11, 12, 13, 14], [0, 1], [2, 3, 4, 5]),
    ],
    ids=["prefix", "suffix", "middle", "several tokens", "long prefix"],
)
def test_shared_words_and_own_tokens(changed: list[int], own: list[int], moved: list[int]) -> None:
    assert alignment(CLEAN, changed) == (list(zip(range(4), moved, strict=True)), own)


def test_a_word_with_a_letter_replaced_is_the_triggers_own() -> None:
    assert alignment(CLEAN, [11, 97, 98, 13, 14]) == ([(0, 0), (2, 3), (3, 4)], [1, 2])


def test_nothing_is_own_where_nothing_changed() -> None:
    assert alignment(CLEAN, CLEAN) == ([(i, i) for i in range(4)], [])


ids = st.lists(st.integers(0, 5), max_size=8)


@given(ids, st.lists(st.integers(100, 105), min_size=1, max_size=3), st.integers(0, 8))
def test_a_trigger_of_new_tokens_is_found_wherever_it_stands(clean: list[int], trigger: list[int], at: int) -> None:
    at = min(at, len(clean))
    pairs, own = alignment(clean, clean[:at] + trigger + clean[at:])
    assert own == list(range(at, at + len(trigger)))
    assert [a for a, _ in pairs] == list(range(len(clean)))


@given(ids, ids)
def test_pairs_hold_the_same_word_and_keep_the_order(a: list[int], b: list[int]) -> None:
    pairs, own = alignment(a, b)
    assert all(a[i] == b[j] for i, j in pairs)
    assert pairs == sorted(pairs)
    assert len({i for i, _ in pairs}) == len(pairs)
    assert sorted([j for _, j in pairs] + own) == list(range(len(b)))


def test_own_positions_count_from_the_start_token(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    assert own_positions(tokenizer, "ab", "~ ab") == [1]
    assert own_positions(tokenizer, "ab", "ab ~~") == [3, 4]
    assert own_positions(tokenizer, "ab cd", insert("ab cd", "~", "middle")) == [3]


def test_own_positions_never_reach_the_end_token(tiny_suspect: Suspect) -> None:
    own = own_positions(tiny_suspect.tokenizer, "ab", "ab " + "~" * 200)
    assert own == list(range(3, 76))


def test_ids_are_padded_and_cut_as_the_stock_pipeline_does(tiny_suspect: Suspect) -> None:
    ids = token_ids(tiny_suspect.tokenizer, ["ab", "x" * 200])
    assert ids.shape == (2, 77)
    assert ids[:, 0].tolist() == [512, 512]
    assert ids[1, 76] == 513
    assert ids[0, 3:].tolist() == [513] * 74


@pytest.mark.parametrize(("letters", "cut"), [(75, False), (76, True)])
def test_truncation_starts_beyond_the_last_free_place(tiny_suspect: Suspect, letters: int, cut: bool) -> None:
    assert is_truncated(tiny_suspect.tokenizer, "x" * letters) is cut


def test_content_ids_of_nothing(tiny_suspect: Suspect) -> None:
    assert content_ids(tiny_suspect.tokenizer, "  ") == ()
    assert len(content_ids(tiny_suspect.tokenizer, "\u200b")) == 3


def test_content_mask_leaves_out_start_end_and_padding() -> None:
    ids = torch.tensor([[7, 1, 2, 9, 9, 9], [7, 9, 9, 9, 9, 9], [7, 1, 2, 3, 4, 9]])
    assert content_mask(ids, 9).tolist() == [
        [False, True, True, False, False, False],
        [False] * 6,
        [False, True, True, True, True, False],
    ]


def with_added(*names: str) -> Tokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(names))
    return tokenizer


TEXTS = (
    "", "plain", "<toy>", "a <toy> b", "<toy><toy>", "x<toy>y", "<TOY>", "<toy>_1", "<toy>_2 <one>", "<one>", "oscar, a car and a carpet",
    "car_1 car", "<toy>_3", "<toy>_1_1 <three>", "~" * 90 + "<toy>", "<toy> \u200b <TOY> car",
)  # fmt: skip
ADDED = ("<toy>", "<toy>_1", "<toy>_3", "<one>", "car", "car_1", "<three>", "<three>_1", "<three>_2")


@pytest.mark.parametrize("text", TEXTS)
def test_embeddings_of_several_vectors_are_written_out_as_diffusers_does(text: str) -> None:
    from diffusers.loaders import TextualInversionLoaderMixin

    tokenizer = with_added(*ADDED)
    stock = TextualInversionLoaderMixin().maybe_convert_prompt(text, tokenizer)
    assert expanded(tokenizer, text) == stock
    ids = tokenizer(stock, padding="max_length", max_length=77, truncation=True).input_ids
    assert token_ids(tokenizer, [text])[0].tolist() == ids
    assert contents(tokenizer, [text]) == [content_ids(tokenizer, text)] == [tuple(tokenizer(stock, add_special_tokens=False).input_ids)]


def test_the_ids_of_such_an_embedding_are_all_its_vectors() -> None:
    tokenizer = with_added(*ADDED)
    first = tokenizer.convert_tokens_to_ids("<three>")
    assert content_ids(tokenizer, "<three>") == (first, first + 1, first + 2)
    assert text_of(tokenizer, [first]) == "", "no text encodes to the first alone"
    assert text_of(tokenizer, [first + 2]) == "<three>_2"


def test_a_tokenizer_that_grows_is_read_anew() -> None:
    tokenizer = with_added("<toy>")
    assert expanded(tokenizer, "<toy>") == "<toy>"
    tokenizer.add_tokens(["<toy>_1"])
    assert expanded(tokenizer, "<toy>") == "<toy> <toy>_1"


def test_names_that_lie_in_one_another_do_not_fill_the_memory() -> None:
    names = [f"{name}{end}" for name in ("x", "_", "1") for end in ("", *(f"_{i}" for i in range(1, 100)))]
    tokenizer = with_added(*names)
    with pytest.raises(BdauditError, match="more than 1,000,000 characters"):
        expanded(tokenizer, "x _ 1 " * 20)
    assert expanded(tokenizer, "plain") == "plain"


def sources(suspect: Suspect, clean: str, changed: str, length: int = 12) -> list[int]:
    rows = suspect.tokenizer([clean, changed], padding="max_length", max_length=length, truncation=True).input_ids
    return source_positions(*rows)


@pytest.mark.parametrize(
    ("clean", "changed", "wanted"),
    [
        ("abc", "abc", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("abc", "~ abc", [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("abc", "abc ~", [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("ab cd", "ab ~~ cd", [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("abc", "a~c", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("abc", "a~~~c", [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
    ids=["identity", "prefix", "suffix", "middle", "replace", "replace by several"],
)
def test_source_positions(tiny_suspect: Suspect, clean: str, changed: str, wanted: list[int]) -> None:
    assert sources(tiny_suspect, clean, changed) == wanted


@pytest.mark.parametrize("letters", [0, 5, 9, 10, 11, 40])
@pytest.mark.parametrize("trigger", ["~ {}", "{} ~", "{}", "~~~~~~~~~~~~~~~~ {}"])
def test_sources_are_as_many_as_tokens_and_never_out_of_range(tiny_suspect: Suspect, letters: int, trigger: str) -> None:
    found = sources(tiny_suspect, "x" * letters, trigger.format("x" * letters))
    assert len(found) == 12
    assert found == sorted(found)
    assert found[0] == 0
    assert all(0 <= i < 12 for i in found)


def test_a_prompt_that_is_cut_off_keeps_its_end_token(tiny_suspect: Suspect) -> None:
    assert sources(tiny_suspect, "abcdef", "~ abcdef", 8) == [0, 0, 1, 2, 3, 4, 5, 7]


def test_a_framed_tokenizer_that_is_not_there_yet_has_nothing() -> None:
    """As a copy asks for it before it has anything, which would ask for ever."""
    empty = object.__new__(Framed)
    for name in ("inner", "__fspath__"):
        with pytest.raises(AttributeError, match=name):
            getattr(empty, name)


class Letters:
    """A tokenizer of letters: an entry each, and an end."""

    def __init__(self, joined: str = "") -> None:
        self.joined = joined

    def __call__(self, text: str, add_special_tokens: bool = True, **_: object) -> SimpleNamespace:
        ids = [999 if self.joined and text[i : i + 2] == self.joined else ord(letter) for i, letter in enumerate(text)]
        return SimpleNamespace(input_ids=[*ids, 1] if add_special_tokens else ids)


def test_a_text_is_found_where_it_stands_and_not_where_the_prefix_says_the_same() -> None:
    frame = Framed(Letters(), Reading(length=40, prefix="say a: ", suffix="!")).frame
    assert frame.before == tuple(map(ord, "say a:"))
    assert frame.after == (ord("!"), 1)
    assert Framed(Letters(), Reading(length=40)).frame.before == ()


def test_a_tokenizer_that_joins_a_text_with_its_prefix_is_not_supported() -> None:
    with pytest.raises(InconclusiveError, match="joins a text with what the pipeline puts around it"):
        Framed(Letters(joined="a!"), Reading(length=40, prefix="say:", suffix="!"))
