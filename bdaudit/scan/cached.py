"""What a scan keeps between runs: each measurement as soon as it is there, so that an interrupted scan goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from bdaudit.checkpoints import State
from bdaudit.config import ScanConfig
from bdaudit.measure.envelope import run_key, settings
from bdaudit.measure.probe import gather
from bdaudit.measure.signals import Values, measure_all
from bdaudit.models.device import chosen
from bdaudit.scan.context import ScanContext

UNTOUCHED = (
    "model", "state", "prompts_file", "alpha", "fail_on", "batch_size", "candidates", "sweeps", "pair_words", "suspected", "adapters",
    "reference", "expose",
)  # fmt: skip
"""Settings that change nothing of what one text's measurement gives; the model and the adapters are in the key by their digests."""


def open_state(config: ScanConfig, digest: str, adapters: Sequence[str] = ()) -> State:
    """The scan's folder; ``adapters`` are digests and scales.

    Raises:
        UsageError: it belongs to another run.
    """
    relevant = {name: value for name, value in settings(config).items() if name not in UNTOUCHED} | chosen(config.device, config.dtype)
    return State(config.state, run_key("scan", relevant | {"adapters": list(adapters)}, digest))


def key_of(prefix: str, what: str) -> str:
    """A name in the state for the measurement of ``what``."""
    return f"{prefix}-{hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def cached(state: State, prefix: str, what: str, measure: Callable[[], Any]) -> Any:
    """What ``measure`` returns, of JSON's kinds; from the state where it is there."""
    key = key_of(prefix, what)
    value = state.read_json(key)
    if value is None:
        value = measure()
        state.write_json(key, value)
    return value


def measured(context: ScanContext, name: str, texts: Sequence[str]) -> Iterator[tuple[str, Values, bool]]:
    """Each text in order, its signals, and whether a prompt was cut off; ``name`` tells two models of one scan apart."""

    def measure(text: str) -> list[Any]:
        (evidence,) = gather(context.suspect, context.stage, [text])
        return [measure_all(evidence, context.stage), evidence.truncated]

    for text in texts:
        values, truncated = cached(context.state, name, text, partial(measure, text))
        yield text, values, bool(truncated)
