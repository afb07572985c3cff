"""Pairs by group testing: every ordered pair is somewhere, and one that does what neither word does is found."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bdaudit.pipeline.state import State
from bdaudit.progress import silent
from bdaudit.scan.halving import Screen
from bdaudit.scan.pairs import _often, circuit, prime_at_most, stretches, sweep_pairs
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


def test_primes() -> None:
    assert [prime_at_most(n) for n in (2, 3, 4, 10, 503, 1000)] == [2, 3, 3, 7, 503, 997]
    with pytest.raises(ValueError, match="at least 2"):
        prime_at_most(1)


def test_a_pair_is_told_by_all_prompts_that_hold_it() -> None:
    packs = stretches(circuit(31), 8)
    rest = np.random.default_rng(0).normal(size=len(packs)) + np.array([1.5 * ({5, 17} <= set(pack)) for pack in packs])
    assert set(_often(packs, rest, 31)[:2]) == {(5, 17), (17, 5)}


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
