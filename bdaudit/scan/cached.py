"""What a scan keeps between runs: each measurement as soon as it is there, so that an interrupted scan goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from bdaudit.kept_state import State
from bdaudit.measure.probe import gather
from bdaudit.measure.signals import SIGNALS, Values, measure_all
from bdaudit.scan.context import ScanContext

Kept = TypeVar("Kept")

UNTOUCHED = (
    "model", "state", "prompts_file", "alpha", "fail_on", "accept", "batch_size", "candidates", "sweeps", "pair_words", "suspected",
    "adapters", "reference", "expose",
)  # fmt: skip
"""Settings that change nothing of what one text's measurement gives; the model and the adapters are in the key by their digests."""


def key_of(prefix: str, what: str) -> str:
    """A name in the state for the measurement of ``what``."""
    return f"{prefix}-{hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def cached(
    state: State, prefix: str, what: str, kind: type[Kept], measure: Callable[[], Kept], check: Callable[[Kept], object] = lambda _: None
) -> Kept:
    """What ``measure`` returns, of ``kind``; from the state where it is there, if ``check`` raises no ``ValueError`` of it.

    Raises:
        UsageError: what is kept there is none of it.
    """
    key = key_of(prefix, what)
    value: Kept | None = state.read_json(key, kind)
    if value is None:
        value = measure()
        state.write_json(key, value)
    with state.fitting(key):
        check(value)
    return value


def measured(context: ScanContext, name: str, texts: Sequence[str]) -> Iterator[tuple[str, Values, bool]]:
    """Each text in order, its signals, and whether a prompt was cut off; ``name`` tells two models of one scan apart."""

    def measure(text: str) -> tuple[Values, bool]:
        (evidence,) = gather(context.suspect, context.stage, [text])
        return measure_all(evidence, context.stage), evidence.truncated

    for text in texts:
        values, truncated = cached(context.state, name, text, tuple[Values, bool], partial(measure, text), _check_whole)
        yield text, values, truncated


def _check_whole(kept: tuple[Values, bool]) -> None:
    """Raises ``ValueError`` unless every signal is there at every place."""
    if not kept[0] or any(signals.keys() != SIGNALS.keys() for signals in kept[0].values()):
        raise ValueError("a measurement lacks signals")
