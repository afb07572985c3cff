"""Two-part texts by crowds: a pair that does what neither part does is found, whatever the parts do by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bdaudit.kept_state import State
from bdaudit.progress import silent
from bdaudit.scan.context import ScanContext
from bdaudit.scan.sweep.result import SIZES, SweepResult
from bdaudit.scan.sweep.swept_texts import Pairing
from bdaudit.scan.sweep.two_part import CROWD, at_most, blocks, crowds_of, halves, two_part_sweep
from tests.scan.toy import WordSuspect

WORDS = tuple(f"word{i}" for i in range(100))


def pairing(suspect: WordSuspect, *, backwards: bool = False, without: str = "") -> Pairing:
    entries = suspect.tokenizer.entries
    of = {entries[word]: word for word in (WORDS[::-1] if backwards else WORDS)}

    def texts(a: int, seconds: Sequence[int]) -> list[str]:
        found = [f"{of[a]} {of[b]}" for b in seconds]
        return ["" if text == without else text for text in found]

    return Pairing("pairs", tuple(of), tuple(of), texts)


def swept(suspect: WordSuspect, folder: Path | None = None, **options: object) -> tuple[str, ...]:
    context = ScanContext(suspect, suspect.draws(), State(folder, "key"), silent, 0)  # type: ignore[arg-type]
    found = two_part_sweep(context, pairing(suspect, **options), SIZES)  # type: ignore[arg-type]
    assert found.size == 100 * 100
    assert 100 < len(found.drawn) <= SIZES.sample
    assert found.rounds[0].texts < found.size / (CROWD - 8), "many pairs a crowd"
    assert [done.kept for done in found.rounds[:-2]] == [SIZES.crowds] * (len(found.rounds) - 2)
    assert found.rounds[-1].texts == found.rounds[-2].kept <= 2 * SIZES.crowds
    assert len(found.survivors) == found.rounds[-1].kept == SIZES.pairs
    return tuple(probe.text for probe in found.survivors)


def test_a_pair_that_is_silent_part_by_part_comes_first() -> None:
    pairs = swept(WordSuspect(WORDS, "word5 word31", strength=6.0))
    assert set(pairs[:2]) == {"word5 word31", "word31 word5"}
    assert not {"word5 word31", "word31 word5"} & set(swept(WordSuspect(WORDS))[:2])


def test_a_word_that_does_much_by_itself_hides_no_pair() -> None:
    suspect = WordSuspect(WORDS, "word5 word31", strength=6.0)
    suspect.text.table[suspect.tokenizer.entries["word7"]] *= 12
    assert set(swept(suspect)[:2]) == {"word5 word31", "word31 word5"}


def test_neither_order_nor_batch_size_matters() -> None:
    first, second = WordSuspect(WORDS, "word5 word31"), WordSuspect(WORDS, "word5 word31")
    second.batch_size = 7
    assert swept(first)[:2] == swept(second, backwards=True)[:2]


def test_a_pair_that_no_text_gives_is_not_named_and_says_nothing() -> None:
    suspect = WordSuspect(WORDS, "word5 word31")
    found = swept(suspect, without="word5 word31")
    assert found[0] == "word31 word5"
    assert "" not in found


def test_a_resumed_sweep_measures_nothing_again(tmp_path: Path) -> None:
    first, second = WordSuspect(WORDS, "word5 word31"), WordSuspect(WORDS, "word5 word31")
    shared = 2 * len(first.draws())
    assert swept(first, tmp_path / "state") == swept(second, tmp_path / "state")
    assert first.forward_passes > shared == second.forward_passes


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (3, 2), (31, 16), (32, 32), (100, 32)])
def test_blocks_hold_every_entry_and_are_of_one_size(n: int, size: int) -> None:
    found = blocks(range(n), 0)
    assert {len(block) for block in found} == {size}
    assert {entry for block in found for entry in block} == set(range(n))
    assert len(found) == -(-n // size)
    assert found == blocks(range(n), 0)


def test_no_crowd_holds_its_first_entry() -> None:
    assert crowds_of(3, [(1, 2), (3, 4), (5, 6)]) == [(3, (1, 2)), (3, (5, 4)), (3, (5, 6))]
    assert crowds_of(3, [(3, 4)]) == [(3, (4, 4))]


def test_halves_part_a_crowd() -> None:
    assert halves((9, (1, 2, 3, 4))) == ((9, (1, 2)), (9, (3, 4)))


def test_at_most_leaves_room_for_others() -> None:
    shares = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 4), ("d", 5)]
    assert at_most(shares, 4, 2) == [0, 1, 3, 4]
    assert at_most(shares, 3, 9) == [0, 1, 2]


def test_a_tokenizer_without_parts_has_no_pairs() -> None:
    suspect = WordSuspect(WORDS)
    context = ScanContext(suspect, suspect.draws(), State(None, "key"), silent, 0)  # type: ignore[arg-type]
    assert two_part_sweep(context, Pairing("joined words", (), (3,), lambda a, seconds: []), SIZES) == SweepResult((), (), 0)
