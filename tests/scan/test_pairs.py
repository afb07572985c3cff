"""Pairs by group testing: every ordered pair is somewhere, and one that does what neither word does is found."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bdaudit.pipeline.state import State
from bdaudit.progress import silent
from bdaudit.scan.halving import Screen
from bdaudit.scan.pairs import _shorter, circuit, prime_at_most, stretches, sweep_pairs
from tests.scan.toy import WordSuspect

WORDS = tuple(f"word{i}" for i in range(100))


@pytest.mark.parametrize("n", [2, 3, 5, 7, 31])
def test_every_ordered_pair_is_neighbours_once(n: int) -> None:
    walk = circuit(n)
    neighbours = list(pairwise(walk))
    assert len(neighbours) == n * (n - 1)
    assert set(neighbours) == {(a, b) for a in range(n) for b in range(n) if a != b}


@pytest.mark.parametrize("length", [2, 3, 5, 8])
def test_stretches_part_no_neighbours(length: int) -> None:
    walk = circuit(11)
    cut = stretches(walk, length)
    assert {len(piece) for piece in cut} == {length}
    assert set(pairwise(walk)) <= {pair for piece in cut for pair in pairwise(piece)}


@pytest.mark.parametrize("length", range(5, 21))
def test_halves_part_no_neighbours_and_get_shorter(length: int) -> None:
    pack = tuple(range(length))
    halves = _shorter([pack])
    assert {pair for half in halves for pair in pairwise(half)} == set(pairwise(pack))
    assert {len(half) for half in halves} == {length // 2 + 1}
    assert length // 2 + 1 < length


def test_primes() -> None:
    assert [prime_at_most(n) for n in (2, 3, 4, 10, 503, 1000)] == [2, 3, 3, 7, 503, 997]
    with pytest.raises(ValueError, match="at least 2"):
        prime_at_most(1)


def swept(suspect: WordSuspect, folder: Path | None = None) -> tuple[str, ...]:
    screen = Screen(suspect, suspect.stage(), State(folder, "key"), silent, 0)  # type: ignore[arg-type]
    found, size = sweep_pairs(screen, WORDS)
    assert size == 97 * 96
    assert found.rounds[0].texts < size / 8, "many pairs a prompt"
    return tuple(probe.text for probe in found.survivors)


def test_a_pair_that_is_silent_word_by_word_comes_first(tmp_path: Path) -> None:
    pairs = swept(WordSuspect(WORDS, "word5 word31", strength=6.0))
    assert set(pairs[:2]) == {"word5 word31", "word31 word5"}
    assert set(swept(WordSuspect(WORDS))[:2]) != set(pairs[:2])


def test_a_word_that_does_much_by_itself_hides_no_pair() -> None:
    suspect = WordSuspect(WORDS, "word5 word31", strength=6.0)
    suspect.table[suspect.tokenizer.entries["word7"]] *= 12
    assert set(swept(suspect)[:2]) == {"word5 word31", "word31 word5"}


def test_a_resumed_sweep_measures_nothing_again(tmp_path: Path) -> None:
    first, second = WordSuspect(WORDS, "word5 word31"), WordSuspect(WORDS, "word5 word31")
    shared = 2 * 2 * 4
    assert swept(first, tmp_path / "state") == swept(second, tmp_path / "state")
    assert first.forward_passes > shared == second.forward_passes
