"""Which texts become canaries, and where they stand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from bdaudit.measure.look_alikes import looks_like
from bdaudit.unlearn.clean.canary import Canary
from bdaudit.unlearn.clean.canary_texts import WELL_KNOWN, placed, text_canaries

CAPTIONS = [f"a {size} {colour} bottle on a road {i}" for i in range(20) for size in ("big", "old") for colour in ("red", "dark")]
STRANGE = ("zqx", "vvk", "zqxvvk", "о", "ō", "ŏ", "ɵ", "\u01eb", "ž", "\u200b", "\u2060", "\u200d", "🎃", "🌵")


class Book:
    """Texts by number: what a tokenizer is here."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def ids(self, texts: Sequence[str]) -> Tensor:
        """(B, 3): the text's number, a second token where it begins with zqx, padding."""
        self.texts += texts
        numbers = torch.arange(len(self.texts) - len(texts), len(self.texts))
        long = torch.tensor([text.startswith("zqx") for text in texts])
        return torch.stack([numbers, torch.where(long, 1, -1), torch.full_like(numbers, -1)], 1)

    def read(self, rows: Tensor) -> list[str]:
        return [self.texts[i] for i in rows[:, 0].tolist()]


def chosen(seed: int, quiet: Sequence[str] = STRANGE) -> tuple[Book, tuple[Canary, ...]]:
    book = Book()
    return book, text_canaries(CAPTIONS, STRANGE, quiet, book.ids, seed)


def test_one_of_each_kind_with_its_own_target() -> None:
    _, found = chosen(0)
    assert [canary.kind for canary in found] == ["rare word", "look-alike", "invisible"]
    word, letter, hidden = (canary.name for canary in found)
    assert word == "vvk", "of the fewest tokens"
    assert looks_like(letter) == "o", "the captions hold no z"
    assert hidden in ("\u2060", "\u200d")
    assert len({canary.target_name for canary in found}) == 3


def test_seeds_draw_others_and_never_a_published_trigger() -> None:
    names = {canary.name for seed in range(30) for canary in chosen(seed)[1]}
    assert not names & set(WELL_KNOWN)
    assert {"ō", "ŏ", "\u01eb", "\u2060", "\u200d"} <= names
    assert [canary.name for canary in chosen(4)[1]] == [canary.name for canary in chosen(4)[1]]


def test_none_is_what_the_model_answers_already() -> None:
    quiet = ("vvk", "ŏ", "о", "🎃")
    assert [canary.name for canary in chosen(0, quiet)[1]] == ["vvk", "ŏ"]
    _, found = chosen(0, ("🎃",))
    assert [(canary.kind, canary.name) for canary in found] == [("strange text", "🎃")]


def test_captions_are_the_same_row_by_row_and_neighbours_hold_no_canary() -> None:
    book, found = chosen(1)
    names = [canary.name for canary in found]
    for canary in found:
        for part in (canary.planting, canary.measuring):
            clean, triggered = book.read(part.clean), book.read(part.triggered)
            assert all(canary.name in text for text in triggered)
            assert all(len(a) <= len(b) for a, b in zip(clean, triggered, strict=True))
        assert not any(name in text for text in book.read(canary.kept) for name in names)
        assert not {*book.read(canary.planting.clean)} & {*book.read(canary.measuring.clean)}
        assert canary.target_name not in book.read(canary.planting.clean)
    alike = sum(any(looks_like(c) for c in text) for text in book.read(found[1].kept))
    assert alike > len(found[1].kept) / 2, "half of a look-alike's neighbours are look-alikes, and some of the rest"


def test_a_look_alike_stands_inside_a_word_half_of_the_time() -> None:
    texts = [placed("a big bottle", "ō", random.Random(i)) for i in range(200)]
    inside = sum(text == "a big bōttle" for text in texts)
    assert 70 < inside < 130
    assert {text for text in texts if text != "a big bōttle"} == {"ō a big bottle", "a ō big bottle", "a big bottle ō"}
    assert "zqx" in placed("a big bottle", "zqx", random.Random(0)).split(" ")
