"""Successive halving: finds what is planted, whatever the order, and goes on where it was stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from bdaudit.kept_state import State
from bdaudit.progress import silent
from bdaudit.scan.context import ScanContext
from bdaudit.scan.sweep.result import SweepResult
from bdaudit.scan.sweep.screen import BLOCK
from bdaudit.scan.sweep.single_texts import halve
from bdaudit.scan.sweep.swept_texts import Probe
from tests.scan.toy import WordSuspect
from tests.small import stopping

WORDS = tuple(f"word{i}" for i in range(300))
TRIGGER = "word123"
KEPT = (40, 10)


def context(suspect: WordSuspect, folder: Path | None = None, progress: Any = silent) -> ScanContext:
    return ScanContext(suspect, suspect.draws(), State(folder, "key"), progress, seed=0)  # type: ignore[arg-type]


def probes(suspect: WordSuspect) -> list[Probe]:
    return [Probe(word, (suspect.tokenizer.entries[word],)) for word in WORDS]


def swept(suspect: WordSuspect, **options: Any) -> SweepResult:
    return halve(context(suspect, **options), "words", probes(suspect), KEPT, 128)


def test_the_trigger_comes_first_and_the_rounds_are_told() -> None:
    suspect = WordSuspect(WORDS, TRIGGER)
    found = swept(suspect)
    assert found.survivors[0].text == TRIGGER
    assert [(r.texts, r.kept) for r in found.rounds] == [(300, 40), (40, 10)]
    assert [r.passes for r in found.rounds] == [2, 8]


def test_order_does_not_matter() -> None:
    suspect = WordSuspect(WORDS, TRIGGER)
    shuffled = random.Random(0).sample(probes(suspect), len(WORDS))
    assert halve(context(suspect), "words", shuffled, KEPT, 128) == swept(suspect)


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_stopped_sweep_goes_on_and_ends_the_same(tmp_path: Path, stop: int) -> None:
    whole = WordSuspect(WORDS, TRIGGER)
    expected = swept(whole)
    first, second = WordSuspect(WORDS, TRIGGER), WordSuspect(WORDS, TRIGGER)
    with pytest.raises(KeyboardInterrupt):
        swept(first, folder=tmp_path / "state", progress=stopping(stop))
    assert swept(second, folder=tmp_path / "state") == expected
    shared = 2 * len(WordSuspect(WORDS).draws())
    assert first.forward_passes + second.forward_passes - 2 * shared == whole.forward_passes - shared, "nothing was measured twice"
    assert second.forward_passes < whole.forward_passes - BLOCK


def test_few_texts_all_come_through() -> None:
    suspect = WordSuspect(WORDS, TRIGGER)
    assert len(halve(context(suspect), "words", probes(suspect)[:6], KEPT, 128).survivors) == 6
    assert halve(context(suspect), "words", [], KEPT, 128).survivors == ()
